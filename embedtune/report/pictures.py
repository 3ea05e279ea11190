"""Pictures inside a page: small, bounded, as data."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

SIDE = 96  # pixels of the longer side
MOST_PIXELS = 64_000_000  # of the file, before it is decoded
MOST_BYTES = 1_500_000  # of all pictures of one page


class Pictures:
    """Thumbnails of image files as data URIs, until a page has enough of them."""

    def __init__(self) -> None:
        self._found: dict[Path, str | None] = {}
        self._bytes = 0
        self.left_out = 0

    def of(self, path: Path | None) -> str | None:
        """None where there is no image, where it cannot be opened, and where the page is full (counted)."""
        if path is None:
            return None
        if path not in self._found:
            uri = thumbnail(path) if self._bytes < MOST_BYTES else None
            self._found[path] = uri
            self._bytes += len(uri or "")
            self.left_out += uri is None
        return self._found[path]


def thumbnail(path: Path) -> str | None:
    """At most 96 pixels high and wide, as WebP; None for what is no image, or too large to decode."""
    from PIL import Image, UnidentifiedImageError

    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            if image.width * image.height > MOST_PIXELS:
                return None
            image.draft("RGB", (SIDE, SIDE))
            small = image.convert("RGBA") if "A" in image.getbands() or image.mode == "P" else image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            small.save(buffer, format="WEBP", quality=80)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError):
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
