from __future__ import annotations

from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full, lowest_positive


def positive_margin(scores: Scores, *, margin: float = 0.05) -> Tensor:
    """Keeps candidates scored below the positive by a margin (TopK-MarginPos of NV-Retriever, arXiv 2407.15831).

    margin: in the units of the compared scores (the teacher's with a teacher, else the student's). A candidate stays
    where score < p - margin, p being the query's lowest positive score. Where there is no score (NaN) the candidate
    stays.
    """
    return scores.candidate & ~(full(scores.judge) >= limit(scores, margin=margin))


def limit(scores: Scores, *, margin: float = 0.05) -> Tensor:
    """(Q, 1) what a candidate's score is compared with."""
    return lowest_positive(full(scores.judge), scores.positive) - margin


SPEC = MethodSpec(by_query=True, cosine="margin", limit=limit, reads_teacher=True)
