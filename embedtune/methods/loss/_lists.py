"""What losses that follow a teacher share: both distributions over each query's list."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...types import Scores
from .._numerics import full
from ._pairs import row_counts


@dataclass(frozen=True)
class Lists:
    """A query's list is its positives and its kept negatives, those that the teacher has scored (not NaN).

    student, teacher: (R, D) log-probabilities over the lists of the R rows that have one; 0 outside of the list.
    listed: (R, D) bool. counts: the number of rows that have one, and of rows with a positive but no scored negative.
    """

    student: Tensor
    teacher: Tensor
    listed: Tensor
    counts: dict[str, float | Tensor]


def lists(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    teacher: Tensor,
    *,
    temperature: float,
    teacher_temperature: float,
) -> Lists:
    """Softmax of student and teacher (Q, D) over each query's list. Log-weights are added to the student's logits."""
    teacher = full(teacher.detach())
    known = ~teacher.isnan()
    judged = scores.positive.any(dim=1)
    valid = (keep & known).any(dim=1) & judged
    counts = row_counts(judged.nonzero().flatten(), valid[judged], len(keep))
    listed = ((scores.positive | keep) & known)[valid]  # (R, D)

    def log_shares(logits: Tensor) -> Tensor:
        return logits.masked_fill(~listed, -torch.inf).log_softmax(dim=1).masked_fill(~listed, 0.0)

    student = log_shares(full(scores.student)[valid] / temperature + log_weights[valid])
    return Lists(student, log_shares(teacher[valid] / teacher_temperature), listed, counts)
