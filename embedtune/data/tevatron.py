"""Tevatron's training files: `query_id`, `query`, and `positive_passages` and `negative_passages`, each a list of
`{"docid", "title"?, "text"}`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..types import Item
from .jsonl import LineError, id_in
from .records import LabelledQuery, Row, one, texts


def records(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """Each line as a record, with the ids that it gives."""
    for row in rows:
        where, values = row
        positives = tuple(_documents(row, "positive_passages"))
        if not positives:
            raise LineError(where, "missing text", "'positive_passages' is empty; every line needs one")
        yield LabelledQuery(
            where=where,
            query=Item(id=id_in(values, "query_id", where), text=one(row, "query")),
            positives=positives,
            negatives=tuple(_documents(row, "negative_passages")),
        )


def _documents(row: Row, column: str) -> Iterator[Item]:
    where, values = row
    given = values.get(column) or []
    if not isinstance(given, list) or not all(isinstance(document, dict) for document in given):
        raise LineError(where, "wrong type", f'{column!r} must be a list of {{"docid", "title", "text"}}')
    for document in given:
        title, text = (next(texts((where, document), key), "") for key in ("title", "text"))
        if not title and not text:
            raise LineError(where, "missing text", f"a document in {column!r} has no text")
        yield Item(id=id_in(document, "docid", where), title=title, text=text)
