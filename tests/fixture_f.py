"""The fixture that methods are checked on by hand: 3 queries, 3 documents, two own negatives a query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from embedtune.types import Scores

TEMPERATURE = 0.1
F = torch.tensor([[0.9, 0.4, 0.1], [0.3, 0.8, 0.5], [0.2, 0.6, 0.7]])  # positives on the diagonal
OWN = torch.tensor([[0.7, 0.2], [0.75, 0.0], [0.65, 0.5]])  # each query's own hard negatives


def fixture(student: Tensor = F, **optional: Any) -> Scores:
    """F as scores: every column but the diagonal may be a negative."""
    positive = torch.zeros(student.shape, dtype=torch.bool)
    positive.fill_diagonal_(True)
    return Scores(student=student, positive=positive, candidate=~positive, **optional)


def fixture_with_own(count: int = 2) -> Scores:
    """F with each query's first `count` own negatives as further columns that only its own query may use."""
    student = torch.zeros(3, 3 + 3 * count)
    own = torch.zeros(student.shape, dtype=torch.bool)
    student[:, :3] = F
    for row in range(3):
        columns = slice(3 + row * count, 3 + (row + 1) * count)
        student[row, columns] = OWN[row, :count]
        own[row, columns] = True
    positive = torch.zeros(student.shape, dtype=torch.bool)
    positive.fill_diagonal_(True)
    candidate = own.clone()
    candidate[:, :3] = ~positive[:, :3]
    return Scores(student=student, positive=positive, candidate=candidate, own=own)


def no_weights(scores: Scores) -> Tensor:
    return torch.zeros_like(scores.student)
