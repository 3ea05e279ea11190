"""Contact sheets: items side by side in one picture, each a thumbnail or its text, with a heading and a caption."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..data.images import BrokenImage
from ..errors import InputError
from ..files import whole_file
from ..types import Item
from .pictures import small

FORMS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_ROWS, MOST_ACROSS = 40, 8  # a sheet stays within some 9,000 x 1,800 pixels
MARGIN, GAP, PAD = 24, 12, 8
SIDE = 168  # pixels of a picture's longer side
LINE, SMALL, LARGE = 17, 13, 17  # pixels: from line to line, and of the letters
CAPTION = 2  # lines
CARD = (SIDE + 2 * PAD, 2 * PAD + LINE + SIDE + 4 + CAPTION * LINE)
DOTS = " ..."  # where a text is cut
TITLE = 40  # pixels of the line above everything
INK, FAINT, LINES, PAPER, ASKED, RIGHT = "#1f2328", "#6e7781", "#d0d7de", "#f6f8fa", "#eaf2ff", "#1a7f37"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One item of a sheet. name: its caption, where a picture stands for it. marked: framed, as what is right."""

    heading: str
    item: Item
    marked: bool = False

    @property
    def name(self) -> str:
        named = self.item.id if self.item.id != self.heading else ""
        if self.item.image is None:
            return named
        return self.item.content or named or self.item.image.name


@dataclass(frozen=True, kw_only=True)
class Row:
    """What stands apart on the left, such as a query, and what belongs to it."""

    first: Card
    others: Sequence[Card]


def refuse(path: Path, *, overwrite: bool = False) -> None:
    """Raises InputError for a file that a sheet cannot be written as, and for one that is there."""
    if path.suffix.lower() not in FORMS:
        raise InputError(f"--sheet {path}: expected a name that ends in {', '.join(FORMS)}")
    if path.exists() and not overwrite:
        raise InputError(f"--sheet {path}: exists already; choose another name")


def write_sheet(path: Path, title: str, rows: Sequence[Row]) -> list[str]:
    """Draws the rows one below the other, 40 at most, long ones in several lines; returns why pictures are missing.

    Texts are cut to their places. Letters that no font here has are drawn as boxes.
    """
    shown = rows[:MOST_ROWS]
    if len(rows) > len(shown):
        title = f"{title} (the first {len(shown)} of {len(rows):,})"
    across = min(MOST_ACROSS, max(_across(len(row.others), len(shown)) for row in shown))
    lines = [max(1, -(-len(row.others) // across)) for row in shown]
    step = CARD[1] + GAP
    width = 2 * MARGIN + (across + 1) * (CARD[0] + GAP)
    sheet = Image.new("RGB", (width, TITLE + 2 * MARGIN + sum(lines) * step - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), _one_line(title, LARGE, width - 2 * MARGIN), fill=INK, font=_font(LARGE))
    missing: list[str] = []
    top = MARGIN + TITLE
    for row, count in zip(shown, lines, strict=True):
        height = count * step - GAP
        pen.rounded_rectangle((MARGIN, top, MARGIN + CARD[0], top + height), 6, fill=ASKED)
        _draw(sheet, (MARGIN, top), row.first, missing)
        for place, card in enumerate(row.others):
            left = MARGIN + CARD[0] + 2 * GAP + place % across * (CARD[0] + GAP)
            _draw(sheet, (left, top + place // across * step), card, missing)
        top += count * step
    with whole_file(path) as temporary:
        sheet.save(temporary, format=FORMS[path.suffix.lower()])
    return missing


def _across(others: int, rows: int) -> int:
    """Of several rows each has a line; a single one is folded to about two lines."""
    return max(1, others if rows > 1 or others <= MOST_ACROSS // 2 + 1 else -(-others // 2))


def _draw(sheet: Image.Image, corner: tuple[int, int], card: Card, missing: list[str]) -> None:
    left, top = corner[0] + PAD, corner[1] + PAD
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top), _one_line(card.heading, SMALL, SIDE), fill=FAINT, font=_font(SMALL))
    top += LINE + 2
    box = (left, top, left + SIDE, top + SIDE)
    words = card.item.content
    if card.item.image is not None:
        try:
            picture = small(card.item.image, SIDE, enlarge=True)
        except BrokenImage as fault:
            missing.append(str(fault))
            words = f"[{card.item.image.name}: {fault.reason}]"
        else:
            pen.rectangle(box, fill="white")
            sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
            words = ""
    if words:
        pen.rectangle(box, fill=PAPER)
        _write_within(pen, box, words)
    edge = (RIGHT, 3) if card.marked else (LINES, 1)
    pen.rectangle((box[0] - edge[1], box[1] - edge[1], box[2] + edge[1], box[3] + edge[1]), None, *edge)
    for number, line in enumerate(_wrapped(card.name, SMALL, SIDE, CAPTION)):
        place = (left, top + SIDE + 6 + number * LINE)
        pen.text(place, line, fill=RIGHT if card.marked else INK, font=_font(SMALL))


def _write_within(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], words: str) -> None:
    """The words in a box, in large letters where they have room."""
    side = SIDE - 2 * PAD
    lines = _wrapped(words, LARGE, side, side // (LINE + 5))
    size, line_height = (LARGE, LINE + 5) if not _is_cut(lines) else (SMALL, LINE)
    for number, line in enumerate(lines if size == LARGE else _wrapped(words, SMALL, side, side // LINE)):
        place = (box[0] + PAD, box[1] + PAD + number * line_height)
        pen.text(place, line, fill=INK, font=_font(size))


def _wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """The text in at most so many lines of so many pixels; a word that is wider than a line is broken."""
    font, words = _font(size), _legible(text, width * most).split()
    lines: list[str] = []
    while words and len(lines) < most:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        fits = _fitting(line, font, width)
        if fits < len(line):
            words.insert(0, line[fits:])
        lines.append(line[:fits])
    if words and lines:
        lines[-1] = _cut(f"{lines[-1]} {words[0]}", font, width)
    return lines


def _is_cut(lines: Sequence[str]) -> bool:
    return bool(lines) and lines[-1].endswith(DOTS)


def _one_line(text: str, size: int, width: int) -> str:
    """As much of the text as fits."""
    font, words = _font(size), _legible(text, width)
    return words if font.getlength(words) <= width else _cut(words, font, width)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    return text[: _fitting(text, font, int(width - font.getlength(DOTS)))].rstrip() + DOTS


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> int:
    """How many of its first letters fit, at least one."""
    fits = len(text)
    while fits > 1 and font.getlength(text[:fits]) > width:
        fits -= 1
    return fits


def _legible(text: str, most: int) -> str:
    """One line without what cannot be drawn, cut far beyond its place. Accents go where the font has none."""
    cut = " ".join(text[:most].encode("utf-8", "replace").decode().split())
    if _found() is not None:
        return cut
    return "".join(letter for letter in unicodedata.normalize("NFKD", cut) if not unicodedata.combining(letter))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
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
            ImageFont.truetype(name, SMALL)
        except OSError:
            continue
        return name
    return None
