from __future__ import annotations

from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full, lowest_positive

SPEC = MethodSpec(by_query=True, neutral={"alpha": 0.0}, experimental=True)


def relative_hardness(scores: Scores, keep: Tensor, *, alpha: float = 5.0) -> Tensor:
    """Weighs a negative by how near it comes to the positive: exp(alpha * (score - positive score)). Reconstructed.

    Hardness relative to the positive is the idea of QQMM-embed (arXiv 2506.02020), known here second-hand; its formula
    rescales gradients and is not this one, so this method has another name.

    alpha: log-weight per unit of similarity; 0 is off. The positive score is the lowest of the query's positives; a
    row without one is not weighted. Not normalised; where the positive leads, negatives count less than in plain
    InfoNCE. Detached.
    """
    student = full(scores.student.detach())
    gap = student - lowest_positive(student, scores.positive)  # (Q, D), -inf in rows without a positive
    return (alpha * gap).masked_fill(~keep | ~gap.isfinite(), 0.0)
