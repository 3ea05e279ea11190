from __future__ import annotations

from typing import Literal

from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full


def mean_std(scores: Scores, *, deviations: float = 1.0, drop: Literal["above", "below"] = "above") -> Tensor:
    """Cuts each query's candidates at the mean + k std of their scores (the threshold of ATSS, arXiv 1912.02424).

    deviations: k, how many standard deviations (unbiased, over n - 1, as in ATSS) above the mean the cut lies.
    drop: above drops candidates scored at the cut or higher, the suspected false negatives; below keeps only those,
    the hard ones.

    Departure: ATSS chooses positives among detection boxes by this threshold; here it cuts negatives. The statistics
    are over scores.candidate, regardless of other filters. Where fewer than two candidates have scores, or all are
    equal, nothing is dropped.
    """
    known, mean, std = _moments(scores)
    high = full(scores.judge) >= mean + deviations * std
    dropped = high if drop == "above" else ~high
    return scores.candidate & ~(known & dropped & (std > 1e-6))  # equal scores have a std of rounding errors


def limit(scores: Scores, *, deviations: float = 1.0, drop: Literal["above", "below"] = "above") -> Tensor:
    """(Q, 1) what a candidate's score is compared with, for the evidence."""
    _, mean, std = _moments(scores)
    return mean + deviations * std


def _moments(scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, D) which candidates have a score, and (Q, 1) their mean and standard deviation."""
    judge = full(scores.judge)
    known = scores.candidate & ~judge.isnan()
    values = judge.masked_fill(~known, 0.0)
    count = known.sum(dim=1, keepdim=True)  # (Q, 1)
    mean = values.sum(dim=1, keepdim=True) / count.clamp(min=1)
    squares = ((values - mean) ** 2).masked_fill(~known, 0.0).sum(dim=1, keepdim=True)
    return known, mean, (squares / (count - 1).clamp(min=1)).sqrt()


SPEC = MethodSpec(by_query=True, limit=limit, reads_teacher=True)
