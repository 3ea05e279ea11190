"""Tevatron 1's training rows. https://github.com/texttron/tevatron, src/tevatron/retriever/dataset.py"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...types import Item
from ..jsonl import LineError, id_in
from ..records import LabelledQuery, Row, missing, one_text, texts
from . import RowFormat


def labelled_queries(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """`query_id`, `query`, `positive_passages` and `negative_passages`, which list `docid`, `title` and `text`."""
    for row in rows:
        where, values = row
        positives = tuple(_passages(row, "positive_passages"))
        if not positives:
            raise missing(row, "positive_passages")
        yield LabelledQuery(
            where=where,
            query=Item(id=id_in(values, "query_id", where), text=one_text(row, "query")),
            positives=positives,
            negatives=tuple(_passages(row, "negative_passages")),
        )


def _passages(row: Row, column: str) -> Iterator[Item]:
    where, values = row
    passages = values.get(column) or []
    if not isinstance(passages, list) or not all(isinstance(passage, dict) for passage in passages):
        raise LineError(where, "wrong type", f'{column!r} must be a list of {{"docid", "title", "text"}}')
    for passage in passages:
        title, text = (next(iter(texts((where, passage), key)), "") for key in ("title", "text"))
        if not title and not text:
            raise LineError(where, "missing text", f"a document in {column!r} has no text")
        yield Item(id=id_in(passage, "docid", where), title=title, text=text)


FORMAT = RowFormat(name="Tevatron 1", recognises=lambda values: "positive_passages" in values, read=labelled_queries)
