"""Turns other formats into a dataset folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import FolderKind, check_folder, fingerprint_of, fingerprint_of_file, refuse_source, whole_folder
from . import huggingface, pairs
from .contents import Contents
from .formats import beir, folder_format, folder_formats, is_dataset_folder, row_format, tevatron2
from .pairs import Columns
from .records import LabelledQuery, Row
from .source_folder import is_archive, source_folder, unpacked
from .tables import rows_of
from .writer import FolderWriter

CONVERTED = FolderKind(verb="data convert")
PEEK = 100  # rows that decide the format and the columns


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The counts of what was written, and sentences for the user about what was assumed or left out."""

    folder: Path
    documents: int
    queries: int
    judgements: dict[str, int]  # split -> count
    negatives: int
    notes: tuple[str, ...]


def convert(
    source: str | Path,
    output: Path,
    *,
    split: str = "train",
    columns: Columns | None = None,
    image_files: bool = True,
    overwrite: bool = False,
) -> Converted:
    """Writes `source` as a dataset folder, whole or not at all.

    `source` is a file of pairs or triplets or in a `RowFormat`, a folder or archive in a `FolderFormat`, a Hugging Face
    dataset saved on disk, or `hf://name@revision` (the only one that uses the network). `split` names the judgements of
    a source without splits of its own, and chooses among several datasets in one source. Equal documents become one, as
    do equal queries; ids come from content where the source gives none. Given negatives become `negatives/given.run`,
    the first of each query with the highest score, and a teacher's scores `negatives/teacher.run`. Images
    (bytes, `data:` URIs, Hugging Face's Image, and, with image_files, paths inside the source's folder) become files of
    the folder, named by their content. Raises InputError for an output that exists and for input that cannot be read,
    with its line.
    """
    check_folder(output, CONVERTED, overwrite=overwrite)
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise InputError(f"split {split!r}: expected letters, digits, '.', '_' and '-'")
    notes: list[str] = []
    path = Path(source).expanduser()
    refuse_source(output, path)
    beside = (path if path.is_dir() else path.parent) if image_files and not is_hub_name(str(source)) else None
    with (
        whole_folder(output, CONVERTED, overwrite=overwrite) as temporary,
        FolderWriter(temporary, beside) as writer,
    ):
        if huggingface.is_source(source):
            _add_tables(writer, split, str(source), columns, notes)
        elif (existing := _existing(path)).is_file() and not is_archive(existing):
            _add_rows(writer, split, str(source), rows_of(existing), columns, notes)
        else:
            with unpacked(path, temporary.parent) if path.is_file() else nullcontext(path) as folder:
                _add_folder(writer, split, str(source), folder, notes)
        if not writer.qrels:
            raise InputError(f"{source}: no rows")
    return _summary(output, writer, notes)


def fingerprint_of_source(source: str) -> str:
    """A fingerprint of everything that decides what `source` converts to."""
    if is_hub_name(source):
        return fingerprint_of(__version__, huggingface.pinned(source))
    path = Path(source).expanduser()
    if _existing(path).is_dir():
        files = source_folder(path)
        paths = zip(files.names, files.paths(".*"), strict=True)
        parts = [part for name, file in paths for part in (name, fingerprint_of_file(file))]
        return fingerprint_of(__version__, *parts)
    return fingerprint_of(__version__, path.suffix, fingerprint_of_file(_existing(path)))


def is_hub_name(source: str) -> bool:
    return source.startswith(huggingface.HUB)


def label_of(path: Path) -> str:
    """The name of a source without its suffixes: `data/scifact.tar.gz` as scifact."""
    if path.is_dir():
        return path.resolve().name
    return path.with_suffix("").stem if path.name.lower().endswith(".tar.gz") else path.stem


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if is_dataset_folder(path):
        raise InputError(f"{path}: is a dataset folder already")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path}: is not a regular file")
    return path


def _add_folder(writer: FolderWriter, split: str, source: str, folder: Path, notes: list[str]) -> None:
    """Writes the contents of a folder in a published layout."""
    files = source_folder(folder)
    layout = folder_format(files)
    if layout is None:
        raise InputError(
            f"{source}: neither a dataset folder (no corpus.jsonl) nor a Hugging Face dataset saved on disk, nor the "
            f"files of {', '.join(folder_formats())}"
        )
    _add_contents(writer, source, layout.read(files, split, writer.images), notes)


def _add_tables(writer: FolderWriter, split: str, source: str, columns: Columns | None, notes: list[str]) -> None:
    """Writes the tables of a Hugging Face dataset: a retrieval set, or rows in one table a split."""
    tables = huggingface.open_tables(source, split)
    contents = beir.of_tables(tables, split, source, writer.images)
    if contents is not None:
        _add_contents(writer, source, contents, notes)
        return
    for name, table in tables.items():
        where = f"{source} ({name})"
        _add_rows(writer, name, where, huggingface.rows_of(table, where), columns, notes)


def _add_contents(writer: FolderWriter, source: str, contents: Contents, notes: list[str]) -> None:
    for name, count in writer.write(contents).items():
        if name not in writer.qrels:
            raise InputError(f"{source}: none of the queries that split {name!r} judges is there")
        notes.append(f"{source}: {count:,} judgements of split {name!r} are of queries that are not there; left out")


def _add_rows(
    writer: FolderWriter, split: str, source: str, rows: Iterator[Row], columns: Columns | None, notes: list[str]
) -> None:
    """Writes the rows as the split's queries, by the format that the first of them show."""
    first = list(islice(rows, PEEK))
    for labelled in _labelled_queries(source, first, rows, columns, writer, notes) if first else ():
        writer.add(split, labelled)


def _labelled_queries(
    source: str, first: list[Row], rest: Iterator[Row], columns: Columns | None, writer: FolderWriter, notes: list[str]
) -> Iterator[LabelledQuery]:
    rows, (where, keys) = chain(first, rest), first[0]
    if "_id" in keys:
        raise InputError(f"{where}: a corpus or queries file; name the dataset folder that it is in")
    if tevatron2.POSITIVES in keys:
        raise InputError(f"{where}: {tevatron2.ALONE}")
    if {"query-id", "corpus-id"} <= keys.keys():
        raise InputError(f"{where}: judgements alone, without corpus and queries; name the folder that has all three")
    if (known := row_format(keys)) is not None:
        return known.read(rows)
    chosen, assumed = pairs.choose_columns(source, first, columns or Columns())
    notes.extend(assumed)
    return pairs.labelled_queries(rows, chosen, writer.images)


def _summary(output: Path, writer: FolderWriter, notes: list[str]) -> Converted:
    if writer.contradicted:
        notes.append(f"{writer.contradicted} given negatives are positives of the same query; left out")
    if unreadable := writer.images.unreadable:
        notes.append(f"{len(unreadable)} images are none by their first bytes, the first at {unreadable[0]}")
    return Converted(
        folder=output,
        documents=len(writer.documents.seen),
        queries=len(writer.queries.seen),
        judgements={split: sum(map(len, qrels.values())) for split, qrels in writer.qrels.items()},
        negatives=sum(map(len, writer.negatives.values())) - writer.contradicted,
        notes=tuple(notes),
    )
