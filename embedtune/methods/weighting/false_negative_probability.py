from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full

SPEC = MethodSpec(needs=("teacher",), by_query=True, neutral={"gamma": 0.0}, experimental=True)


def false_negative_probability(scores: Scores, keep: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Weighs a negative by (1 - p)^gamma, p its chance of being false (RRRA, arXiv 2508.11670, second-hand).

    p is the teacher's score, which must be a probability, as a cross-encoder with a single label gives it. For RRRA's
    own adapter see `rrra_weight`. gamma: 0 is off; the paper's value is not known here.

    Departure: RRRA draws negatives in proportion to it; here all stay and are weighted. Not normalised; weights are
    at most 1 and at least 1e-6^gamma. Detached. Where there is no score (NaN) the weight is 1. Raises InputError
    without a teacher, or where a teacher's score lies outside 0 to 1.
    """
    if scores.teacher is None:
        raise InputError("weighting.false_negative_probability: needs a teacher's scores, as probabilities")
    chance = full(scores.teacher.detach())
    outside = keep & ((chance < 0) | (chance > 1))
    if bool(outside.any()):
        raise InputError(
            "weighting.false_negative_probability: the teacher's scores must be probabilities from 0 to 1, "
            f"got {float(chance[outside][0]):g}"
        )
    log_weights = gamma * (1 - chance).clamp(min=1e-6).log()
    return log_weights.masked_fill(~keep | torch.isnan(chance), 0.0)
