"""Files of documents and of queries, one a row: id, title and text by the names of their columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from ..errors import InputError
from ..types import Item, Role
from .columns import DOCUMENT_ID, POSITIVE, QUERY, QUERY_ID, TEXT, TITLE, FirstRows, key
from .image_columns import ImageFiles
from .jsonl import LineError
from .records import Row, id_of, texts
from .tables import OnFault, raise_fault, rows_of

PEEK = 100  # rows that decide the columns
_OWN_ID = (("_id",), ("id",))


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """The columns of a file of documents or queries; empty ones are found by name. texts: joined by a line break."""

    id: str = ""
    title: str = ""
    texts: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.id, self.title, *self.texts) if name)


@dataclass(frozen=True, kw_only=True)
class TextFiles:
    """The files that pairs of ids refer to. columns: those of the documents; a queries file has `query_columns`."""

    corpora: tuple[Path, ...] = ()
    queries: Path | None = None
    columns: TextColumns = TextColumns()
    query_columns: TextColumns = TextColumns()

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.corpora if self.queries is None else (*self.corpora, self.queries)


def columns_of_each(paths: Sequence[Path], asked: TextColumns) -> list[TextColumns]:
    """For each of several files the asked columns that it has; a column that none has is asked of every one."""
    if len(paths) < 2 or not asked.names:
        return [asked] * len(paths)
    headers = [next(rows_of(_file_of(path, "document")), ("", {}))[1].keys() for path in paths]
    absent = set(asked.names).difference(*headers)
    return [
        TextColumns(
            id=asked.id if asked.id in {*header, *absent} else "",
            title=asked.title if asked.title in {*header, *absent} else "",
            texts=tuple(name for name in asked.texts if name in {*header, *absent}),
        )
        for header in headers
    ]


def holds_documents(path: Path) -> bool:
    """Whether the rows of a file are documents: none of its columns is named as queries or positives are."""
    row = next(rows_of(path), None)
    if row is None:
        raise InputError(f"{path}: no rows")
    keys = {key(name) for name in row[1]}
    other = {*QUERY[0], *QUERY[1], *QUERY_ID[0], *QUERY_ID[1], *POSITIVE[0], "pos", "positive_passages"}
    return "_id" in row[1] or not keys & other


def items_in(
    path: Path,
    role: Role,
    columns: TextColumns,
    images: ImageFiles,
    notes: list[str],
    on_fault: OnFault = raise_fault,
) -> Iterator[tuple[str, Item]]:
    """The items of a file with the line of each; an item has an empty id where the file has no column of ids.

    A dataset folder stands for its corpus.jsonl or queries.jsonl. A row without text goes to `on_fault`. Raises
    InputError for an empty file and for columns that do not show what they hold; `notes` receives what was assumed.
    """
    path = _file_of(path, role)
    rows = rows_of(path, on_fault)
    first = list(islice(rows, PEEK))
    if not first:
        raise InputError(f"{path}: no rows")
    chosen, assumed = choose_text_columns(FirstRows(str(path), first), role, columns)
    notes.extend(assumed)
    for row in chain(first, rows):
        try:
            item = _item(row, chosen, images)
        except LineError as fault:
            on_fault(fault)
        else:
            yield row[0], item


def _file_of(path: Path, role: Role) -> Path:
    if path.is_dir():
        path = path / ("corpus.jsonl" if role == "document" else "queries.jsonl")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return path


def _item(row: Row, columns: TextColumns, images: ImageFiles) -> Item:
    where, values = row
    item_id = ""
    if columns.id:
        item_id = id_of(row, columns.id)
        if not item_id:
            raise LineError(where, "missing id", f"{columns.id!r} is empty; every line needs an id")
    title = " ".join(texts(row, columns.title)) if columns.title else ""
    parts = [part for name in columns.texts for part in texts(row, name)]
    image = next(images.of(row, "image"), None) if "image" in values else None
    if not title and not parts and image is None:
        names = " and ".join(map(repr, filter(None, (columns.title, *columns.texts))))
        raise LineError(where, "missing text", f"{names} is empty; every line needs a text")
    instruction = " ".join(texts(row, "instruction")) if "instruction" in values else ""
    return Item(id=item_id, title=title, text="\n".join(parts), image=image, instruction=instruction or None)


def choose_text_columns(first: FirstRows, role: Role, asked: TextColumns) -> tuple[TextColumns, list[str]]:
    """The columns of ids, titles and texts, and sentences about what was assumed and what is not used.

    Raises InputError, which shows the first row, where the texts cannot be told.
    """
    first.require(asked.names)
    ids = QUERY_ID if role == "query" else DOCUMENT_ID
    item_id = asked.id or _own_id(first, (*ids[0], *ids[1]), (*asked.names,))
    columns = dataclasses.replace(asked, id=item_id)
    notes = (
        [] if item_id else [f"{first.source}: no column of ids: ids are made from the texts (--id-column names one)"]
    )
    flag = "--query-column" if role == "query" else "--text-column"
    if role == "document" and not columns.title:
        columns = dataclasses.replace(columns, title=first.named(TITLE, "name it with --title-column", columns.names))
    if not columns.texts:
        known = (*QUERY, ("text",)) if role == "query" else TEXT
        text = _text(first, known, columns, flag)
        columns = dataclasses.replace(columns, texts=(text,) if text else ())
    unused = [name for name in first.names if name not in (*columns.names, "image", "instruction", "metadata")]
    if unused:
        notes.append(f"{first.source}: columns not used: {', '.join(unused)}")
    return columns, notes


def _own_id(first: FirstRows, known: Sequence[str], taken: Sequence[str]) -> str:
    """The column of ids: one of the known names, or the only one named as ids are with another one in each row."""
    for names in (("_id",), known, ("id",)):
        fitting = [name for name in first.names if key(name) in names or name in names]
        if len(fitting) == 1:
            return fitting[0]
    free = [name for name in first.names if name not in taken and first.is_unique_id(name)]
    if len(free) > 1:
        raise first.ask(f"{' and '.join(map(repr, free))} may both be the id", "name it with --id-column")
    return free[0] if free else ""


def _text(first: FirstRows, known: Sequence[Sequence[str]], columns: TextColumns, flag: str) -> str:
    many = "; several are joined" if flag == "--text-column" else ""
    role = tuple(known[0]), tuple(one for names in known[1:] for one in names)
    name = first.named(role, f"name it with {flag}{many}", columns.names)
    if name:
        return name
    usable = [name for name in first.names if name not in columns.names and first.is_text(name)]
    prose = [name for name in usable if first.is_prose(name) and name not in first.pictured]
    if len(prose) == 1 and not first.unnamed:
        return prose[0]
    if columns.title or "image" in first.names:
        return ""
    raise first.ask("no column is named as texts are", f"name it with {flag}{many}")
