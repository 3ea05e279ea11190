from __future__ import annotations

from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full, lowest_positive


def positive_ratio(scores: Scores, *, at_most: float = 0.95) -> Tensor:
    """Keeps candidates scored below a share of the positive's score (TopK-PercPos of NV-Retriever, arXiv 2407.15831).

    at_most: the share; a candidate stays where score < p - |p| * (1 - at_most), p being the query's lowest positive
    score. For p > 0 that is the paper's at_most * p; for p < 0 the paper's product would lie above p and keep
    candidates that score better than the positive. With a teacher, its scores are compared. Where there is no score
    (NaN) the candidate stays.
    """
    return scores.candidate & ~(full(scores.judge) >= limit(scores, at_most=at_most))


def limit(scores: Scores, *, at_most: float = 0.95) -> Tensor:
    """(Q, 1) what a candidate's score is compared with."""
    positive = lowest_positive(full(scores.judge), scores.positive)
    return positive - positive.abs() * (1 - at_most)


SPEC = MethodSpec(by_query=True, limit=limit, reads_teacher=True)
