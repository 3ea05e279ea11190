"""Turns other formats into a dataset folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import FolderKind, check_folder, fingerprint_of, fingerprint_of_file, refuse_source, whole_folder
from . import huggingface, pairs, records
from .pairs import Columns
from .records import LabelledQuery, Row
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

    `source` is a .jsonl, .csv or .parquet file of pairs or triplets, a FlagEmbedding or Tevatron .jsonl file, a Hugging
    Face dataset saved on disk, or `hf://name@revision` (the only one that uses the network). `split` names the
    judgements of a source that has no splits of its own. Equal documents become one, as do equal queries; ids come
    from content where the source gives none. Given negatives become `negatives/given.run`, the first of each query
    with the highest score. Images (bytes, `data:` URIs, Hugging Face's Image, and, with image_files, paths inside the
    source's folder) become files of the folder, named by their content. Raises InputError for an output that exists
    and for input that cannot be read, with its line.
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
        if not huggingface.is_source(source):
            _add_rows(writer, split, str(source), rows_of(_file(path)), columns, notes)
        elif huggingface.is_beir(tables := huggingface.open_tables(str(source), split)):
            huggingface.copy_beir(tables, writer, str(source))
        else:
            for name, table in tables.items():
                where = f"{source} ({name})"
                _add_rows(writer, name, where, huggingface.rows_of(table, where), columns, notes)
        if not writer.qrels:
            raise InputError(f"{source}: no rows")
    return _summary(output, writer, notes)


def fingerprint_of_source(source: str) -> str:
    """A fingerprint of everything that decides what `source` converts to."""
    if is_hub_name(source):
        return fingerprint_of(__version__, huggingface.pinned(source))
    path = Path(source).expanduser()
    if huggingface.is_source(path):
        files = sorted(file for file in path.rglob("*") if file.is_file())
        parts = [part for file in files for part in (str(file.relative_to(path)), fingerprint_of_file(file))]
        return fingerprint_of(__version__, *parts)
    return fingerprint_of(__version__, path.suffix, fingerprint_of_file(_file(path)))


def is_hub_name(source: str) -> bool:
    return source.startswith(huggingface.HUB)


def _file(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if (path / "corpus.jsonl").exists():
        raise InputError(f"{path}: is a dataset folder already")
    if path.is_dir():
        raise InputError(f"{path}: neither a dataset folder (no corpus.jsonl) nor a Hugging Face dataset saved on disk")
    return path


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
    if "positive_passages" in keys:
        return records.tevatron(rows)
    if isinstance(keys.get("pos"), list):
        return records.flagembedding(rows)
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
