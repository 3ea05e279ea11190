"""Images that rows name: searched for in the protocol's folders, or taken from the row itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...data.images import MOST_PIXELS, open_image
from ...data.jsonl import image_roots
from ...errors import InputError
from ...files import cache_folder, fingerprint_of, fingerprint_of_file, whole_file

SUFFIXES = ("", ".png", ".jpg", ".jpeg")
MOST_TIMES = 2  # a box may reach beyond its image's edges, as the released code allows, but not by any size

Box = tuple[int, int, int, int]  # left, upper, right, lower; pixels


class RowImages:
    """The images of a protocol's rows. Only files that lie inside `folders`, links followed, are used."""

    def __init__(self, folders: Sequence[Path | None], subfolders: Sequence[str]) -> None:
        """folders: those that may be read, the first searched first; subfolders: searched in each, "" for itself."""
        self._folders = [folder for folder in dict.fromkeys(folders) if folder is not None and folder.is_dir()]
        self._subfolders = subfolders

    def path(self, value: Any, where: str) -> Path:
        """The file of an image that a row names, or whose bytes it holds (as the hub's Parquet files do).

        Bytes are written to the cache. Raises InputError for a value that is no image, for a name without a file, and
        for a file outside the folders.
        """
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return _cached(value["bytes"], str(value.get("path") or ""))
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: expected an image's name, got {str(value)[:40]!r}")
        name = Path(os.path.normpath(value))
        if name.is_absolute() or name.parts[:1] == ("..",) or "\0" in value:
            raise InputError(f"{where}: an image must be a path inside the folder, got {value!r}")
        for folder in self._folders:
            for subfolder in self._subfolders:
                for suffix in SUFFIXES:
                    path = folder / subfolder / f"{name}{suffix}"
                    if path.is_file():
                        return self._inside(path, where)
        listed = ", ".join(str(folder / subfolder) for folder in self._folders for subfolder in self._subfolders)
        raise InputError(f"{where}: no image {value!r} in {listed}; name their folder with --image-folder DIR")

    def _inside(self, path: Path, where: str) -> Path:
        target = path.resolve()
        if not any(target.is_relative_to(root) for folder in self._folders for root in image_roots(folder)):
            raise InputError(
                f"{where}: image {path} is a link to {target}, outside the folders of the data; copy the image there, "
                "or name its folder with --image-folder DIR"
            )
        return path


def cropped(path: Path, box: Box) -> Path:
    """The part of an image inside a box, as a PNG file in the cache. What reaches beyond the edges is black.

    Raises InputError for a file that is no image, and for a box that is empty, beside the image or far larger than it.
    """
    key = fingerprint_of(fingerprint_of_file(path), *map(str, box))
    target = cache_folder() / "pictures" / f"{key}.png"
    if not target.exists():
        image = open_image(path)
        left, upper, right, lower = box
        width, height = right - left, lower - upper
        overlaps = width > 0 and height > 0 and left < image.width and upper < image.height and right > 0 and lower > 0
        too_large = width > MOST_TIMES * image.width or height > MOST_TIMES * image.height
        if not overlaps or too_large or width * height > MOST_PIXELS:
            raise InputError(f"{path}: the box {box} does not fit the image of {image.width} x {image.height} pixels")
        with whole_file(target) as temporary:
            image.crop(box).save(temporary, format="PNG")
    return target


def _cached(content: bytes, name: str) -> Path:
    suffix = Path(name).suffix.lower()
    suffix = suffix if suffix[1:].isalnum() else ".img"
    target = cache_folder() / "pictures" / f"{sha256(content).hexdigest()[:32]}{suffix}"
    if not target.exists():
        with whole_file(target) as temporary:
            temporary.write_bytes(content)
    return target
