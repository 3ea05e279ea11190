"""The queries that gained and lost most, with their texts where the dataset is still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..data.jsonl import JsonLines
from .significance import TIE


@dataclass(frozen=True, kw_only=True)
class Change:
    """One query's values. text is None where the dataset is no longer there."""

    query_id: str
    text: str | None
    baseline: float
    value: float
    difference: float


class Texts:
    """Query texts from the first of the folders that is there; opened once, and only if asked for."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders

    @cached_property
    def _queries(self) -> JsonLines | None:
        file = next((folder / "queries.jsonl" for folder in self.folders if (folder / "queries.jsonl").exists()), None)
        return JsonLines(file) if file is not None else None

    def of(self, query_id: str) -> str | None:
        """The query's text, or its image's name; None where it is not to be had."""
        if self._queries is None or query_id not in self._queries:
            return None
        return self._queries[query_id].shown or None


def largest_changes(
    before: Mapping[str, float], after: Mapping[str, float], count: int, texts: Texts
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """At most `count` queries that gained most, and at most `count` that lost most, the largest change first."""
    differences = {query_id: after[query_id] - before[query_id] for query_id in before}
    order = sorted(differences, key=lambda query_id: (-abs(differences[query_id]), query_id))

    def shown(query_id: str) -> Change:
        return Change(
            query_id=query_id,
            text=texts.of(query_id),
            baseline=before[query_id],
            value=after[query_id],
            difference=differences[query_id],
        )

    gained = [query_id for query_id in order if differences[query_id] > TIE][:count]
    lost = [query_id for query_id in order if differences[query_id] < -TIE][:count]
    return tuple(map(shown, gained)), tuple(map(shown, lost))
