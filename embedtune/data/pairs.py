"""Pairs and triplets: some columns are the query, some the positive, and any further ones negatives."""

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
from .records import LabelledQuery, Row, texts


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold what; a query or a positive may be text, an image, or both.

    Empty: found by name (`query`, `query_image`; `positive` or `document`, `positive_image` or `document_image`;
    `negative`, `negative_1`, `negative_image`...; `image` is the positive's, or the query's where there is no other),
    else the first two or three columns of text or images.
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


def records(rows: Iterable[Row], columns: Columns, images: ImageFiles) -> Iterator[LabelledQuery]:
    """Each row as a record. Cells may hold a list (`positive`, `negative`); an empty negative is left out."""
    for row in rows:
        queries = _items(row, columns.query, columns.query_image, images)
        positives = _items(row, columns.positive, columns.positive_image, images)
        for found, names in ((queries, (columns.query, columns.query_image)),
                             (positives, (columns.positive, columns.positive_image))):  # fmt: skip
            if not found:
                named = " and ".join(repr(name) for name in names if name)
                raise LineError(row[0], "missing text", f"{named} is empty; every line needs one")
        if len(queries) > 1:
            name = columns.query or columns.query_image
            raise LineError(row[0], "wrong type", f"{name!r} must be one text, got a list of {len(queries)}")
        negatives = [
            *(item for name in columns.negatives for item in _items(row, name, "", images)),
            *(item for name in columns.negative_images for item in _items(row, "", name, images)),
        ]
        yield LabelledQuery(where=row[0], query=queries[0], positives=positives, negatives=tuple(negatives))


def _items(row: Row, text: str, image: str, images: ImageFiles) -> tuple[Item, ...]:
    """The items that a column of texts and a column of images make together; either may be absent, or empty here."""
    words, pictures = list(texts(row, text)) if text else [], list(images.of(row, image)) if image else []
    if words and pictures and len(words) != len(pictures):
        raise LineError(row[0], "wrong type", f"{len(words)} texts in {text!r}, {len(pictures)} images in {image!r}")
    return tuple(Item(id="", text=word or "", image=picture) for word, picture in zip_longest(words, pictures))


def choose_columns(source: str, first: Sequence[Row], asked: Columns) -> tuple[Columns, list[str]]:
    """The columns to use, from the first rows of a source, and sentences for the user about what was assumed.

    Raises InputError where a column that is asked for is not there, or two columns cannot be found.
    """
    names = list(dict.fromkeys(name for _, values in first for name in values))
    for name in asked.names:
        if name not in names:
            raise InputError(f"{source}: {unknown('column', name, names)}")
    pictured = [name for name in names if holds_images([values.get(name) for _, values in first])]
    query = asked.query or _first_of(names, "query")
    query_image = asked.query_image or _first_of(names, "query_image")
    positive = asked.positive or _first_of(names, "positive", "document")
    positive_image = asked.positive_image or _first_of(names, "positive_image", "document_image")
    if "image" in names and "image" not in (query, query_image, positive, positive_image):
        if not positive_image and (query or query_image):
            positive_image = "image"
        elif not query_image and (positive or positive_image):
            query_image = "image"
    negatives = asked.negatives or tuple(n for n in names if re.fullmatch(r"negative(_image)?(_\d+)?", n))
    chosen = Columns(
        query=query,
        positive=positive,
        negatives=negatives,
        query_image=query_image,
        positive_image=positive_image,
        negative_images=asked.negative_images,
    )
    if (query or query_image) and (positive or positive_image):
        found = _by_kind(chosen, pictured)
        return found, _unused(source, names, found)
    if asked != Columns():
        lacking = "positive" if query or query_image else "query"
        raise InputError(f"{source}: no column {lacking!r}; name it with --{lacking}-column (of {', '.join(names)})")
    return _by_position(source, first, names, pictured)


def _by_kind(chosen: Columns, pictured: Sequence[str]) -> Columns:
    """Columns of images that were named as columns of text moved to where images belong."""
    for text, image in (("query", "query_image"), ("positive", "positive_image")):
        name = getattr(chosen, text)
        if name in pictured and not getattr(chosen, image):
            chosen = dataclasses.replace(chosen, **{text: "", image: name})
    images = tuple(name for name in chosen.negatives if name in pictured)
    words = tuple(name for name in chosen.negatives if name not in pictured)
    return dataclasses.replace(chosen, negatives=words, negative_images=(*chosen.negative_images, *images))


def _by_position(
    source: str, first: Sequence[Row], names: list[str], pictured: Sequence[str]
) -> tuple[Columns, list[str]]:
    usable = [n for n in names if n in pictured or _is_text([values.get(n) for _, values in first])]
    if len(usable) < 2:
        found = ", ".join(names) or "none"
        raise InputError(
            f"{source}: expected a column of queries and one of positives, got {found}; "
            "name them with --query-column and --positive-column"
        )
    chosen = _by_kind(Columns(query=usable[0], positive=usable[1], negatives=tuple(usable[2:3])), pictured)
    said = [f"{name!r}{' (images)' if name in pictured else ''}" for name in usable]
    taken = f"{said[0]} as query, {said[1]} as positive" + (f", {said[2]} as negative" if usable[2:] else "")
    note = f"{source}: no columns named query and positive: took {taken} by position"
    return chosen, [note, *_unused(source, names, chosen)]


def _first_of(names: Sequence[str], *wanted: str) -> str:
    return next((name for name in wanted if name in names), "")


def _unused(source: str, names: list[str], chosen: Columns) -> list[str]:
    unused = [name for name in names if name not in chosen.names]
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
