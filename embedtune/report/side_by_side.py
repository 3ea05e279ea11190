"""What contact sheets show: queries with what they found, and suspects beside what they were taken for."""

from __future__ import annotations

from collections.abc import Sequence

from ..negatives.audit import Audit
from ..search.folder import SearchResult
from ..types import Dataset, Item, Qrels
from .sheet import MOST_ACROSS, Card, Row

MOST_FOUND = 5 * MOST_ACROSS  # of a query alone; of several, one line each


def of_search(
    queries: Sequence[Item], found: Sequence[Sequence[SearchResult]], qrels: Qrels | None = None
) -> list[Row]:
    """A row for each query: its results with rank and score; those judged relevant are marked."""
    most = MOST_FOUND if len(queries) == 1 else MOST_ACROSS
    return [
        Row(
            first=Card(heading="query", item=query),
            others=[
                Card(
                    heading=f"{one.rank}.  {one.score:.3f}",
                    item=one.document,
                    marked=(qrels or {}).get(query.id, {}).get(one.document.id, 0) > 0,
                )
                for one in of_query[:most]
            ],
        )
        for query, of_query in zip(queries, found, strict=True)
    ]


def of_suspects(found: Audit, dataset: Dataset) -> list[Row]:
    """A row for each suspect: its query, the lowest positive of that query, and the suspect, each with its score."""
    return [
        Row(
            first=Card(heading="query", item=dataset.queries[suspect.query_id]),
            others=[
                Card(
                    heading=f"positive  {suspect.positive_reference:.3f}",
                    item=dataset.corpus[suspect.positive_id],
                    marked=True,
                ),
                Card(heading=f"suspect  {suspect.reference:.3f}", item=dataset.corpus[suspect.doc_id]),
            ],
        )
        for suspect in (listed.candidate for listed in found.suspects)
    ]
