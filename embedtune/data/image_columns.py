"""Images in other formats' columns (files, bytes, `data:` URIs, Hugging Face's Image): each becomes a file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from .images import FORMATS
from .jsonl import LineError
from .records import Row

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
_SUFFIX_OF = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}  # others are named as their format


class ImageFiles:
    """Writes images under `folder/images`, named by their content, so that equal images are one file.

    beside: the folder that relative paths in columns start from and stay in; None where no file may be named.
    """

    def __init__(self, folder: Path, beside: Path | None) -> None:
        self._folder, self._beside = folder / "images", beside
        self.unreadable: list[str] = []  # rows whose image is none by its first bytes

    def of(self, row: Row, column: str) -> Iterator[Path]:
        """The images in one column of a row: none where it is empty, several where it holds a list.

        Raises LineError for what is no image, a URL, and a path that leaves the source's folder.
        """
        where, values = row
        cell = values.get(column)
        for image in cell if isinstance(cell, list) else [cell]:
            if image is not None and image != "":
                yield self._written(self._bytes_of(image, where, column), where)

    def _bytes_of(self, value: Any, where: str, column: str) -> bytes:
        if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:  # Hugging Face's Image, not decoded
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            expected = "an image (a path, bytes, data: URI)"
            raise LineError(where, "wrong type", f"{column!r} must be {expected}, got {value!r}")
        if value.startswith("data:"):
            return _decoded(value, where, column)
        if "://" in value:
            raise LineError(
                where, "image outside", f"{column!r} is a URL; download the images, nothing is fetched here"
            )
        return self._read(value, where, column)

    def _read(self, name: str, where: str, column: str) -> bytes:
        if self._beside is None:
            raise LineError(
                where, "image outside", f"{column!r} names a file; `embedtune data convert` reads image files"
            )
        root = self._beside.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise LineError(where, "image outside", f"{column!r} must be a path inside {self._beside}, got {name!r}")
        try:
            if path.exists() and not path.is_file():  # reading a pipe would wait for its writer
                raise LineError(where, "missing image", f"{column!r}: {name!r} is not a regular file")
            return path.read_bytes()
        except OSError as error:
            raise LineError(where, "missing image", f"{column!r}: {name!r} cannot be read: {error.strerror}") from None

    def _written(self, content: bytes, where: str) -> Path:
        suffix = _suffix_of(content)
        if suffix is None:  # written all the same: the reader of the folder decides how many may be broken
            self.unreadable.append(where)
        path = self._folder / f"{hashlib.sha256(content).hexdigest()[:32]}.{suffix or 'bin'}"
        if not path.exists():
            self._folder.mkdir(exist_ok=True)
            path.write_bytes(content)
        return path


def holds_images(cells: Sequence[Any]) -> bool:
    """Whether a column's first cells are images: bytes, data: URIs, Hugging Face's Image, names of image files."""
    images = [one for cell in cells for one in (cell if isinstance(cell, list) else [cell]) if one not in (None, "")]
    return bool(images) and all(map(_is_image, images))


def _is_image(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value) and value.keys() <= {"bytes", "path"}
    if isinstance(value, str):
        return value.startswith("data:image/") or value.lower().endswith(SUFFIXES)
    return isinstance(value, bytes)


def _decoded(uri: str, where: str, column: str) -> bytes:
    head, _, body = uri.partition(",")
    try:
        if head.endswith(";base64"):
            return base64.b64decode(body, validate=True)
        reason = "only base64 is read"
    except ValueError as error:
        reason = str(error)
    raise LineError(where, "wrong type", f"{column!r} is not a data: URI of an image ({reason})")


def _suffix_of(content: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            name = image.format or ""
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return _SUFFIX_OF.get(name, name.lower()) or None
