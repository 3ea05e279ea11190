"""Pictures made small: as data within a page, and for contact sheets."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ..data.images import BrokenImage, open_image
from .wording import plural

if TYPE_CHECKING:
    from markupsafe import Markup

SIDE = 96  # pixels of a thumbnail's longer side
MOST_BYTES = 1_500_000  # of all thumbnails of one page


class Thumbnails:
    """The pictures of one report: their references in the Markdown, and what a page puts in the place of each."""

    def __init__(self, *, wanted: bool) -> None:
        self.html: dict[str, str] = {}
        self._wanted, self._bytes, self._left_out = wanted, 0, 0
        self._references: dict[Path, str] = {}

    def __call__(self, path: str | Path | None) -> Markup:
        """A Markdown image; empty where there is no picture, where it cannot be opened and where the page is full."""
        from markupsafe import Markup

        if path is None or not self._wanted:
            return Markup("")
        image = Path(path)
        if image not in self._references:
            self._references[image] = self._add(image)
        return Markup(self._references[image])

    @property
    def notes(self) -> list[str]:
        pictures = plural(self._left_out, "picture")
        return [f"{pictures} left out: damaged, or the page has enough of them."] if self._left_out else []

    def _add(self, image: Path) -> str:
        uri = thumbnail(image) if self._bytes < MOST_BYTES else None
        if uri is None:
            self._left_out += 1
            return ""
        self._bytes += len(uri)
        name = f"picture-{len(self.html)}"
        self.html[name] = f'<img class="thumbnail" src="{uri}" alt="The picture itself">'
        return f"![]({name}) "


def small(path: Path, side: int, *, enlarge: bool = False) -> Image.Image:
    """The picture as a model is shown it, at most `side` pixels high and wide. Raises BrokenImage."""
    image = open_image(path)
    if max(image.size) <= side and not enlarge:
        return image
    return ImageOps.contain(image, (side, side), Image.Resampling.LANCZOS)


def thumbnail(path: Path, side: int = SIDE) -> str | None:
    """A data URI, WebP of at most `side` pixels high and wide; None for a file that cannot be opened as an image."""
    try:
        image = small(path, side)
    except BrokenImage:
        return None
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
