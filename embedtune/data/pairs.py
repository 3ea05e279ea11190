"""Pairs, triplets and lists: some columns hold the query, some the positive, some negatives, one perhaps labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..errors import InputError
from ..types import Item
from .columns import DOCUMENT_ID, LABEL, NEGATIVE, POSITIVE, QUERY, QUERY_ID, SPLIT, SPLITS, FirstRows, key, named_as_id
from .image_columns import ImageFiles
from .jsonl import LineError
from .labels import NEITHER, Labels, plain
from .records import LabelledQuery, Row, id_of, missing, texts

Known = Mapping[str, object]
"""The ids of documents or queries that are written already."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of queries, positives, negatives and labels; a query or a positive may be text, an image, or both.

    Empty ones are found by name, and by kind where one is lacking and one column of texts or images remains. ignored:
    columns to leave unused. labels: what the labels mean. scores: the column with a teacher's scores of the positive
    and the negatives. split: the column that names each row's split. instruction: the column of the queries'
    instructions.
    """

    query: str = ""
    query_id: str = ""
    positive: str = ""
    title: str = ""
    negatives: tuple[str, ...] = ()
    label: str = ""
    query_image: str = ""
    positive_image: str = ""
    negative_images: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    labels: Labels = dataclasses.field(default_factory=Labels)
    scores: str = ""
    split: str = ""
    instruction: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        single = (self.query, self.query_id, self.query_image, self.positive, self.title, self.positive_image)
        names = (*single, self.label, self.scores, self.split, self.instruction, *self.negatives, *self.negative_images)
        return tuple(name for name in names if name)


@dataclass(kw_only=True)
class PairReader:
    """Reads rows as labelled queries. A cell may hold a list; an empty negative is left out.

    queries, documents: the ids that the columns of queries and documents name; None where they hold the texts.
    neither: how many pairs had a label that makes them neither positive nor negative.
    """

    columns: Columns
    images: ImageFiles
    queries: Known | None = None
    documents: Known | None = None
    neither: int = 0

    def __call__(self, rows: Iterable[Row]) -> Iterator[LabelledQuery]:
        for row in rows:
            query = self._query(row)
            positives = self._documents(row, self.columns.positive, self.columns.positive_image)
            if not positives:
                raise missing(row, self.columns.positive, self.columns.positive_image)
            negatives = [one for name in self.columns.negatives for one in self._documents(row, name, "")]
            negatives += [one for name in self.columns.negative_images for one in self._documents(row, "", name)]
            if self.columns.label:
                yield from self._labelled(row, query, positives, negatives)
                continue
            yield LabelledQuery(
                where=row[0],
                query=query,
                positives=positives,
                negatives=tuple(negatives),
                teacher=self._scores(row, len(positives) + len(negatives)),
            )

    def _query(self, row: Row) -> Item | str:
        name = self.columns.query or self.columns.query_image
        if self.queries is not None:
            items: Sequence[Item | str] = ids_in(row, self.columns.query_id, self.queries, "query")
            name = self.columns.query_id
        else:
            items = _items(row, self.columns.query, self.columns.query_image, self.images)
        if not items:
            raise missing(row, name)
        if len(items) > 1:
            raise LineError(row[0], "wrong type", f"{name!r} must be one text, got a list of {len(items)}")
        query = items[0]
        if isinstance(query, str):
            return query
        query_id = id_of(row, self.columns.query_id) if self.columns.query_id else ""
        instruction = " ".join(texts(row, self.columns.instruction)) if self.columns.instruction else ""
        return dataclasses.replace(query, id=query_id, instruction=instruction or None)

    def _documents(self, row: Row, text: str, image: str) -> tuple[Item | str, ...]:
        if self.documents is not None:
            return ids_in(row, text, self.documents, "document")
        items = _items(row, text, image, self.images)
        if not self.columns.title or text != self.columns.positive:
            return items
        titles = zip_longest(items, texts(row, self.columns.title)[: len(items)], fillvalue="")
        return tuple(dataclasses.replace(item, title=title) for item, title in titles if isinstance(item, Item))

    def _labelled(
        self, row: Row, query: Item | str, documents: Sequence[Item | str], negatives: Sequence[Item | str]
    ) -> Iterator[LabelledQuery]:
        where, values = row
        cell = values.get(self.columns.label)
        labels = cell if isinstance(cell, list) else [cell] * len(documents)
        if len(labels) != len(documents):
            names = f"{len(labels)} labels in {self.columns.label!r}, {len(documents)} documents in"
            raise LineError(where, "wrong type", f"{names} {self.columns.positive!r}")
        judged = [
            (one, self.columns.labels.relevance(label, where)) for one, label in zip(documents, labels, strict=True)
        ]
        self.neither += sum(relevance == NEITHER for _, relevance in judged)
        positives = [(one, relevance) for one, relevance in judged if relevance > 0]
        refused = [one for one, relevance in judged if relevance == 0]
        if positives or refused or negatives:
            yield LabelledQuery(
                where=where,
                query=query,
                positives=tuple(one for one, _ in positives),
                relevances=tuple(relevance for _, relevance in positives),
                negatives=(*refused, *negatives),
            )

    def _scores(self, row: Row, count: int) -> tuple[float | None, ...]:
        scores = row[1].get(self.columns.scores) if self.columns.scores else None
        if scores is None:
            return ()
        if not isinstance(scores, list) or len(scores) != count:
            message = f"{self.columns.scores!r} must be a list of {count} scores, one a document"
            raise LineError(row[0], "wrong type", message)
        return tuple(None if score is None else float(score) for score in scores)


def ids_in(row: Row, column: str, known: Known, noun: str) -> tuple[str, ...]:
    """The ids in one column of a row: one, a list, or several in one text, separated by blanks, `,`, `;` or `|`.

    Raises LineError for an id that is not known.
    """
    where, values = row
    cell = values.get(column)
    ids = [one for entry in (cell if isinstance(cell, list) else [cell]) for one in _ids_of(entry, known)]
    for item_id in ids:
        if item_id not in known:
            such_as = f"not among the {len(known):,} {noun} ids, such as {next(iter(known), '')!r}"
            raise LineError(where, f"absent {noun}", f"{column!r} names {item_id!r}, which is {such_as}")
    return tuple(ids)


def _ids_of(entry: Any, known: Known) -> list[str]:
    if isinstance(entry, float) and entry.is_integer():  # a Parquet column of whole numbers, some of them absent
        entry = int(entry)
    text = "" if entry is None else str(entry).strip()
    if not text or text in known:
        return [text] if text else []
    parts = [part for part in text.replace(",", " ").replace(";", " ").replace("|", " ").split() if part]
    if any(part in known for part in parts):
        return parts
    whole = text.removesuffix(".0")  # pandas writes 7 as 7.0 where another cell of the column is empty
    return [whole if whole in known else text]


def _items(row: Row, text: str, image: str, images: ImageFiles) -> tuple[Item, ...]:
    """The items that a column of texts and a column of images make together; either may be absent or empty."""
    words = texts(row, text) if text else ()
    paths = tuple(images.of(row, image)) if image else ()
    if words and paths and len(words) != len(paths):
        raise LineError(row[0], "wrong type", f"{len(words)} texts in {text!r}, {len(paths)} images in {image!r}")
    return tuple(Item(id="", text=word or "", image=path) for word, path in zip_longest(words, paths))


def choose_columns(
    source: str,
    rows: Sequence[Row],
    asked: Columns,
    queries: Known | None = None,
    documents: Known | None = None,
) -> tuple[Columns, list[str]]:
    """The columns to use, from the first rows of a source, and sentences for the user about what was assumed.

    queries, documents: the ids that a column must name, where they stand in files of their own. Raises InputError,
    which shows the first row, for columns that are absent and for columns that do not show what they hold.
    """
    first = FirstRows(source, rows, asked.ignored)
    first.require((*asked.names, *asked.ignored))
    named = [name for name in (asked.query, asked.positive, *asked.negatives) if name]
    if repeated := [name for name in named if named.count(name) > 1]:
        raise InputError(
            f"{source}: column {repeated[0]!r} is named for two purposes; name another one for one of them"
        )
    columns = _with_negatives(first, asked, by_id=documents is not None)
    columns = _with_queries(first, columns, queries)
    if documents is None:
        columns = _by_kind(_with_image(first, _with_positives(first, columns)), first.pictured)
        columns, notes = _filled(first, columns, by_id=queries is not None)
        _refuse_ids(first, columns, asked)
    else:
        columns = _with_document_ids(first, columns, documents, asked.negatives)
        columns, notes = _filled(first, columns, by_id=queries is not None)
    columns, doubts = _with_labels(first, columns)
    columns = _with_splits(first, columns)
    if queries is None and "instruction" in first.names and "instruction" not in columns.names:
        columns = dataclasses.replace(columns, instruction="instruction")
    if columns.split:
        doubts.append(
            f"{source}: each row goes to the split in its {columns.split!r}; --ignore-column {columns.split} puts all "
            "into one"
        )
    unused = [name for name in first.names if name not in columns.names]
    if unused:
        notes.append(f"{source}: columns not used: {', '.join(unused)}")
    return columns, [*notes, *doubts]


def _with_negatives(first: FirstRows, columns: Columns, by_id: bool) -> Columns:
    """The columns with those named as negatives are; one named as their ids is no column of texts."""
    if columns.negatives:
        return columns
    taken = (*columns.names, *_score_lists(first))
    free = [name for name in first.names if name not in taken and (by_id or not named_as_id(name))]
    return dataclasses.replace(columns, negatives=tuple(name for name in free if NEGATIVE.fullmatch(key(name))))


def _with_queries(first: FirstRows, columns: Columns, queries: Known | None) -> Columns:
    query_id = columns.query_id or first.named(QUERY_ID, "name it with --query-id-column", columns.names)
    if queries is not None:
        query_id = query_id or first.named(QUERY, "name it with --query-id-column", columns.names)
        if not query_id:
            raise first.ask("no column holds the ids of queries", "name it with --query-id-column")
        return dataclasses.replace(columns, query="", query_id=query_id)
    query_image = columns.query_image or ("query_image" if "query_image" in first.names else "")
    taken = (*columns.names, query_id, query_image)
    query = columns.query or first.named(QUERY, "name one with --query-column", taken)
    return dataclasses.replace(columns, query=query, query_image=query_image, query_id=query_id)


def _with_positives(first: FirstRows, columns: Columns) -> Columns:
    pictures = (name for name in ("positive_image", "document_image") if name in first.names)
    image = columns.positive_image or next(pictures, "")
    # A column of images named `document` is the positive's image.
    positive = columns.positive or first.named(POSITIVE, "name one with --positive-column", (*columns.names, image))
    return dataclasses.replace(columns, positive=positive, positive_image=image)


def _with_image(first: FirstRows, columns: Columns) -> Columns:
    """`image` is the positive's, or the query's where the positive is named."""
    if "image" in first.names and "image" not in columns.names:
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


def _has_query(columns: Columns) -> bool:
    return bool(columns.query or columns.query_image)


def _has_positive(columns: Columns) -> bool:
    return bool(columns.positive or columns.positive_image)


def _filled(first: FirstRows, columns: Columns, by_id: bool) -> tuple[Columns, list[str]]:
    """The columns with the query or the positive, if one of them is lacking, from the only column that may hold it.

    by_id: queries are named by their ids, so that no text is lacking.
    """
    lacking = [
        role
        for role, present in (("query", by_id or _has_query(columns)), ("positive", _has_positive(columns)))
        if not present
    ]
    if not lacking:
        return columns, []
    labels = {name for role in LABEL for name in role}
    usable = [
        name for name in first.names if first.is_text(name) and name not in columns.names and key(name) not in labels
    ]
    if len(lacking) == len(usable) == 1 and first.is_prose(usable[0]):
        name = usable[0]
        chosen = {"query": columns.query, "positive": columns.positive} | {lacking[0]: name}
        columns = dataclasses.replace(columns, query=chosen["query"], positive=chosen["positive"])
        columns = _by_kind(columns, first.pictured)
        kind = " (images)" if name in first.pictured else ""
        return columns, [f"{first.source}: took {name!r}{kind} as {lacking[0]}, the only other column of texts"]
    nouns = " and ".join({"query": "queries", "positive": "positives"}[role] for role in lacking)
    flags = " and ".join(f"--{role}-column" for role in lacking)
    ids = any(first.holds_ids(name) and name not in columns.names for name in first.names)
    files = (
        "; where columns hold ids, --corpus FILE names the documents and --query-file FILE the queries" if ids else ""
    )
    raise first.ask(f"no column is named as {nouns} are", f"name it with {flags}{files}")


def _refuse_ids(first: FirstRows, columns: Columns, asked: Columns) -> None:
    """Columns that were found by name and look like ids would become texts. Columns that were asked for are taken."""
    for role, name in (("query", columns.query), ("positive", columns.positive)):
        if name and name not in asked.names and first.looks_like_ids(name):
            file = {"query": "of queries with --query-file FILE", "positive": "of documents with --corpus FILE"}[role]
            raise first.ask(
                f"{name!r} looks like ids or URLs, not like texts",
                f"name the file {file}, or take them as texts with --{role}-column {name}",
            )
    for name in columns.negatives:
        if name not in asked.names and first.looks_like_ids(name):
            flags = f"leave them out with --ignore-column {name}, or take them as texts with --negative-column {name}"
            raise first.ask(f"{name!r} looks like ids or URLs, not like texts", flags)


def _with_document_ids(
    first: FirstRows, columns: Columns, documents: Known, asked_negatives: tuple[str, ...]
) -> Columns:
    """The columns that name documents by their ids: those whose cells are known ids, then by name."""
    taken = [name for name in columns.names if name not in columns.negatives]
    taken += [name for name in first.names if key(name) in {*LABEL[0], *LABEL[1]}]
    members = [name for name in first.names if name not in taken and _share_known(first, name, documents) >= 0.5]
    such_as = f"the documents' ids, such as {next(iter(documents), '')!r}"
    known = (name for name in columns.negatives if _share_known(first, name, documents))
    negatives = asked_negatives or tuple(known)
    if (full := [name for name in columns.negatives if first.cells(name)]) and not negatives:
        flags = " ".join(f"--ignore-column {name}" for name in full)
        raise first.ask(f"{' and '.join(map(repr, full))} holds none of {such_as}", f"leave it out with {flags}")
    members = [name for name in members if name not in negatives]
    if columns.positive:
        if not _share_known(first, columns.positive, documents):
            raise first.ask(f"{columns.positive!r} holds none of {such_as}", "name another with --positive-column")
        return dataclasses.replace(columns, negatives=negatives)
    flag = "name one with --positive-column"
    named = [name for name in members if key(name) in {*DOCUMENT_ID[0], *DOCUMENT_ID[1], *POSITIVE[0], *POSITIVE[1]}]
    unlike = [name for name in members if key(name) not in ("id", "index", "row", "column_1")]
    choice = named or unlike or members
    if not members:
        raise first.ask(f"no column holds {such_as}", "name the documents' column with --id-column")
    if len(choice) > 1:
        raise first.ask(f"{' and '.join(map(repr, choice))} may all hold {such_as}", flag)
    return dataclasses.replace(columns, positive=choice[0], negatives=negatives)


def _share_known(first: FirstRows, name: str, known: Known) -> float:
    ids = [item_id for cell in first.cells(name) for item_id in _ids_of(cell, known)]
    return sum(item_id in known for item_id in ids) / len(ids) if ids else 0.0


def _score_lists(first: FirstRows) -> list[str]:
    """Columns of labels or scores that hold a list of numbers in each row."""
    names = [name for name in first.names if key(name) in {*LABEL[0], *LABEL[1], "neg_scores", "pos_scores"}]
    return [name for name in names if all(isinstance(values.get(name), list) for _, values in first.rows)]


def _with_splits(first: FirstRows, columns: Columns) -> Columns:
    """The columns with the one named `split`, where it holds names of splits."""
    names = [name for name in first.names if key(name) == SPLIT and name not in columns.names]
    named = [name for name in names if (cells := first.cells(name)) and all(str(cell) in SPLITS for cell in cells)]
    return dataclasses.replace(columns, split=named[0] if named else "")


def split_in(row: Row, column: str) -> str:
    """The split that a row's column names. Raises LineError for what is no split's name."""
    where, values = row
    if (name := str(values.get(column))) not in SPLITS:
        raise LineError(where, "unknown split", f"{column!r} is {name[:40]!r}, none of {', '.join(SPLITS)}")
    return name


def _with_labels(first: FirstRows, columns: Columns) -> tuple[Columns, list[str]]:
    """The columns with that of labels, where it decides what is a positive.

    In rows with negatives of their own a list of scores is a teacher's, and one score decides nothing.
    """
    if columns.negatives and not columns.label:
        if not columns.labels.empty:
            raise first.ask("rows with negatives have labels too, perhaps", "name the column with --label-column")
        names = [name for name in first.names if key(name) in {*LABEL[0], *LABEL[1]}]
        lists = [name for name in names if name in _score_lists(first)]
        if lists:
            return dataclasses.replace(columns, scores=lists[0]), []
        doubt = "looks like labels and is not used, as the rows have negatives; --label-column uses it"
        return columns, [f"{first.source}: {name!r} {doubt}" for name in names]
    flag = "name one with --label-column, or leave one out with --ignore-column"
    label = columns.label or first.named(LABEL, flag, columns.names)
    if not label:
        if not columns.labels.empty:
            raise first.ask("no column is named as labels are", "name it with --label-column")
        return columns, []
    cells = first.cells(label)
    if columns.labels.empty and not plain(cells):
        shown = ", ".join(str(cell)[:20] for cell in list(dict.fromkeys(map(str, cells)))[:5])
        raise first.ask(
            f"{label!r} holds more than 1 and 0 ({shown})",
            "give --label-threshold X (pairs with at least X are positives), --positive-label VALUE, or leave the "
            f"column out with --ignore-column {label}",
        )
    return dataclasses.replace(columns, label=label), []
