"""Shared by the readers of protocols: rows of several kinds of files, and fields of the expected type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...data.records import Row
from ...data.tables import parquet_columns, rows_of
from ...errors import InputError


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Whether the rows have all the columns; False for a file that cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            return set(columns) <= set(parquet_columns(path))
        first = next(rows_of(path), None)
    except InputError:
        return False
    return first is not None and set(columns) <= set(first[1])


def files_of(roots: Sequence[Path], name: str) -> list[Path]:
    """The file of that name, or the Parquet files of the test split, in the first folder with either."""
    for root in roots:
        if (root / name).is_file():
            return [root / name]
        if shards := sorted(root.glob("test*.parquet")):
            return shards
    return []


def text_in(row: Row, column: str) -> str:
    """The text of a column. Raises InputError for another type and for a blank text."""
    where, values = row
    value = values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {column!r} must be a text, got {str(value)[:40]!r}")
    return value.strip()
