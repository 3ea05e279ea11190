"""Pairs and triplets: some columns hold the query, some the positive, and any further ones negatives."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..errors import InputError, unknown
from ..types import Item
from .image_columns import ImageFiles, holds_images
from .jsonl import LineError
from .records import LabelledQuery, Row, missing, texts

_NEGATIVE = re.compile(r"negative(_image)?(_\d+)?")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of queries, positives and negatives; a query or a positive may be text, an image, or both.

    Empty ones are found by name (`query`, `query_image`; `positive` or `document`, `positive_image` or
    `document_image`; `negative`, `negative_1`, `negative_image`...; `image` is the positive's, or the query's where
    the positive is named), else the first two or three columns of text or images are taken.
    """

    query: str = ""
    positive: str = ""
    negatives: tuple[str, ...] = ()
    query_image: str = ""
    positive_image: str = ""
    negative_images: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        single = (self.query, self.query_image, self.positive, self.positive_image)
        return tuple(name for name in (*single, *self.negatives, *self.negative_images) if name)


def labelled_queries(rows: Iterable[Row], columns: Columns, images: ImageFiles) -> Iterator[LabelledQuery]:
    """The rows' queries with positives and negatives. A cell may hold a list; an empty negative is left out."""
    for row in rows:
        queries = _items(row, columns.query, columns.query_image, images)
        positives = _items(row, columns.positive, columns.positive_image, images)
        if not queries:
            raise missing(row, columns.query, columns.query_image)
        if not positives:
            raise missing(row, columns.positive, columns.positive_image)
        if len(queries) > 1:
            name = columns.query or columns.query_image
            raise LineError(row[0], "wrong type", f"{name!r} must be one text, got a list of {len(queries)}")
        negatives = [item for name in columns.negatives for item in _items(row, name, "", images)]
        negatives += [item for name in columns.negative_images for item in _items(row, "", name, images)]
        yield LabelledQuery(where=row[0], query=queries[0], positives=positives, negatives=tuple(negatives))


def _items(row: Row, text: str, image: str, images: ImageFiles) -> tuple[Item, ...]:
    """The items that a column of texts and a column of images make together; either may be absent or empty."""
    words = texts(row, text) if text else ()
    paths = tuple(images.of(row, image)) if image else ()
    if words and paths and len(words) != len(paths):
        raise LineError(row[0], "wrong type", f"{len(words)} texts in {text!r}, {len(paths)} images in {image!r}")
    return tuple(Item(id="", text=word or "", image=path) for word, path in zip_longest(words, paths))


def choose_columns(source: str, first: Sequence[Row], asked: Columns) -> tuple[Columns, list[str]]:
    """The columns to use, from the first rows of a source, and sentences for the user about what was assumed.

    Raises InputError where a column that is asked for is absent, or two columns cannot be found.
    """
    names = list(dict.fromkeys(name for _, values in first for name in values))
    for name in asked.names:
        if name not in names:
            raise InputError(f"{source}: {unknown('column', name, names)}")
    pictured = [name for name in names if holds_images([values.get(name) for _, values in first])]
    columns = _by_kind(_by_name(names, asked), pictured)
    note = ""
    if not _has_query(columns) or not _has_positive(columns):
        if asked != Columns():
            lacking = "positive" if _has_query(columns) else "query"
            raise InputError(
                f"{source}: no column {lacking!r}; name it with --{lacking}-column (of {', '.join(names)})"
            )
        columns, note = _by_position(source, first, names, pictured)
    unused = [name for name in names if name not in columns.names]
    notes = [note, f"{source}: columns not used: {', '.join(unused)}" if unused else ""]
    return columns, [sentence for sentence in notes if sentence]


def _has_query(columns: Columns) -> bool:
    return bool(columns.query or columns.query_image)


def _has_positive(columns: Columns) -> bool:
    return bool(columns.positive or columns.positive_image)


def _by_name(names: Sequence[str], asked: Columns) -> Columns:
    """The columns that are asked for, and for the others those whose names say what they hold."""

    def named(*wanted: str) -> str:
        return next((name for name in wanted if name in names), "")

    columns = dataclasses.replace(
        asked,
        query=asked.query or named("query"),
        query_image=asked.query_image or named("query_image"),
        positive=asked.positive or named("positive", "document"),
        positive_image=asked.positive_image or named("positive_image", "document_image"),
        negatives=asked.negatives or tuple(name for name in names if _NEGATIVE.fullmatch(name)),
    )
    if "image" in names and "image" not in columns.names:
        if not columns.positive_image and _has_query(columns):
            return dataclasses.replace(columns, positive_image="image")
        if not columns.query_image and _has_positive(columns):
            return dataclasses.replace(columns, query_image="image")
    return columns


def _by_kind(columns: Columns, pictured: Sequence[str]) -> Columns:
    """The columns with those of images, where they were named as columns of text, moved to where images belong."""
    if columns.query in pictured and not columns.query_image:
        columns = dataclasses.replace(columns, query="", query_image=columns.query)
    if columns.positive in pictured and not columns.positive_image:
        columns = dataclasses.replace(columns, positive="", positive_image=columns.positive)
    images = tuple(name for name in columns.negatives if name in pictured)
    words = tuple(name for name in columns.negatives if name not in pictured)
    return dataclasses.replace(columns, negatives=words, negative_images=(*columns.negative_images, *images))


def _by_position(source: str, first: Sequence[Row], names: list[str], pictured: Sequence[str]) -> tuple[Columns, str]:
    usable = [name for name in names if name in pictured or _is_text([values.get(name) for _, values in first])]
    if len(usable) < 2:
        raise InputError(
            f"{source}: expected a column of queries and one of positives, got {', '.join(names) or 'none'}; "
            "name them with --query-column and --positive-column"
        )
    columns = _by_kind(Columns(query=usable[0], positive=usable[1], negatives=tuple(usable[2:3])), pictured)
    roles = zip(usable, ("query", "positive", "negative"), strict=False)
    taken = ", ".join(f"{name!r}{' (images)' if name in pictured else ''} as {role}" for name, role in roles)
    return columns, f"{source}: no columns named query and positive: took {taken} by position"


def _is_text(cells: Sequence[object]) -> bool:
    """Whether cells are texts and not all numbers: in CSV a score or a row number is a string too."""
    filled = [cell for cell in cells if cell not in (None, "")]
    return bool(filled) and all(isinstance(cell, str) for cell in filled) and not all(map(_is_number, filled))


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True
