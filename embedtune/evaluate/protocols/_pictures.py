"""Pictures that rows name: found in the folders where they may be, or taken from the row itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import cache_folder, fingerprint_of, fingerprint_of_file, whole_file

SUFFIXES = ("", ".png", ".jpg", ".jpeg")


class Pictures:
    """Finds pictures by name under the first folder that has them. Never outside of these folders."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [folder for folder in folders if folder.is_dir()]

    def find(self, value: Any, where: str) -> Path:
        """The file of a name, or of a picture's bytes in the row (as Parquet files of the hub hold them), which are
        kept in the cache. Raises InputError where there is none."""
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return _kept(value["bytes"], str(value.get("path") or ""))
        if not isinstance(value, str) or not value:
            raise InputError(f"{where}: expected an image's name, got {str(value)[:40]!r}")
        name = Path(os.path.normpath(value))
        if name.is_absolute() or name.parts[:1] == ("..",) or "\0" in value:
            raise InputError(f"{where}: an image must be a path inside the folder, got {value!r}")
        for folder in self.folders:
            for suffix in SUFFIXES:
                if (path := folder / f"{name}{suffix}").is_file():
                    return path
        listed = ", ".join(map(str, self.folders)) or "no folder of images"
        raise InputError(f"{where}: no image {value!r} in {listed}; say where the images are with --images DIR")

    def cropped(self, path: Path, box: tuple[int, int, int, int]) -> Path:
        """The part of a picture between left, upper, right and lower, as a file in the cache."""
        from PIL import Image, UnidentifiedImageError

        key = fingerprint_of(fingerprint_of_file(path), *map(str, box))
        target = cache_folder() / "pictures" / f"{key}.png"
        if not target.exists():
            try:
                with Image.open(path) as image, whole_file(target) as temporary:
                    image.convert("RGB").crop(box).save(temporary, format="PNG")
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
                raise InputError(f"{path}: cannot be cropped to {box}: {error}") from None
        return target


def _kept(content: bytes, name: str) -> Path:
    suffix = Path(name).suffix.lower()
    suffix = suffix if suffix[1:].isalnum() else ".img"
    target = cache_folder() / "pictures" / f"{sha256(content).hexdigest()[:32]}{suffix}"
    if not target.exists():
        with whole_file(target) as temporary:
            temporary.write_bytes(content)
    return target
