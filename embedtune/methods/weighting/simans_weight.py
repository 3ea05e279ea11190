from __future__ import annotations

from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full, lowest_positive
from ..sampling.simans import log_preference
from ._normalise import normalise

SPEC = MethodSpec(by_query=True, neutral={"sharpness": 0.0}, experimental=True)


def simans_weight(scores: Scores, keep: Tensor, *, sharpness: float = 10.0, center_offset: float = 0.0) -> Tensor:
    """Lets ambiguous negatives count more: SimANS's sampling weights (arXiv 2210.11773) as soft weights. Reconstructed.

    The paper draws negatives by exp(-sharpness * (s - s+ - center_offset)^2); here all stay and are weighted by it,
    s being the student's score and s+ the lowest of the query's positives. sharpness: in 1/score^2, the default is for
    cosine; 0 is off.

    Normalised: a row's weights average 1. Detached. A row without a positive is not weighted.
    """
    student = full(scores.student.detach())
    positive = lowest_positive(student, scores.positive)  # (Q, 1)
    preference = log_preference(student, positive, sharpness, center_offset)
    return normalise(preference.masked_fill(~positive.isfinite(), 0.0), keep)
