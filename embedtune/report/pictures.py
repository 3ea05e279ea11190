"""Pictures made small: for pages, as data, and for contact sheets."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from ..data.images import BrokenImage, open_image

SIDE = 96  # pixels of the longer side
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


def small(path: Path, side: int, *, enlarge: bool = False) -> Image.Image:
    """The picture as a model is shown it, at most so many pixels high and wide. Raises BrokenImage."""
    image = open_image(path)
    scale = side / max(image.size)
    if scale >= 1 and not enlarge:
        return image
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)


def thumbnail(path: Path) -> str | None:
    """At most 96 pixels high and wide, as WebP; None for what is no image, or too large to decode."""
    try:
        image = small(path, SIDE)
    except BrokenImage:
        return None
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
