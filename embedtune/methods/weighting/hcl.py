from __future__ import annotations

from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._normalise import normalise

SPEC = MethodSpec(by_query=True, neutral={"beta": 0.0})


def hcl(
    scores: Scores,
    keep: Tensor,
    *,
    beta: float = 1.0,
    temperature: float = 0.05,
    detach_importance: bool = False,
) -> Tensor:
    """Importance weights exp(beta * score / temperature) of hard-negative contrastive learning (HCL, arXiv 2010.04592).

    beta: 0 is off, the paper finds 0.5 to 2 useful. temperature: the loss's own, which this cannot see.
    detach_importance: the released code lets gradients flow through the weights, as here by default.

    Normalised: a row's weights average 1. With infonce this is the paper's loss at a positive rate of 0, where nothing
    is clamped; the loss `debiased` has the rate.
    """
    if not temperature > 0:
        raise InputError(f"weighting.hcl.temperature: must be above 0, got {temperature}")
    student = scores.student.detach() if detach_importance else scores.student
    return normalise(beta * full(student) / temperature, keep)
