"""What every training file comes down to: a query with its positives and given negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..types import Item
from .jsonl import LineError

Row = tuple[str, dict[str, Any]]
"""Where a row stands (`file:line`), and its columns by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledQuery:
    """A query with its positives and given negatives, best first. An item with an empty id has none in the source."""

    where: str
    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()


def texts(row: Row, column: str) -> Iterator[str]:
    """The texts in one column of a row: none where it is empty, several where it holds a list."""
    where, values = row
    value = values.get(column)
    for text in value if isinstance(value, list) else [value]:
        if text is not None and not isinstance(text, str):
            raise LineError(where, "wrong type", f"{column!r} must be text or a list of texts, got {str(text)[:40]}")
        if text and text.strip():
            yield text


def required(row: Row, column: str) -> tuple[str, ...]:
    """As `texts`, but at least one."""
    found = tuple(texts(row, column))
    if not found:
        raise LineError(row[0], "missing text", f"{column!r} is empty; every line needs one")
    return found


def one(row: Row, column: str) -> str:
    """The one text in a column."""
    found = required(row, column)
    if len(found) > 1:
        raise LineError(row[0], "wrong type", f"{column!r} must be one text, got a list of {len(found)}")
    return found[0]
