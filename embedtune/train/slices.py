"""A batch's objective over some of its queries at a time: what it comes to in all, and how many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..methods.loss._pairs import WithoutNegatives
from . import bound
from .batch import Batch

Parts = dict[str, Tensor | float]
"""What is said for the log, by name."""
Value = TypeVar("Value", Tensor | float, float)


@dataclass(frozen=True)
class Term:
    """One loss on some queries: its value, the mean over `over` of them (queries, or pairs, as the loss says), and its
    parts for the log. refused: where the loss would have refused them as a batch, its error; the value is 0 then."""

    value: Tensor
    over: Tensor | int
    parts: Parts
    refused: WithoutNegatives | None = None


def slices_of(batch: Batch) -> list[range]:
    """The batch's rows in consecutive slices, so that a matrix of a slice's positive pairs (at least one a query) with
    all documents and one column more stays within LARGEST_MATRIX; a slice is one query at least."""
    pairs = batch.positive.sum(dim=1).clamp(min=1).tolist()
    room = bound.LARGEST_MATRIX // (len(batch.doc_ids) + 1)
    starts, held = [0], 0
    for row, count in enumerate(pairs):
        if held and held + count > room:
            starts.append(row)
            held = 0
        held += count
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True)]


def part_of(value: Tensor | float, term: Term, everything: Term) -> Tensor:
    """What a mean over the term's queries adds to the mean over all of them."""
    found: Tensor = value * term.over / torch.as_tensor(everything.over).clamp(min=1)
    return found


def joined(terms: Sequence[Term]) -> Term:
    """The term of all queries, from those of the slices. Its parts: whole numbers are counts, which add up; others are
    means over the queries. Raises WithoutNegatives where not a single query of any slice has a negative."""
    refused = [term.refused for term in terms if term.refused is not None]
    if len(refused) == len(terms):
        raise WithoutNegatives(sum(error.queries for error in refused))
    over = sum((torch.as_tensor(term.over) for term in terms), start=torch.zeros(()).long())
    everything = Term(torch.zeros(()), over, {})
    value = sum((part_of(term.value.detach(), term, everything) for term in terms), start=everything.value)
    parts: Parts = {}
    for term in terms:
        for name, said in term.parts.items():
            more = said if _is_count(said) else part_of(said, term, everything)
            parts[name] = parts[name] + more if name in parts else more
    return Term(value, over, parts)


def _is_count(value: Tensor | float) -> bool:
    return not value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, int)


def added(parts: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
    """The sums by name."""
    found: dict[str, Value] = {}
    for said in parts:
        for name, value in said.items():
            found[name] = found[name] + value if name in found else value
    return found
