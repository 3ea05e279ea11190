"""Rows of training files as labelled queries: the common form, and the readers of FlagEmbedding and Tevatron files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..types import Item
from .jsonl import LineError, id_in

Row = tuple[str, dict[str, Any]]
"""The row's position (`file:line`), and its columns by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledQuery:
    """A query with its positives and given negatives, best first. An item has an empty id if the source gives none."""

    where: str
    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()


def texts(row: Row, column: str) -> tuple[str, ...]:
    """The texts in one column of a row: none where it is empty, several where it holds a list."""
    where, values = row
    cell = values.get(column)
    cells = cell if isinstance(cell, list) else [cell]
    for text in cells:
        if text is not None and not isinstance(text, str):
            raise LineError(where, "wrong type", f"{column!r} must be text or a list of texts, got {str(text)[:40]}")
    return tuple(text for text in cells if text and text.strip())


def one_text(row: Row, column: str) -> str:
    """The only text in a column. Raises LineError where there is none, or several."""
    cell = texts(row, column)
    if not cell:
        raise missing(row, column)
    if len(cell) > 1:
        raise LineError(row[0], "wrong type", f"{column!r} must be one text, got a list of {len(cell)}")
    return cell[0]


def missing(row: Row, *columns: str) -> LineError:
    """The error for a row without a query or a positive in the columns that should hold it."""
    named = " and ".join(repr(column) for column in columns if column)
    return LineError(row[0], "missing text", f"{named} is empty; every line needs one")


def flagembedding(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """FlagEmbedding's `{"query", "pos": [...], "neg": [...], "prompt"?}`; `prompt` is the query's instruction.

    `pos_scores`, `neg_scores` and `id` are not used.
    """
    for row in rows:
        if not texts(row, "pos"):
            raise missing(row, "pos")
        yield LabelledQuery(
            where=row[0],
            query=Item(id="", text=one_text(row, "query"), instruction=next(iter(texts(row, "prompt")), None)),
            positives=tuple(Item(id="", text=text) for text in texts(row, "pos")),
            negatives=tuple(Item(id="", text=text) for text in texts(row, "neg")),
        )


def tevatron(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """Tevatron's `query_id`, `query`, `positive_passages` and `negative_passages`, which list `docid, title?, text`."""
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
