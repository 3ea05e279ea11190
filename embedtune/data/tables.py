"""Rows of a file: JSON lines, JSON, CSV and TSV with a header, Parquet; each plain or compressed."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, reason
from .jsonl import COMPRESSED, LineError, decode, parse_object, read_json, read_lines, reading
from .records import Row

LONGEST_CELL = 2**31 - 1  # bytes; csv's own limit is 128 KiB
SAMPLE = 200  # lines that decide the delimiter
_OPEN_QUOTE = "unexpected end of data"  # csv's message
DELIMITERS = ",;\t|"

OnFault = Callable[[LineError], None]


@dataclass
class BadLines:
    """Leaves out up to `most` bad lines and lists them; the next one is an error."""

    most: int = 0
    faults: list[LineError] = field(default_factory=list)

    def __call__(self, fault: LineError) -> None:
        """Raises InputError where no further line may be left out."""
        if len(self.faults) < self.most:
            self.faults.append(fault)
        elif self.most:
            before = f"bad lines left out before: {self.most}, the first {self.faults[0]}"
            raise InputError(f"{fault}; {before}; allow more with --skip-bad")
        else:
            raise InputError(f"{fault} (`embedtune data convert --skip-bad N` leaves out up to N bad lines)") from None


def raise_fault(fault: LineError) -> None:
    raise fault


def rows_of(path: Path, on_fault: OnFault = raise_fault) -> Iterator[Row]:
    """The rows of a file by its suffix; .gz, .bz2 or .xz may stand behind it.

    A line that is no row goes to `on_fault`. Raises InputError for a file that cannot be read.
    """
    reader = FORMS.get(suffix_of(path))
    if reader is None:
        known = f"{', '.join(FORMS)}, each also with {', '.join(COMPRESSED)},"
        raise InputError(f"{path}: unknown kind of file; known are {known} and dataset folders")
    return reader(path, on_fault)


def suffix_of(path: Path) -> str:
    """The suffix of a file's name in lower case, without that of a compression."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def jsonl_rows(path: Path, on_fault: OnFault = raise_fault) -> Iterator[Row]:
    for number, raw in read_lines(path):
        if raw.strip():
            where = f"{path}:{number}"
            try:
                values = parse_object(raw, where)
            except LineError as fault:
                on_fault(fault)
            else:
                yield where, values


def json_rows(path: Path, on_fault: OnFault = raise_fault) -> Iterator[Row]:
    """The objects of a list, or of an object whose keys are their `_key`.

    JSON lines under this name, a list as the only value of an object, and columns as pandas writes them are read too.
    """
    if _holds_lines(path):
        yield from jsonl_rows(path, on_fault)
        return
    content = read_json(path)
    if isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), list):
        (content,) = content.values()
    elif isinstance(content, dict) and content and all(map(_is_column, content.values())):
        content = [{name: cells.get(row) for name, cells in content.items()} for row in next(iter(content.values()))]
    elif isinstance(content, dict):
        content = [value | {"_key": key} if isinstance(value, dict) else value for key, value in content.items()]
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of objects, or an object of them")
    for number, row in enumerate(content, start=1):
        where = f"{path}: entry {row.get('_key', number) if isinstance(row, dict) else number}"
        if isinstance(row, dict):
            yield where, row
        else:
            on_fault(LineError(where, "malformed line", f"expected an object, got {str(row)[:40]}"))


def _is_column(value: object) -> bool:
    """Whether a value holds the cells of a column by row, as pandas' `to_json` writes them."""
    return isinstance(value, dict) and bool(value) and list(value) == [str(row) for row in range(len(value))]


def _holds_lines(path: Path) -> bool:
    """Whether the first two lines with content are objects of their own."""
    lines = [raw for _, raw in islice(((n, raw) for n, raw in read_lines(path) if raw.strip()), 2)]
    try:
        return len(lines) == 2 and all(isinstance(json.loads(decode(raw, "")), dict) for raw in lines)
    except (LineError, ValueError, RecursionError):
        return False


class Dialect(NamedTuple):
    """How a file separates cells. quoted: cells in quotes may hold delimiters and line ends."""

    delimiter: str
    quoted: bool = True

    def reader(self, lines: Iterator[str]) -> Any:
        if self.quoted:
            return csv.reader(lines, delimiter=self.delimiter, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)


def csv_rows(path: Path, on_fault: OnFault = raise_fault) -> Iterator[Row]:
    """The first line names the columns; the delimiter gives most lines as many cells as the header."""
    csv.field_size_limit(LONGEST_CELL)
    hinted = _hinted_delimiter(path)
    dialect = Dialect(hinted) if hinted else dialect_of(path)
    # Decoded line by line, so that an encoding error has a line number.
    # A map goes on after an error in one of its lines, as a generator or an islice does not.
    lines = map(partial(_decoded, path), read_lines(path))
    if hinted:
        next(lines)
    reader = dialect.reader(lines)
    header: list[str] = []
    while True:
        first = reader.line_num + bool(hinted) + 1
        try:
            cells = next(reader, None)
            where = f"{path}:{reader.line_num + bool(hinted)}"
            if cells is None:
                return
            if not cells:
                continue
            if not header:
                header = _header(cells, where)
            elif len(cells) != len(header):
                message = f"expected {len(header)} columns ({', '.join(header)}), got {len(cells)}"
                raise LineError(where, "malformed line", message)
            else:
                yield where, dict(zip(header, cells, strict=True))
        except (csv.Error, LineError) as error:
            last = reader.line_num + bool(hinted)
            if str(error) == _OPEN_QUOTE:
                message = f"a quote opens in this row and nothing closes it up to the end, line {last}"
                raise InputError(f"{path}:{first}: {message}; close the quote, or double it") from None
            where = f"{path}:{last}" if last <= first else f"{path}:{first}-{last}"
            fault = (
                error if isinstance(error, LineError) else LineError(where, "malformed line", f"not valid CSV: {error}")
            )
            if not header:
                raise fault from None
            on_fault(fault)


def _decoded(path: Path, line: tuple[int, bytes]) -> str:
    return decode(line[1], f"{path}:{line[0]}")


def dialect_of(path: Path) -> Dialect:
    """The delimiter and quoting by which most of the first lines have the header's number of cells.

    The suffix decides between equals: a tab in .tsv, else a comma. Tab-separated cells are unquoted unless they begin
    with a quote and reading them as quoted fits as well.
    """
    lines = [raw.decode("utf-8-sig", "replace") for _, raw in islice(read_lines(path), SAMPLE)]
    order = "\t,;|" if suffix_of(path) == ".tsv" else DELIMITERS
    dialects = [Dialect(delimiter, quoted) for delimiter in order for quoted in _quotings(delimiter, lines)]
    return max(dialects, key=lambda dialect: _share_of_whole_rows(dialect, lines))


def _quotings(delimiter: str, lines: Sequence[str]) -> tuple[bool, ...]:
    if delimiter != "\t":
        return (True,)
    quotes = any(cell.startswith('"') for line in lines for cell in line.split("\t"))
    return (True, False) if quotes else (False,)


def _share_of_whole_rows(dialect: Dialect, lines: Sequence[str]) -> float:
    """The share of the lines that stand in rows with as many cells as the header; 0 where that is one cell."""
    reader = dialect.reader(iter(lines))
    columns, whole, before = 0, 0, 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            before = reader.line_num
            continue
        if cells is None:
            return whole / max(1, len(lines))
        columns = columns or len(cells)
        if columns > 1 and len(cells) in (columns, 0):
            whole += reader.line_num - before
        before = reader.line_num


def _hinted_delimiter(path: Path) -> str:
    """The delimiter that a first line `sep=;` names, as spreadsheets write it."""
    for _, raw in islice(read_lines(path), 1):
        line = raw.decode("utf-8-sig", "replace").strip("\r\n").strip('"')
        if line.startswith("sep=") and len(line) == 5:
            return line[4]
    return ""


def _header(cells: list[str], where: str) -> list[str]:
    """The columns' names; one without a name, such as the row numbers that pandas writes, is named by its position."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise LineError(where, "malformed line", f"column {min(repeated)!r} is named twice")
    return names


def parquet_rows(path: Path, on_fault: OnFault = raise_fault) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        number = 0
        with reading(path) as source, ParquetFile(source) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number}", row
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {reason(error)}") from None


def parquet_columns(path: Path) -> list[str]:
    """The names of a file's columns."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        with reading(path) as source:
            return list(read_schema(source).names)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


FORMS: dict[str, Callable[[Path, OnFault], Iterator[Row]]] = {
    ".jsonl": jsonl_rows,
    ".ndjson": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
