"""The small data on which a method is tried, and the method with the options that suit it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Scores
from . import _seam as seam
from ._reading import Method, MethodSpec

QUERIES, DOCUMENTS = 4, 11
# Another order of the queries, and of the documents.
ROWS, COLUMNS = torch.tensor([2, 0, 3, 1]), torch.tensor([7, 0, 10, 3, 1, 9, 2, 8, 4, 6, 5])


class ContractBroken(Exception):
    """What a method did that its family's contract excludes."""


@dataclass(frozen=True)
class Trial:
    """A method to be tried, with the options that make it work on the trial's small data."""

    method: Method
    options: dict[str, Any]

    @property
    def spec(self) -> MethodSpec:
        """What the method's file states."""
        return self.method.spec

    def make(self, **options: Any) -> Any:
        """A fresh instance of the method, as in training."""
        return seam.bind(self.method.family, self.method.name, {**self.options, **options})


Contract = Callable[[Trial], None]
"""Tries a method. Raises ContractBroken, in one sentence, where its family's contract is not kept."""


def trial_of(family: str, name: str, **options: Any) -> Trial:
    """The method with the options of its SPEC's `trial` and these."""
    method = seam.describe(family, name)
    return Trial(method, {**(method.spec.trial or {}), **options})


def require(kept: object, sentence: str) -> None:
    if not kept:
        raise ContractBroken(sentence)


def trial_scores() -> Scores:
    """4 queries and 11 documents: query 0 has two positives, columns 5 to 8 were mined for queries 0 to 3, 9 and 10 are
    in-batch negatives, and a column here and there is no candidate. The teacher is sure of the positives."""
    generator = torch.Generator().manual_seed(3)
    queries = F.normalize(torch.randn(QUERIES, 6, generator=generator), dim=1)
    documents = F.normalize(torch.randn(DOCUMENTS, 6, generator=generator), dim=1)
    positive = torch.zeros(QUERIES, DOCUMENTS, dtype=torch.bool)
    positive[[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]] = True
    own_negatives = torch.zeros_like(positive)
    own_negatives[range(4), range(5, 9)] = True
    candidate = ~positive
    candidate[:, 5:9] &= own_negatives[:, 5:9] | (torch.rand(4, 4, generator=generator) < 0.5)
    teacher = torch.where(positive, 3.0, 0.6 * torch.rand(QUERIES, DOCUMENTS, generator=generator))
    return Scores(
        student=(queries @ documents.T).requires_grad_(),
        positive=positive,
        candidate=candidate,
        own=own_negatives,
        teacher=teacher,
        queries=queries,
        documents=documents,
        query_ids=tuple(f"q{row}" for row in range(QUERIES)),
        doc_ids=tuple(f"d{column}" for column in range(DOCUMENTS)),
        positive_ids=tuple(frozenset(f"d{column}" for column in row.nonzero().flatten()) for row in positive),
    )


def selected(scores: Scores, rows: Tensor, columns: Tensor) -> Scores:
    """The scores of these queries and documents, in this order."""

    def part(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[rows][:, columns]

    return dataclasses.replace(
        scores,
        student=scores.student[rows][:, columns],
        positive=scores.positive[rows][:, columns],
        candidate=scores.candidate[rows][:, columns],
        own=part(scores.own),
        teacher=part(scores.teacher),
        queries=None if scores.queries is None else scores.queries[rows],
        documents=None if scores.documents is None else scores.documents[columns],
        query_ids=tuple(scores.query_ids[row] for row in rows.tolist()),
        doc_ids=tuple(scores.doc_ids[column] for column in columns.tolist()),
        positive_ids=tuple(scores.positive_ids[row] for row in rows.tolist()),
    )


def shuffled(scores: Scores) -> Scores:
    return selected(scores, ROWS, COLUMNS)
