"""The queries that gained and lost most, with their texts where the dataset is still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..data.dataset import queries_file
from ..data.jsonl import JsonLines
from .significance import TIE


@dataclass(frozen=True, kw_only=True)
class Change:
    """One query's values. text and image (its file) are None where it has none, or the dataset is no longer there."""

    query_id: str
    text: str | None
    image: str | None
    baseline: float
    value: float
    difference: float


class Texts:
    """Queries that the results themselves keep, or from the first of the folders that is there; opened once, and only
    if asked for."""

    def __init__(self, folders: Sequence[Path], kept: Mapping[str, str]) -> None:
        self.folders, self.kept = folders, kept

    @cached_property
    def file(self) -> Path | None:
        return next((file for folder in self.folders if (file := queries_file(str(folder))).exists()), None)

    @cached_property
    def _queries(self) -> JsonLines | None:
        return JsonLines(self.file) if self.file is not None else None

    def of(self, query_id: str) -> tuple[str | None, str | None]:
        """The query's text (its image's name where it has none), and its image's file; None for what is not there."""
        if query_id in self.kept:
            return self.kept[query_id], None
        if self._queries is None or query_id not in self._queries:
            return None, None
        item = self._queries[query_id]
        return item.shown or None, str(item.image) if item.image is not None else None


def largest_changes(
    before: Mapping[str, float], after: Mapping[str, float], count: int, texts: Texts
) -> tuple[tuple[Change, ...], tuple[Change, ...]]:
    """At most `count` queries that gained most, and at most `count` that lost most, the largest change first."""
    differences = {query_id: after[query_id] - before[query_id] for query_id in before}
    order = sorted(differences, key=lambda query_id: (-abs(differences[query_id]), query_id))

    def shown(query_id: str) -> Change:
        text, image = texts.of(query_id)
        return Change(
            query_id=query_id,
            text=text,
            image=image,
            baseline=before[query_id],
            value=after[query_id],
            difference=differences[query_id],
        )

    gained = [query_id for query_id in order if differences[query_id] > TIE][:count]
    lost = [query_id for query_id in order if differences[query_id] < -TIE][:count]
    return tuple(map(shown, gained)), tuple(map(shown, lost))
