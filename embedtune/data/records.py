"""Rows of training files as labelled queries: the form that all readers give."""

from __future__ import annotations

import ast
import json
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from ..types import Item
from .jsonl import LineError, id_in

_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[+-]?\d+)?")

Row = tuple[str, dict[str, Any]]
"""The row's position (`file:line`), and its columns by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledQuery:
    """A query with its positives and given negatives, best first. An item has an empty id if the source gives none.

    A string in the stead of an item is the id of one that is written already. relevances: those of the positives; 1
    each where it is empty. teacher: a teacher's scores of the positives, then of the negatives, None where it has none;
    or empty.
    """

    where: str
    query: Item | str
    positives: tuple[Item | str, ...]
    negatives: tuple[Item | str, ...] = ()
    relevances: tuple[int, ...] = ()
    teacher: tuple[float | None, ...] = ()


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


def id_of(row: Row, column: str) -> str:
    """The id in a column of a table, or "" where the cell is empty.

    Blanks around it are no part of it. A whole number may be a fraction: Parquet holds ids so where some are absent.
    """
    where, values = row
    cell = values.get(column)
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return id_in({column: cell.strip() if isinstance(cell, str) else cell}, column, where)


def missing(row: Row, *columns: str) -> LineError:
    """The error for a row without a query or a positive in the columns that should hold it."""
    named = " and ".join(repr(column) for column in columns if column)
    return LineError(row[0], "missing text", f"{named} is empty; every line needs one")


def written_lists(rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns whose cells are all lists written as text, as CSV holds them."""
    names = dict.fromkeys(name for _, values in rows for name in values)
    filled = {name: [cell for _, values in rows if (cell := values.get(name)) not in (None, "")] for name in names}
    return tuple(name for name, cells in filled.items() if cells and all(map(_is_written_list, cells)))


def _is_written_list(cell: object) -> bool:
    if not isinstance(cell, str) or not (cell.strip().startswith("[") and cell.strip().endswith("]")):
        return False
    try:
        return _as_list(cell, "") is not None
    except LineError:
        return False


def with_lists(row: Row, names: Sequence[str]) -> Row:
    """The row with the lists that these columns hold as text. Raises LineError for a cell that holds none."""
    where, values = row
    lists = {name: _as_list(values.get(name), f"{where}: {name!r}") for name in names}
    return (where, values | lists) if names else row


def _as_list(cell: Any, where: str) -> list[Any] | None:
    """A list that a cell of text holds, as JSON, Python or numpy write one; None for an empty or another cell."""
    if not isinstance(cell, str) or not cell.strip():
        return None
    text = cell.strip()
    try:
        try:
            value = json.loads(text)
        except ValueError:
            value = _as_printed(text) or ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        raise LineError(where, "wrong type", f"expected a list such as [1, 0], got {cell[:40]}") from None
    return value if isinstance(value, list) else None


def _as_printed(text: str) -> list[Any] | None:
    """The entries of a list without commas, as numpy prints it and `Dataset.to_csv` writes it; None for another.

    For Python `['a' 'b']` is one text.
    """
    inner = text[1:-1]
    if inner and all(map(_NUMBER.fullmatch, inner.split())):
        return [json.loads(number.rstrip(".")) for number in inner.split()]
    tokens = [token for token in tokenize.generate_tokens(StringIO(text).readline) if token.string.strip()]
    entries = tokens[1:-1]
    if entries and all(token.type == tokenize.STRING for token in entries):
        return [ast.literal_eval(token.string) for token in entries]
    return None
