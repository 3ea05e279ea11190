"""Rows of a file: JSON lines, CSV with a header, Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .jsonl import LineError, decode, parse_object, read_lines
from .records import Row

SUFFIXES = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".csv": "CSV", ".parquet": "Parquet"}
LONGEST_CELL = 2**31 - 1  # bytes; csv's own limit is 128 KiB


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file by its suffix. Raises InputError with the line for what cannot be read."""
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path}: unknown kind of file; known are {', '.join(SUFFIXES)} and dataset folders")
    return {"JSON lines": jsonl_rows, "CSV": csv_rows, "Parquet": parquet_rows}[form](path)


def jsonl_rows(path: Path) -> Iterator[Row]:
    for number, raw in read_lines(path):
        if raw.strip():
            yield f"{path}:{number}", parse_object(raw, f"{path}:{number}")


def csv_rows(path: Path) -> Iterator[Row]:
    """The first line names the columns; quoted cells may hold commas and line ends."""
    csv.field_size_limit(LONGEST_CELL)
    # Decoded line by line, so that an encoding error has a line number.
    reader = csv.reader((decode(raw, f"{path}:{number}") for number, raw in read_lines(path)), strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if not header:
                header = _header(cells, where)
            elif len(cells) != len(header):
                message = f"expected {len(header)} columns ({', '.join(header)}), got {len(cells)}"
                raise LineError(where, "malformed line", message)
            else:
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise LineError(f"{path}:{reader.line_num}", "malformed line", f"not valid CSV: {error}") from None


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise LineError(where, "malformed line", f"column {min(repeated)!r} is named twice")
    return names


def parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        number = 0
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def parquet_columns(path: Path) -> list[str]:
    """The names of a file's columns."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        return list(read_schema(path).names)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None
