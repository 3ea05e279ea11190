"""Pairs and triplets: one column is the query, one the positive, and any further ones negatives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import InputError, unknown
from ..types import Item
from .records import Record, Row, one, required, texts


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold what. Empty: found by name (`query`, `positive` or `document`, `negative`, `negative_1`...),
    else the first two or three columns of text."""

    query: str = ""
    positive: str = ""
    negatives: tuple[str, ...] = ()


def records(rows: Iterable[Row], columns: Columns) -> Iterator[Record]:
    """Each row as a record. Cells may hold a list of texts (`positive`, `negative`); an empty negative is left out."""
    for row in rows:
        yield Record(
            where=row[0],
            query=Item(id="", text=one(row, columns.query)),
            positives=tuple(Item(id="", text=text) for text in required(row, columns.positive)),
            negatives=tuple(Item(id="", text=text) for name in columns.negatives for text in texts(row, name)),
        )


def choose_columns(source: str, first: Sequence[Row], asked: Columns) -> tuple[Columns, list[str]]:
    """The columns to use, from the first rows of a source, and sentences for the user about what was assumed.

    Raises InputError where a column that is asked for is not there, or two columns of text cannot be found.
    """
    names = list(dict.fromkeys(name for _, values in first for name in values))
    for name in (asked.query, asked.positive, *asked.negatives):
        if name and name not in names:
            raise InputError(f"{source}: {unknown('column', name, names)}")
    query = asked.query or _first_of(names, "query")
    positive = asked.positive or _first_of(names, "positive", "document")
    negatives = asked.negatives or tuple(name for name in names if re.fullmatch(r"negative(_\d+)?", name))
    if query and positive:
        chosen = Columns(query=query, positive=positive, negatives=negatives)
        return chosen, _unused(source, names, chosen)
    if asked != Columns():
        lacking = "positive" if query else "query"
        raise InputError(f"{source}: no column {lacking!r}; name it with --{lacking}-column (of {', '.join(names)})")
    return _by_position(source, first, names)


def _by_position(source: str, first: Sequence[Row], names: list[str]) -> tuple[Columns, list[str]]:
    text = [name for name in names if _is_text([values.get(name) for _, values in first])]
    if len(text) < 2:
        found = ", ".join(names) or "none"
        raise InputError(
            f"{source}: expected a column of queries and one of positives, got {found}; "
            "name them with --query-column and --positive-column"
        )
    chosen = Columns(query=text[0], positive=text[1], negatives=tuple(text[2:3]))
    taken = f"{text[0]!r} as query, {text[1]!r} as positive" + (f", {text[2]!r} as negative" if text[2:] else "")
    note = f"{source}: no columns named query and positive: took {taken} by position"
    return chosen, [note, *_unused(source, names, chosen)]


def _first_of(names: Sequence[str], *wanted: str) -> str:
    return next((name for name in wanted if name in names), "")


def _unused(source: str, names: list[str], chosen: Columns) -> list[str]:
    unused = [name for name in names if name not in (chosen.query, chosen.positive, *chosen.negatives)]
    return [f"{source}: columns not used: {', '.join(unused)}"] if unused else []


def _is_text(values: Sequence[object]) -> bool:
    """Whether cells are texts and not all numbers: in CSV a score or a row number is a string too."""
    given = [value for value in values if value not in (None, "")]
    return bool(given) and all(isinstance(v, str) for v in given) and not all(_is_number(str(v)) for v in given)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
