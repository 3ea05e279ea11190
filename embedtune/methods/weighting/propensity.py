from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full, lowest_positive

SPEC = MethodSpec(by_query=True, neutral={"labelled": 1.0}, reads_teacher=True, experimental=True)


def propensity(scores: Scores, keep: Tensor, *, labelled: float = 0.5, temperature: float = 0.05) -> Tensor:
    """Weighs each negative by the chance that it is one, given that it has no label (after SAR-PU, arXiv 1808.08755).

    Reconstructed for ranking. With r the chance that a candidate is relevant and e = `labelled` the chance that a
    relevant one was labelled, an unlabelled candidate is irrelevant with chance (1 - r) / (1 - r e), its weight.
    r = sigmoid((score - positive score) / temperature): one half for what scores like the query's lowest positive.

    labelled: in [0.1, 1]; at 1 every unlabelled candidate is a negative and nothing is weighted.
    temperature: in the units of the compared scores (the teacher's with a teacher, else the student's).

    Not normalised; weights are at most 1. Detached. Where there is no score (NaN) the weight is 1.
    """
    if not 0.1 <= labelled <= 1:
        raise InputError(f"weighting.propensity.labelled: expected 0.1 to 1, got {labelled}")
    if not temperature > 0:
        raise InputError(f"weighting.propensity.temperature: must be above 0, got {temperature}")
    judge = full(scores.judge)
    evidence = (judge - lowest_positive(judge, scores.positive)) / temperature
    log_weights = F.logsigmoid(-evidence) - (-labelled * evidence.sigmoid()).log1p()
    return log_weights.masked_fill(~keep | ~evidence.isfinite() | (labelled == 1), 0.0)
