"""The formats of published data and of other tools' training files: one file a format, found by being here.

A module has `FORMAT`: a `RowFormat` for a file of rows, or a `FolderFormat` for a folder or an unpacked archive.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..contents import Contents
from ..image_columns import ImageFiles
from ..jsonl import parse_object, read_lines
from ..records import LabelledQuery, Row
from ..source_folder import SourceFolder, source_folder


@dataclass(frozen=True, kw_only=True)
class RowFormat:
    """Rows that each hold a query with its documents. recognises: whether a first row's columns are of the format."""

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Iterable[Row]], Iterator[LabelledQuery]]


@dataclass(frozen=True, kw_only=True)
class FolderFormat:
    """A layout of files. read: the contents for one split, where splits are datasets of their own, else for all."""

    name: str
    recognises: Callable[[SourceFolder], bool]
    read: Callable[[SourceFolder, str, ImageFiles], Contents]


@cache
def _formats() -> tuple[RowFormat | FolderFormat, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").FORMAT for name in names)


def row_format(values: Mapping[str, Any]) -> RowFormat | None:
    """The format of a file by the columns of its first row."""
    formats = (one for one in _formats() if isinstance(one, RowFormat))
    return next((one for one in formats if one.recognises(values)), None)


def folder_format(folder: SourceFolder) -> FolderFormat | None:
    """The format of a folder by the names of its files."""
    formats = (one for one in _formats() if isinstance(one, FolderFormat))
    return next((one for one in formats if one.recognises(folder)), None)


def datasets_in(folder: SourceFolder) -> list[tuple[FolderFormat, SourceFolder]]:
    """The folders inside one that are in a format, without what is in another one of them."""
    datasets: list[tuple[FolderFormat, SourceFolder]] = []
    for inner in folder.folders():
        outer = any(inner.root.is_relative_to(known.root) for _, known in datasets)
        if not outer and (layout := folder_format(inner)) is not None:
            datasets.append((layout, inner))
    return datasets


def folder_formats() -> list[str]:
    """The names of all formats of folders."""
    return [one.name for one in _formats() if isinstance(one, FolderFormat)]


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder is a dataset folder and not the download of another layout that has a corpus.jsonl too."""
    if not (path / "corpus.jsonl").exists() or _has_other_ids(path / "corpus.jsonl"):
        return False
    return any((path / "qrels").glob("*.tsv")) or folder_format(source_folder(path)) is None


def _has_other_ids(corpus: Path) -> bool:
    """Whether the first line of a corpus has its id under another name than `_id`."""
    try:
        values = next((parse_object(raw, "") for _, raw in read_lines(corpus) if raw.strip()), {})
    except InputError:  # told of where the corpus is read
        return False
    return "_id" not in values and bool(values.keys() & {"id", "docid"})
