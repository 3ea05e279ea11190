"""Items in a JSON-lines file: ids in memory, texts on disk until they are asked for."""

from __future__ import annotations

import codecs
import hashlib
import json
import lzma
import os
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

from pydantic_core import from_json

from ..errors import InputError, reason
from ..files import fingerprint_of
from ..types import Item
from .ids import numbers_of, repeated
from .images import BrokenImage, identity

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}  # suffix -> the module of Python that unpacks it
LONGEST_LINE = 2**28  # bytes of a compressed file that unpacking may bring into memory at once
_DAMAGED = (EOFError, lzma.LZMAError, zlib.error)
_BLOCK = 2**18  # bytes of lines that are read together
_parse = partial(from_json, cache_strings="keys")
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
# key of an item -> what stands for it where it is absent, and the types of it that `read_texts` takes
_FIELDS: dict[str, tuple[Any, set[type]]] = {
    **dict.fromkeys(("title", "text", "instruction"), (None, {str, NoneType})),
    "image": (None, {NoneType}),
    "made": (False, {bool}),
}
_BREAKS_COLUMNS = re.compile(r"[\x00-\x20\x7f]")


class LineError(InputError):
    """An error in one line of a file; `kind` groups errors of the same sort."""

    def __init__(self, where: str, kind: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.kind = kind


class JsonLines:
    """An ordered set of items in one `.jsonl` file (`_id`, and `title`, `text`, `image`, `instruction`, `made`
    where given).

    One pass over the file checks every line and notes where it starts; afterwards texts are read when asked for, so
    memory holds ids and offsets only. `image` is a path inside the file's folder. Raises InputError with the file and
    line for invalid UTF-8, malformed JSON, a missing or repeated `_id`, a field that is not a string, and an image
    outside the folder. images: how many items have one.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.images = path, 0
        self._ids: list[str] = []
        self._offsets = array("q")  # of each item's line in the file
        digest, offset = hashlib.sha256(), 0
        try:
            for number, lines in read_blocks(path):
                digest.update(b"".join(lines))
                starts = list(accumulate(map(len, lines), initial=offset))
                offset = starts.pop()
                texts = read_texts(lines)
                if texts is None:
                    self._add_one_by_one(number, lines, starts)
                else:
                    self._ids += texts.ids
                    self._offsets.extend(starts)
        except LineError:
            self._refuse_repeated()
            raise
        self._refuse_repeated()
        self._digest = digest.hexdigest()

    def _add_one_by_one(self, number: int, lines: Sequence[bytes], starts: Sequence[int]) -> None:
        """Adds the items of the lines from `number` on. Raises LineError for the first that holds none."""
        for line, (raw, start) in enumerate(zip(lines, starts, strict=True), start=number):
            if not raw.strip():
                continue
            item = parse_item(raw, f"{self.path}:{line}", self.path.parent)
            self._ids.append(item.id)
            self._offsets.append(start)
            self.images += item.image is not None

    def _refuse_repeated(self) -> None:
        """Raises LineError for the first id that an earlier line has."""
        if not len(repeated(numbers_of(self._ids))):
            return
        row_of: dict[str, int] = {}
        for row, item_id in enumerate(self._ids):
            if (earlier := row_of.setdefault(item_id, row)) != row:
                line, first = (_line_at(self.path, self._offsets[at]) for at in (row, earlier))
                raise LineError(f"{self.path}:{line}", "duplicate id", f"_id {item_id!r} is also on line {first}")

    @cached_property
    def _rows(self) -> dict[str, int]:
        return dict(zip(self._ids, range(len(self._ids)), strict=True))

    @cached_property
    def fingerprint(self) -> str:
        """Of the file's bytes, and of those of the images that it names: a changed picture is another item."""
        if not self.images:
            return self._digest
        return fingerprint_of(self._digest, *(_identity(item.image) for item in self if item.image is not None))

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._rows

    def row(self, item_id: str) -> int:
        return self._rows[item_id]

    def __getitem__(self, item_id: str) -> Item:
        offset = self._offsets[self._rows[item_id]]
        # Opened for each item: a handle kept open would not survive forks and threads that move its position.
        with self.path.open("rb") as file:
            file.seek(offset)
            return self._expect(item_id, file.readline())

    def __iter__(self) -> Iterator[Item]:
        lines = (raw for _, raw in read_lines(self.path) if raw.strip())
        for item_id in self._ids:
            yield self._expect(item_id, next(lines, b""))

    def _expect(self, item_id: str, raw: bytes) -> Item:
        try:
            item = parse_item(raw, str(self.path), self.path.parent)
        except LineError:
            item = None
        if item is None or item.id != item_id:
            raise InputError(f"{self.path}: changed while it was in use ({item_id!r} has moved); start again")
        return item


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, raw line with its end) for every line; only "\\n" ends one. Raises as `read_blocks` does."""
    for first, lines in read_blocks(path):
        yield from enumerate(lines, start=first)


def read_blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, raw lines with their ends): about a megabyte of lines at a time.

    A compressed file is unpacked line by line. Raises InputError for a file that cannot be read, and for a line of a
    compressed one that is longer than LONGEST_LINE.
    """
    number, compressed = 1, path.suffix.lower() in COMPRESSED
    try:
        with reading(path) as file:
            while lines := _line(file) if compressed else file.readlines(_BLOCK):
                if compressed and len(lines[0]) == LONGEST_LINE:
                    raise InputError(f"{path}:{number}: a line of {LONGEST_LINE:,} bytes or more; unpack the file")
                yield number, lines
                number += len(lines)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, *_DAMAGED) as error:
        raise InputError(f"{path}: cannot be read: {reason(error)}") from None


def _line(file: BinaryIO) -> list[bytes]:
    line = file.readline(LONGEST_LINE)
    return [line] if line else []


def reading(path: Path) -> BinaryIO:
    """The file, open for its bytes, unpacked where its last suffix names a compression."""
    module = COMPRESSED.get(path.suffix.lower())
    opener: Callable[[Path, str], Any] = open if module is None else import_module(module).open
    file: BinaryIO = opener(path, "rb")
    return file


def decode(raw: bytes, where: str) -> str:
    """A line as text, without a byte order mark. Raises LineError where it is not UTF-8."""
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at column {error.start + 1}"
        raise LineError(where, "encoding", f"not valid UTF-8 ({byte}); save the file as UTF-8") from None


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """A line as a JSON object. Raises LineError where it is not one, or not valid Unicode."""
    text = decode(raw, where).rstrip("\r\n")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise LineError(where, "malformed line", f"not valid JSON: {error.msg} (column {error.colno})") from None
    except ValueError as error:  # a number of too many digits
        raise LineError(where, "malformed line", f"not valid JSON: {error}") from None
    except RecursionError:
        raise LineError(where, "malformed line", "not valid JSON: nested too deeply") from None
    if not isinstance(value, dict):
        raise LineError(where, "malformed line", f"expected a JSON object, got {text[:40]}")
    if _HALF_PAIR.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise LineError(where, "encoding", "half of a surrogate pair (\\ud800 to \\udfff) stands alone") from None
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """The items of consecutive lines that name no image: a column for each field."""

    ids: list[str]
    titles: list[str | None] | None  # None where no item has one
    texts: list[str | None]

    @property
    def contents(self) -> list[str]:
        """Each item's `Item.content`."""
        if self.titles is None:
            return [text or "" for text in self.texts]
        pairs = zip(self.titles, self.texts, strict=True)
        return [f"{title} {text or ''}".strip() if title else text or "" for title, text in pairs]


def read_texts(lines: Sequence[bytes]) -> Texts | None:
    """The items of lines, read at once; None where a line is blank, has a fault, names an image or repeats an id.

    The items are those that `parse_item` returns, at a fifth of the time.
    """
    try:
        values = list(map(_parse, lines))
        ids = [value["_id"] for value in values]
    except (ValueError, KeyError, TypeError):  # not JSON, no id, not an object
        return None
    named, columns = set().union(*values), {}
    for key, (absent, types) in _FIELDS.items():
        if key in named:
            columns[key] = [value.get(key, absent) for value in values]
            if not set(map(type, columns[key])) <= types:
                return None
    of_ids = set(map(type, ids))
    if not of_ids <= {str, int}:
        return None
    if int in of_ids:
        ids = list(map(str, ids))
    if len(set(ids)) < len(ids) or not all(ids) or _BREAKS_COLUMNS.search("".join(ids)):
        return None
    return Texts(ids=ids, titles=columns.get("title"), texts=columns.get("text", [None] * len(ids)))


def parse_item(raw: bytes, where: str, folder: Path) -> Item:
    """A line as an Item. Raises LineError for one that is none."""
    values = parse_object(raw, where)
    item_id = id_in(values, "_id", where)
    if not item_id:
        raise LineError(where, "missing id", 'no "_id"; every line needs one')
    return Item(
        id=item_id,
        text=_text(values, "text", where) or "",
        title=_text(values, "title", where) or "",
        image=_image(values, where, folder),
        instruction=_text(values, "instruction", where),
        made=_flag(values, "made", where),
    )


def fault_of_id(item_id: str) -> str | None:
    """The reason why a string cannot be an id, or None. TREC files separate columns by blanks."""
    if not item_id:
        return "an id must not be empty"
    if _BREAKS_COLUMNS.search(item_id):
        return f"id {item_id!r} has white space in it, which TREC files cannot hold; rename it in every file"
    return None


def id_in(values: dict[str, Any], key: str, where: str) -> str:
    """The id under a key, or "" without one. A whole number becomes its digits."""
    value = values.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LineError(where, "wrong type", f'"{key}" must be a string, got {json.dumps(value)[:40]}')
    if fault := fault_of_id(str(value)):
        raise LineError(where, "unusable id", f'"{key}": {fault}')
    return str(value)


def _text(values: dict[str, Any], key: str, where: str) -> str | None:
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise LineError(where, "wrong type", f'"{key}" must be a string, got {json.dumps(value)[:40]}')
    return value


def _flag(values: dict[str, Any], key: str, where: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise LineError(where, "wrong type", f'"{key}" must be true or false, got {json.dumps(value)[:40]}')
    return value


def _image(values: dict[str, Any], where: str, folder: Path) -> Path | None:
    name = _text(values, "image", where)
    if not name:
        return None
    path = Path(os.path.normpath(name))
    outside = path.is_absolute() or path.parts[:1] == ("..",) or path == Path() or "\0" in name
    if outside or not any(Path(os.path.realpath(folder / path)).is_relative_to(root) for root in image_roots(folder)):
        raise LineError(where, "image outside", f'"image" must be a path inside {folder}, got {name!r}')
    return folder / path


@lru_cache(maxsize=64)
def image_roots(folder: Path) -> tuple[Path, ...]:
    """The folders, links resolved, that hold a dataset's images: its own, and the blobs of a hub client's snapshot."""
    absolute = folder.absolute()
    snapshot = next((path for path in (absolute, *absolute.parents) if path.parent.name == "snapshots"), None)
    blobs = (snapshot.parent.parent / "blobs",) if snapshot is not None else ()
    return tuple(Path(os.path.realpath(root)) for root in (absolute, *blobs))


def _identity(image: Path) -> str:
    try:
        return identity(image)
    except BrokenImage as fault:
        return fault.reason


def _line_at(path: Path, offset: int) -> int:
    """The number of the line that starts at a byte offset."""
    starts = accumulate((len(raw) for _, raw in read_lines(path)), initial=0)
    return next(number for number, start in enumerate(starts, start=1) if start >= offset)


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a .json file. Raises InputError as `read_json` does, and for any other kind of value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {str(value)[:40]}")
    return value


def read_json(path: Path) -> Any:
    """The value of a .json file. Raises InputError with the line for invalid UTF-8 and malformed JSON."""
    text = "".join(decode(raw, f"{path}:{number}") for number, raw in read_lines(path))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise InputError(f"{path}: not valid JSON: nested too deeply") from None
