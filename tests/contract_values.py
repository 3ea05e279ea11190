"""What tests of contracts share besides their fixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from embedtune import methods
from embedtune.types import Scores

QUERIES, DOCUMENTS = 4, 11


def permuted(scores: Scores, rows: Tensor, columns: Tensor) -> Scores:
    def moved(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[rows][:, columns]

    assert scores.queries is not None
    assert scores.documents is not None
    return Scores(
        student=scores.student[rows][:, columns],
        positive=scores.positive[rows][:, columns],
        candidate=scores.candidate[rows][:, columns],
        own=moved(scores.own),
        teacher=moved(scores.teacher),
        queries=scores.queries[rows],
        documents=scores.documents[columns],
        query_ids=tuple(scores.query_ids[row] for row in rows.tolist()),
        doc_ids=tuple(scores.doc_ids[column] for column in columns.tolist()),
        positive_ids=tuple(scores.positive_ids[row] for row in rows.tolist()),
    )


ROWS, COLUMNS = torch.tensor([2, 0, 3, 1]), torch.tensor([7, 0, 10, 3, 1, 9, 2, 8, 4, 6, 5])


def neutral_options(family: str, name: str) -> dict[str, Any] | None:
    """The options with which a method changes nothing, as its SPEC states them."""
    neutral = methods.describe(family, name).spec.neutral
    return None if neutral is None else dict(neutral)


def value_of(
    loss: Callable[..., tuple[Tensor, dict[str, Any]]], scores: Scores, keep: Tensor, log_weights: Tensor | None = None
) -> Tensor:
    value, parts = loss(scores, keep, torch.zeros_like(scores.student) if log_weights is None else log_weights)
    assert value.shape == ()
    assert value.isfinite()
    assert all(isinstance(part, int | float) or part.numel() == 1 for part in parts.values())
    assert not any(isinstance(part, Tensor) and part.requires_grad for part in parts.values())
    return value


def kind_of(name: str, family: str = "loss") -> str:
    return str(methods.describe(family, name).spec.kind)
