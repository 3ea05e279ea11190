"""DPR's training rows. https://github.com/facebookresearch/DPR, README.md, "Retriever input data format"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...types import Item
from ..jsonl import LineError, id_in
from ..records import LabelledQuery, Row, missing, one_text, texts
from . import RowFormat

_NEGATIVES = ("hard_negative_ctxs", "negative_ctxs")


def labelled_queries(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """`question`, `positive_ctxs`, `hard_negative_ctxs` and `negative_ctxs`, which list `title`, `text`, `passage_id`.

    `answers` are not used: they are no documents.
    """
    for row in rows:
        positives = tuple(_documents(row, "positive_ctxs"))
        if not positives:
            raise missing(row, "positive_ctxs")
        yield LabelledQuery(
            where=row[0],
            query=Item(id="", text=one_text(row, "question")),
            positives=positives,
            negatives=tuple(document for column in _NEGATIVES for document in _documents(row, column)),
        )


def _documents(row: Row, column: str) -> Iterator[Item]:
    where, values = row
    entries = values.get(column) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LineError(where, "wrong type", f'{column!r} must be a list of {{"title", "text"}}')
    for entry in entries:
        title, text = (" ".join(texts((where, entry), key)) for key in ("title", "text"))
        if not title and not text:
            raise LineError(where, "missing text", f"a document in {column!r} has no text")
        doc_id = id_in(entry, "passage_id", where) or id_in(entry, "psg_id", where)
        yield Item(id=doc_id, title=title, text=text)


FORMAT = RowFormat(name="DPR", recognises=lambda values: "positive_ctxs" in values, read=labelled_queries)
