"""Contact sheets: items side by side in one picture, each a thumbnail or its text, with a heading and a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageDraw, UnidentifiedImageError

from ..data.images import BrokenImage
from ..errors import InputError
from ..files import FileKind, check_file, whole_file
from ..types import Item
from .lettering import font_of, is_cut, one_line, wrapped
from .pictures import small

FORMS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_ROWS, MOST_ACROSS = 40, 10  # of one line each, a sheet is below 2,300 pixels wide and 16,000 high
MARGIN, GAP, PAD = 24, 12, 8
SIDE, LARGE_SIDE, FEW = 168, 320, 3  # pixels of a picture's longer side; where so few are beside each other
LINE, SMALL, LARGE = 17, 13, 17  # pixels: from line to line, and of the letters
CAPTION = 2  # lines
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


def _is_sheet(path: Path) -> bool:
    """Whether the picture says that a sheet was written as it."""
    try:
        with Image.open(path, formats=sorted(set(FORMS.values()))) as picture:
            return bool(picture.getexif().get(ExifTags.Base.Software) == SOFTWARE)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
        return False


SOFTWARE = "embedtune contact sheet"
SHEET = FileKind(verb="... --sheet", wrote=_is_sheet)


def refuse(path: Path, *, overwrite: bool = False) -> None:
    """Raises InputError for a file that a sheet cannot be written as, or that may not be replaced."""
    if path.suffix.lower() not in FORMS:
        raise InputError(f"--sheet {path}: expected a name that ends in {', '.join(FORMS)}")
    check_file(path, SHEET, overwrite=overwrite, option="--sheet")


def write_sheet(path: Path, title: str, rows: Sequence[Row]) -> list[str]:
    """Draws the rows one below the other, 40 at most, long ones in several lines; returns why pictures are missing.

    Texts are cut to their places. Letters that no font here has are drawn as boxes.
    """
    shown = rows[:MOST_ROWS]
    if len(rows) > len(shown):
        title = f"{title} (the first {len(shown)} of {len(rows):,})"
    across = min(MOST_ACROSS, max((_across(len(row.others), len(shown)) for row in shown), default=1))
    lines = [max(1, -(-len(row.others) // across)) for row in shown]
    side = LARGE_SIDE if across <= FEW else SIDE
    card_width, card_height = card_size(side)
    step = card_height + GAP
    width = 2 * MARGIN + (across + 1) * (card_width + GAP)
    sheet = Image.new("RGB", (width, TITLE + 2 * MARGIN + sum(lines) * step - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 6), one_line(title, LARGE, width - 2 * MARGIN), fill=INK, font=font_of(LARGE))
    missing: list[str] = []
    top = MARGIN + TITLE
    for row, count in zip(shown, lines, strict=True):
        height = count * step - GAP
        pen.rounded_rectangle((MARGIN, top, MARGIN + card_width, top + height), 6, fill=ASKED)
        missing += _draw(sheet, (MARGIN, top), side, row.first)
        for place, card in enumerate(row.others):
            left = MARGIN + card_width + 2 * GAP + place % across * (card_width + GAP)
            missing += _draw(sheet, (left, top + place // across * step), side, card)
        top += count * step
    with whole_file(path) as temporary:
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = SOFTWARE
        sheet.save(temporary, format=FORMS[path.suffix.lower()], exif=exif)
    return missing


def card_size(side: int) -> tuple[int, int]:
    """Width and height of a card: a heading, a picture of that side, a caption."""
    return side + 2 * PAD, 2 * PAD + LINE + side + 4 + CAPTION * LINE


def _across(others: int, rows: int) -> int:
    """Of several rows each has a line; a single one is folded to about two lines."""
    return max(1, others if rows > 1 or others <= MOST_ACROSS // 2 + 1 else -(-others // 2))


def _draw(sheet: Image.Image, corner: tuple[int, int], side: int, card: Card) -> list[str]:
    """Draws a card; returns why its picture is missing, if it is."""
    missing = []
    left, top = corner[0] + PAD, corner[1] + PAD
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top), one_line(card.heading, SMALL, side), fill=FAINT, font=font_of(SMALL))
    top += LINE + 2
    box = (left, top, left + side, top + side)
    words = card.item.content
    if card.item.image is not None:
        try:
            picture = small(card.item.image, side, enlarge=True)
        except BrokenImage as fault:
            missing.append(str(fault))
            words = f"[{card.item.image.name}: {fault.reason}]"
        else:
            pen.rectangle(box, fill="white")
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
            words = ""
    if words:
        pen.rectangle(box, fill=PAPER)
        _write_within(pen, box, words)
    edge = (RIGHT, 3) if card.marked else (LINES, 1)
    pen.rectangle((box[0] - edge[1], box[1] - edge[1], box[2] + edge[1], box[3] + edge[1]), None, *edge)
    for number, line in enumerate(wrapped(card.name, SMALL, side, CAPTION)):
        place = (left, top + side + 6 + number * LINE)
        pen.text(place, line, fill=RIGHT if card.marked else INK, font=font_of(SMALL))
    return missing


def _write_within(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], words: str) -> None:
    """The words in a box, in large letters where they have room."""
    side = box[2] - box[0] - 2 * PAD
    lines = wrapped(words, LARGE, side, side // (LINE + 5))
    size, line_height = (LARGE, LINE + 5) if not is_cut(lines) else (SMALL, LINE)
    for number, line in enumerate(lines if size == LARGE else wrapped(words, SMALL, side, side // LINE)):
        place = (box[0] + PAD, box[1] + PAD + number * line_height)
        pen.text(place, line, fill=INK, font=font_of(size))
