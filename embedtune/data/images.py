"""Opens images: regular files of known formats, bounded before they are decoded, upright, RGB."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError

from .. import distributed
from ..errors import InputError

T = TypeVar("T")
# Pillow knows more formats: EPS calls a program, and others are no pictures.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
MOST_PIXELS = 80_000_000  # 240 MB once decoded; Pillow itself warns at 89 million
MOST_THREADS = 8  # more do not feed a model on one device faster
ENOUGH_CORES = 4  # with fewer, the model needs them all
# Of odd metadata and large sizes, which `_open` judges itself. Once, because the filters are those of all threads.
warnings.filterwarnings("ignore", module=r"PIL\.|embedtune\.data\.images")
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class BrokenImage(InputError):
    """A file that cannot be read as an image. `reason` is the message without the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def open_image(path: Path) -> Image.Image:
    """The image, decoded, as RGB: turned as its EXIF says, transparency on white, the first frame of an animation.

    16-bit grey keeps its upper 8 bits; CMYK is converted. Raises BrokenImage for a file that is absent, is no regular
    file or no image, is cut short, or has more than 80 million pixels (known from its header, before it is decoded).
    """
    return open_images([path])[0]


def open_images(paths: Sequence[Path]) -> list[Image.Image]:
    """The images in order, decoded on several threads. Raises BrokenImage as `open_image` does."""
    return _on_threads(_open, paths)


def faults_of(paths: Sequence[Path]) -> list[str | None]:
    """For each path the reason why it cannot be read as an image, or None.

    Images are decoded whole, since nothing else shows that one is cut short.
    """
    return _on_threads(_fault, paths)


def _on_threads(work: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    threads = _threads() if len(paths) > 1 else None
    return list((threads.map if threads else map)(work, paths))


@cache
def _threads() -> ThreadPoolExecutor | None:
    """A thread for each core that the model leaves free; Pillow decodes most formats without Python's global lock."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= distributed.local_count()
    return ThreadPoolExecutor(min(MOST_THREADS, cores - 1)) if cores >= ENOUGH_CORES else None


def _fault(path: Path) -> str | None:
    try:
        _open(path)
    except BrokenImage as fault:
        return fault.reason
    return None


def _open(path: Path) -> Image.Image:
    try:
        _state_of(path)
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise BrokenImage(path, f"{width:,} x {height:,} pixels are more than {MOST_PIXELS:,}")
            image.load()
            return _as_rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many kinds
        raise BrokenImage(path, _reason(error)) from None


def _state_of(path: Path) -> os.stat_result:
    """The file's size and times. Raises BrokenImage for what is no regular file: to open a pipe waits for a writer."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise BrokenImage(path, "not a regular file")
    return state


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such image"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image (of {', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own bound, at twice its warning's
        return f"more than {MOST_PIXELS:,} pixels"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {error.strerror}"
    detail = str(error).partition("\n")[0] or type(error).__name__
    return f"damaged image: {detail}"


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        image = image.convert("I")
    if image.mode == "I" and image.getextrema()[1] > 255:  # type: ignore[operator]  # of one band: two numbers
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.has_transparency_data:
        pictured = image.convert("RGBA")
        white = Image.new("RGBA", pictured.size, "white")
        return Image.alpha_composite(white, pictured).convert("RGB")
    return image.convert("RGB")


_identities: dict[str, tuple[int, int, str]] = {}  # path -> size, time of change, identity


def identity(path: Path) -> str:
    """sha256 of the file's bytes (hex), read once while the file is unchanged: equal for copies under other names.

    Raises BrokenImage where the file is absent or no regular file.
    """
    try:
        state = _state_of(path)
        known = _identities.get(str(path))
        if known is None or known[:2] != (state.st_size, state.st_mtime_ns):
            with path.open("rb") as file:
                known = (state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
            _identities[str(path)] = known
    except FileNotFoundError:
        raise BrokenImage(path, "no such image") from None
    except OSError as error:
        raise BrokenImage(path, f"cannot be read: {error.strerror}") from None
    return known[2]
