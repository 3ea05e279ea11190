"""Turns other formats into a dataset folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import FolderKind, check_folder, fingerprint_of, fingerprint_of_file, refuse_source, whole_folder
from ..types import Role
from . import huggingface
from .columns import ID_SHARE
from .contents import Contents, holds_judgements, judgements_in
from .documents import TextColumns, TextFiles, columns_of_each, items_in
from .formats import beir, datasets_in, folder_format, folder_formats, is_dataset_folder, row_format, tevatron2
from .jsonl import COMPRESSED, LineError
from .pairs import Columns, PairReader, choose_columns, split_in
from .records import LabelledQuery, Row, with_lists, written_lists
from .resolution import doubt_of_size
from .source_folder import is_archive, source_folder, unpacked
from .tables import BadLines, rows_of
from .writer import FolderWriter

CONVERTED = FolderKind(verb="data convert")
READERS = "3"  # part of the key of cached conversions: another one where the same source converts to something else
PEEK = 100  # rows that decide the format and the columns
FEW_PAIRS = 20  # below them one query may have half of the pairs without a word
NO_IDS = "no column is named as ids are and has another one in each row (the first line of a table names its columns);"
OWN_ID: dict[Role, str] = {"document": "name it with --id-column", "query": "name it query_id in the file"}
JUDGEMENTS_ALONE = (
    "judgements alone, without corpus and queries; name the folder that has all three, or the two files with --corpus "
    "FILE and --query-file FILE"
)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The counts of what was written, and sentences for the user about what was assumed or left out."""

    folder: Path
    documents: int
    queries: int
    judgements: dict[str, int]  # split -> count
    negatives: int
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # a sentence for each bad line


@dataclass(kw_only=True)
class _Conversion:
    """A source while it is converted. rows: how many were read of tables."""

    source: str
    writer: FolderWriter
    columns: Columns
    files: TextFiles
    bad: BadLines
    notes: list[str] = field(default_factory=list)
    rows: int = 0


def convert(
    source: str | Path,
    output: Path,
    *,
    split: str = "train",
    columns: Columns | None = None,
    files: TextFiles | None = None,
    skip_bad: int = 0,
    image_files: bool = True,
    overwrite: bool = False,
) -> Converted:
    """Writes `source` as a dataset folder, whole or not at all.

    `source` is a file of pairs, triplets or lists or in a `RowFormat`, a folder or archive in a `FolderFormat`, a
    Hugging Face dataset saved on disk, or `hf://name@revision` (the only one that uses the network). `split` names the
    judgements of a source without splits of its own, and chooses among several datasets in one source. files: the
    documents, and perhaps the queries, that pairs of ids name; all of them become part of the folder. skip_bad: how
    many bad lines are left out.

    Equal documents become one, as do equal queries; ids come from content where the source gives none. Given negatives
    become `negatives/given.run`, the first of each query with the highest score, and a teacher's scores
    `negatives/teacher.run`. Images (bytes, `data:` URIs, Hugging Face's Image, and, with image_files, paths inside the
    source's folder) become files of the folder, named by their content. Raises InputError for an output that exists,
    for columns that do not show what they hold, and for input that cannot be read, with its line.
    """
    check_folder(output, CONVERTED, overwrite=overwrite)
    if not re.fullmatch(r"\w[\w.-]*", split):
        raise InputError(f"split {split!r}: expected letters, digits, '.', '_' and '-'")
    path, files = Path(source).expanduser(), files or TextFiles()
    _refuse_idle(columns or Columns(), files)
    refuse_source(output, path, *files.paths)
    beside = (path if path.is_dir() else path.parent) if image_files and not is_hub_name(str(source)) else None
    with (
        whole_folder(output, CONVERTED, overwrite=overwrite) as temporary,
        FolderWriter(temporary, beside) as writer,
    ):
        conversion = _Conversion(
            source=str(source), writer=writer, columns=columns or Columns(), files=files, bad=BadLines(skip_bad)
        )
        _add_files(conversion)
        if huggingface.is_source(source):
            _add_tables(conversion, split)
        elif (existing := _existing(path)).is_file() and not is_archive(existing):
            if files.corpora and files.queries and conversion.columns == Columns() and holds_judgements(existing):
                judged = judgements_in([existing], conversion.bad)
                _write_contents(conversion, Contents(documents=(), queries=(), judgements={split: judged}))
            else:
                _add_rows(conversion, split, str(source), rows_of(existing, conversion.bad))
        else:
            with unpacked(path, temporary.parent) if path.is_file() else nullcontext(path) as folder:
                _add_folder(conversion, split, folder)
        if not writer.qrels:
            problem = "no positive in its rows" if conversion.rows else "no rows"
            bad = conversion.bad.faults
            left_out = f"; bad lines left out: {len(bad)}, the first {bad[0]}" if bad else ""
            raise InputError(f"{source}: {problem}{left_out}")
    return _summary(output, conversion)


def convert_items(path: Path, output: Path, role: Role, columns: TextColumns) -> tuple[str, ...]:
    """Writes a file of documents or queries as corpus.jsonl or queries.jsonl; returns sentences about what was assumed.

    Raises InputError as `items_in` does, and for an id with two contents.
    """
    notes: list[str] = []
    with whole_folder(output, CONVERTED) as temporary, FolderWriter(temporary, path.parent) as writer:
        written = writer.documents if role == "document" else writer.queries
        for where, item in items_in(path, role, columns, writer.images, notes):
            written.add(item, where)
    return tuple(notes)


def fingerprint_of_source(source: str) -> str:
    """A fingerprint of everything that decides what `source` converts to."""
    if is_hub_name(source):
        return fingerprint_of(__version__, READERS, huggingface.pinned(source))
    path = Path(source).expanduser()
    if _existing(path).is_dir():
        files = source_folder(path)
        paths = zip(files.names, files.paths(".*"), strict=True)
        parts = [part for name, file in paths for part in (name, fingerprint_of_file(file))]
        return fingerprint_of(__version__, READERS, *parts)
    return fingerprint_of(__version__, READERS, *path.suffixes, fingerprint_of_file(_existing(path)))


def is_hub_name(source: str) -> bool:
    return source.startswith(huggingface.HUB)


def label_of(path: Path) -> str:
    """The name of a source without its suffixes: `data/scifact.tar.gz` as scifact."""
    if path.is_dir():
        return path.resolve().name
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if is_dataset_folder(path):
        raise InputError(f"{path}: is a dataset folder already")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path}: is not a regular file")
    return path


def _refuse_idle(columns: Columns, files: TextFiles) -> None:
    """Raises InputError for what would have no effect."""
    labels, documents = columns.labels, files.columns
    low, high = labels.negative_threshold, labels.threshold
    idle = [
        (documents.id or documents.texts, files.corpora, "--id-column and --text-column go with --corpus"),
        (
            labels.negative_threshold is not None,
            labels.threshold is not None,
            "--negative-threshold goes with --label-threshold",
        ),
        (labels.negative, labels.positive, "--negative-label goes with --positive-label"),
        (labels.positive, high is None, "--label-threshold and --positive-label exclude each other"),
    ]
    for option, partner, sentence in idle:
        if option and not partner:
            raise InputError(sentence)
    if low is not None and high is not None and low > high:
        raise InputError("--negative-threshold must not be above --label-threshold")


def _add_files(conversion: _Conversion) -> None:
    """Writes the documents and queries that pairs of ids name."""
    files, writer = conversion.files, conversion.writer
    roles: list[tuple[Role, tuple[Path, ...], TextColumns]] = [
        ("document", files.corpora, files.columns),
        ("query", (files.queries,) if files.queries else (), files.query_columns),
    ]
    for role, paths, columns in roles:
        written = writer.documents if role == "document" else writer.queries
        for path, chosen in zip(paths, columns_of_each(paths, columns), strict=True):
            for where, item in items_in(path, role, chosen, writer.images, conversion.notes, conversion.bad):
                if not item.id:
                    raise InputError(f"{path}: {NO_IDS} {OWN_ID[role]}")
                try:
                    written.add(item, where)
                except LineError as fault:
                    conversion.bad(fault)


def _add_folder(conversion: _Conversion, split: str, folder: Path) -> None:
    """Writes the contents of a folder in a published layout."""
    files, source = source_folder(folder), conversion.source
    layout, rows = folder_format(files), files.rows()
    inner = datasets_in(files) if layout is None and not rows else []
    if len(inner) == 1:
        layout, files = inner[0]
    if layout is not None:
        _add_contents(conversion, layout.read(files, split, conversion.writer.images))
    elif rows:
        for name, paths in rows.items():
            tables = (rows_of(path, conversion.bad) for path in paths)
            _add_rows(conversion, name, f"{source} ({name})", chain.from_iterable(tables))
    elif inner:
        names = ", ".join(str(one.root.relative_to(folder)) for _, one in inner)
        raise InputError(
            f"{source}: holds several datasets; name one of their folders (of an archive, unpacked): {names}"
        )
    else:
        raise InputError(
            f"{source}: neither a dataset folder (no corpus.jsonl) nor a Hugging Face dataset saved on disk, nor the "
            f"files of {', '.join(folder_formats())}; of a folder with files of pairs, name one file, or call them "
            "train.jsonl, test.jsonl and the like"
        )


def _add_tables(conversion: _Conversion, split: str) -> None:
    """Writes the tables of a Hugging Face dataset: a retrieval set, or rows in one table a split."""
    source = conversion.source
    tables = huggingface.open_tables(source, split)
    contents = beir.of_tables(tables, split, source, conversion.writer.images)
    if contents is not None:
        _add_contents(conversion, contents)
        return
    for name, table in tables.items():
        where = f"{source} ({name})"
        _add_rows(conversion, name, where, huggingface.rows_of(table, where))


def _add_contents(conversion: _Conversion, contents: Contents) -> None:
    source = conversion.source
    if conversion.files.paths:
        raise InputError(f"{source}: has documents of its own; --corpus and --query-file go with a file of pairs")
    if conversion.columns != Columns() or conversion.bad.most:
        raise InputError(
            f"{source}: a published dataset, read by the names that it has; --skip-bad and the flags of columns "
            "and labels go with files of rows"
        )
    _write_contents(conversion, contents)


def _write_contents(conversion: _Conversion, contents: Contents) -> None:
    source, writer = conversion.source, conversion.writer
    for name, count in writer.write(contents).items():
        if name not in writer.qrels:
            raise InputError(f"{source}: none of the queries that split {name!r} judges is there")
        conversion.notes.append(
            f"{source}: {count:,} judgements of split {name!r} are of queries that are not there; left out"
        )


def _add_rows(conversion: _Conversion, split: str, where: str, rows: Iterator[Row]) -> None:
    """Writes the rows as the split's queries, by the format that the first of them show."""
    first = list(islice(rows, PEEK))
    if not first:
        return
    lists = written_lists(first)
    read = _reader_of(conversion, where, [with_lists(row, lists) for row in first])
    column = read.columns.split if isinstance(read, PairReader) else ""
    for row in chain(first, rows):
        conversion.rows += 1
        try:
            for labelled in read([with_lists(row, lists)]):
                conversion.writer.add(split_in(row, column) if column else split, labelled)
        except LineError as fault:
            conversion.bad(fault)
    if isinstance(read, PairReader) and read.neither:
        names = f"a label in {read.columns.label!r} that makes them neither positive nor negative"
        conversion.notes.append(f"{where}: {read.neither:,} pairs have {names}; left out")


def _reader_of(
    conversion: _Conversion, source: str, first: list[Row]
) -> Callable[[Iterable[Row]], Iterator[LabelledQuery]]:
    files, writer, (where, keys) = conversion.files, conversion.writer, first[0]
    queries = writer.queries.seen if files.queries else None
    documents = writer.documents.seen if files.corpora else None
    if not files.paths:
        if "_id" in keys and not conversion.columns.names:
            raise InputError(f"{where}: a corpus or queries file; name the dataset folder that it is in")
        if tevatron2.POSITIVES in keys:
            raise InputError(f"{where}: {tevatron2.ALONE}")
        if {"query-id", "corpus-id"} <= keys.keys():
            raise InputError(f"{where}: {JUDGEMENTS_ALONE}")
        if (known := row_format(keys)) is not None and conversion.columns == Columns():
            return known.read
    columns, assumed = choose_columns(source, first, conversion.columns, queries, documents)
    conversion.notes.extend(assumed)
    return PairReader(columns=columns, images=writer.images, queries=queries, documents=documents)


def _summary(output: Path, conversion: _Conversion) -> Converted:
    writer, notes = conversion.writer, conversion.notes
    if writer.contradicted:
        notes.append(f"{writer.contradicted} given negatives are positives of the same query; left out")
    if writer.unanswered:
        notes.append(f"{writer.unanswered:,} queries have negatives and no positive; their negatives are left out")
    if unreadable := writer.images.unreadable:
        notes.append(f"{len(unreadable)} images are none by their first bytes, the first at {unreadable[0]}")
    return Converted(
        folder=output,
        documents=len(writer.documents.seen),
        queries=len(writer.queries.seen),
        judgements={split: sum(map(len, qrels.values())) for split, qrels in writer.qrels.items()},
        negatives=writer.negatives_written,
        notes=(*notes, *doubts_of(writer)),
        left_out=tuple(map(str, conversion.bad.faults)),
    )


def doubts_of(writer: FolderWriter) -> Iterator[str]:
    """Sentences about what looks wrong: ids or URLs for texts, one query or document in most of the pairs."""
    for noun, written, file in (
        ("documents", writer.documents, "--corpus"),
        ("queries", writer.queries, "--query-file"),
    ):
        if written.like_ids and len(written.like_ids) >= ID_SHARE * len(written.seen):
            count = f"{len(written.like_ids):,} of {len(written.seen):,} {noun}"
            yield f"warning: {count} look like ids or URLs, such as {written.like_ids[0]!r}; {file} names their texts"
    for split, qrels in writer.qrels.items():
        queries = Counter({query_id: len(judged) for query_id, judged in qrels.items()})
        documents = Counter(doc_id for judged in qrels.values() for doc_id in judged)
        pairs = queries.total()
        if split != "train" and (doubt := doubt_of_size(split, len(qrels))):
            yield f"warning: {doubt}"
        for noun, counts in (("query", queries), ("document", documents)):
            item_id, most = counts.most_common(1)[0]
            if pairs >= FEW_PAIRS and most >= pairs / 2:
                yield f"warning: {most:,} of the {pairs:,} judgements in {split!r} are of one {noun}, {item_id!r}"
