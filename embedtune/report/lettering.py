"""Words in a picture: what a font can draw, in so many lines of so many pixels."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path

from PIL import ImageFont

from ..errors import InputError

DOTS = " ..."  # where a text is cut
SEAMS = "-/_."
_PROBE = 13  # pixels; any size finds out whether a font is there


def wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """The text in at most so many lines of so many pixels; a word that is wider than a line is broken, at
    best where identifiers and paths have a seam."""
    font, words = font_of(size), _legible(text, width * most).split()
    lines: list[str] = []
    while words and len(lines) < most:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        fits = _fitting(line, font, width)
        if fits < len(line):
            after = 1 + max(line.rfind(mark, 0, fits) for mark in SEAMS)
            fits = after if after > fits // 2 else fits
            words.insert(0, line[fits:])
        lines.append(line[:fits])
    if words and lines:
        lines[-1] = _cut(f"{lines[-1]} {words[0]}", font, width)
    return lines


def is_cut(lines: Sequence[str]) -> bool:
    """Whether `wrapped` left something out."""
    return bool(lines) and lines[-1].endswith(DOTS)


def one_line(text: str, size: int, width: int) -> str:
    """As much of the text as fits."""
    font, words = font_of(size), _legible(text, width)
    return words if font.getlength(words) <= width else _cut(words, font, width)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    return text[: _fitting(text, font, int(width - font.getlength(DOTS)))].rstrip() + DOTS


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many of its first letters fit, at least one."""
    counts = range(1, len(text) + 1)
    return max(1, bisect_right(counts, width, key=lambda count: ceil(font.getlength(text[:count]))))


def _legible(text: str, most: int) -> str:
    """One line without what cannot be drawn, cut far beyond its place. Accents go where the font has none."""
    cut = " ".join(text[:most].encode("utf-8", "replace").decode().split())
    if _found() is not None:
        return cut
    return "".join(letter for letter in unicodedata.normalize("NFKD", cut) if not unicodedata.combining(letter))


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """The letters, so many pixels high. Raises InputError where Pillow has no scalable font."""
    found = _found()
    if found is not None:
        return ImageFont.truetype(found, size)
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise InputError("this Pillow was built without FreeType and cannot draw a sheet; pip install pillow")
    return font


@cache
def _found() -> str | None:
    """DejaVu Sans, for Latin, Greek, Cyrillic and more: the system's or matplotlib's. Pillow's own has ASCII alone."""
    spec = find_spec("matplotlib")
    inside = [
        Path(place) / "mpl-data/fonts/ttf/DejaVuSans.ttf" for place in (spec and spec.submodule_search_locations) or ()
    ]
    for name in ["DejaVuSans.ttf", *map(str, inside)]:
        try:
            ImageFont.truetype(name, _PROBE)
        except OSError:
            continue
        return name
    return None
