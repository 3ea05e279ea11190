"""Opens images: bounded before they are decoded, upright, RGB; and tells them apart by their bytes.

Imports neither torch nor numpy, so that processes that only decode start at once.
"""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError

# What is read. Others that Pillow knows call programs (EPS) or are no pictures.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
MOST_PIXELS = 80_000_000  # 240 MB once decoded; Pillow itself warns at 89 million
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


class BrokenImage(InputError):
    """A file that cannot be read as an image. `reason` is the message without the file."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def open_image(path: Path) -> Image.Image:
    """The picture, decoded, as RGB: turned as its EXIF says, transparency on white, the first frame of an animation.

    16-bit grey keeps its upper 8 bits; CMYK is converted. Raises BrokenImage for a file that is not there, is no image,
    is cut short, or has more than 80 million pixels (known from its header, before anything is decoded).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and large sizes: both are judged here
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise BrokenImage(path, f"{width:,} x {height:,} pixels are more than {MOST_PIXELS:,}")
                image.load()
                return _as_rgb(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise BrokenImage(path, _reason(error)) from None


def fault_of(path: Path) -> str | None:
    """Why the file cannot be read as an image, or None. Decodes it whole: only that finds one that is cut short."""
    try:
        open_image(path)
    except BrokenImage as fault:
        return fault.reason
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such image"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image (of {', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):  # Pillow's own bound is checked first, at twice the size
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
    """sha256 of the file's bytes (hex): the same picture under two names is the same. Read once while it is unchanged.

    Raises BrokenImage where it is not there.
    """
    try:
        state = path.stat()
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
