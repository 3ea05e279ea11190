"""A batch: its queries, every document once, and who is what to whom, by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.relevance import Relevance, item_key
from ..types import Item, Pair


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Q queries and D different documents; the masks are those of `types.Scores`."""

    query_ids: tuple[str, ...]
    doc_ids: tuple[str, ...]
    positive: Tensor  # (Q, D) bool
    candidate: Tensor  # (Q, D) bool
    own: Tensor  # (Q, D) bool
    positive_ids: tuple[frozenset[str], ...]
    made: tuple[Item, ...]  # the last documents: they are in no corpus
    made_queries: Tensor  # (Q,) bool

    def of(self, rows: Sequence[int]) -> Batch:
        """These queries with all of the batch's documents."""
        places = torch.tensor(rows, dtype=torch.int64)
        return replace(
            self,
            query_ids=tuple(self.query_ids[row] for row in rows),
            positive=self.positive[places],
            candidate=self.candidate[places],
            own=self.own[places],
            positive_ids=tuple(self.positive_ids[row] for row in rows),
            made_queries=self.made_queries[places],
        )


def lay_out(
    pairs: Sequence[Pair],
    negatives: Mapping[str, Sequence[str]],
    relevance: Relevance,
    made: Mapping[str, Sequence[Item]] | None = None,
) -> Batch:
    """The batch of these pairs: their positives, the negatives drawn for their queries, those made for them; each
    once."""
    made = made or {}
    items = {item.id: item for pair in pairs for item in made.get(pair.query_id, ())}
    query_ids = tuple(pair.query_id for pair in pairs)
    positives = [doc_id for pair in pairs for doc_id in pair.positives]
    drawn = [doc_id for query_id in query_ids for doc_id in negatives.get(query_id, ())]
    real = tuple(dict.fromkeys([*positives, *drawn]))
    doc_ids = (*real, *items)
    column = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    shape = (len(query_ids), len(doc_ids))
    positive, own = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, query_id in enumerate(query_ids):
        positive[row, [column[d] for d in relevance.positives[query_id] if d in column]] = True
        own[row, [column[d] for d in negatives.get(query_id, ())]] = True
        own[row, [column[item.id] for item in made.get(query_id, ())]] = True
    with_key: dict[str, list[int]] = {}  # what is the same -> its columns
    for place, key in enumerate([*map(relevance.document_key, real), *map(item_key, items.values())]):
        with_key.setdefault(key, []).append(place)
    candidate = ~positive
    for row, query_id in enumerate(query_ids):
        candidate[row, [c for key in relevance.forbidden_keys(query_id) for c in with_key.get(key, ())]] = False
    return Batch(
        query_ids=query_ids,
        doc_ids=doc_ids,
        positive=positive,
        candidate=candidate,
        own=own & candidate,
        positive_ids=tuple(relevance.positives[query_id] for query_id in query_ids),
        made=tuple(items.values()),
        made_queries=torch.tensor([relevance.is_made(query_id) for query_id in query_ids]),
    )
