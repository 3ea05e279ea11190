"""Contact sheets: items side by side in one picture, each a thumbnail or its text, with a heading and a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ExifTags, Image, ImageDraw, ImageFont, UnidentifiedImageError

from ..data.images import BrokenImage
from ..errors import InputError
from ..files import FileKind, check_file, whole_file
from ..negatives.audit import Audit
from ..search.folder import SearchResult
from ..types import Dataset, Item, Qrels
from .pictures import small

FORMS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_ROWS, MOST_ACROSS = 40, 10  # of one line each, a sheet is below 2,300 pixels wide and 16,000 high
MOST_RESULTS = 5 * MOST_ACROSS  # of one query; of several queries each has one line
MARGIN, GAP, PAD = 24, 12, 8
SIDE, LARGE_SIDE, FEW = 168, 320, 3  # pixels of a picture's longer side; the large one where so few are in a line
SMALL, LARGE = 13, 17  # pixels of the letters
LINE = 17  # pixels from line to line of small letters
STEPS = {SMALL: LINE, LARGE: LINE + 5}
CAPTION = 2  # lines
TITLE = 40  # pixels of the line above everything
INK, FAINT, LINES, PAPER, ASKED, RIGHT = "#1f2328", "#6e7781", "#d0d7de", "#f6f8fa", "#eaf2ff", "#1a7f37"
DOTS = " ..."  # where a text is cut
DEJAVU = "DejaVuSans.ttf"


@dataclass(frozen=True)
class Card:
    """One item of a sheet. marked: framed as relevant."""

    heading: str
    item: Item
    marked: bool = False

    @property
    def caption(self) -> str:
        """Of a picture its text, or its id, or its file's name; of a text its id."""
        name = self.item.id if self.item.id != self.heading else ""
        if self.item.image is None:
            return name
        return self.item.content or name or self.item.image.name


@dataclass(frozen=True)
class Row:
    """A card that stands apart on the left, such as a query, and the cards that belong to it."""

    first: Card
    others: Sequence[Card]


def rows_of_search(
    queries: Sequence[Item], results: Sequence[Sequence[SearchResult]], qrels: Qrels | None = None
) -> list[Row]:
    """A row for each query: its results with rank and score; those judged relevant are marked."""
    most = MOST_RESULTS if len(queries) == 1 else MOST_ACROSS
    rows = []
    for query, listed in zip(queries, results, strict=True):
        grades = (qrels or {}).get(query.id, {})
        cards = [
            Card(f"{result.rank}.  {result.score:.3f}", result.document, grades.get(result.document.id, 0) > 0)
            for result in listed[:most]
        ]
        rows.append(Row(Card("query", query), cards))
    return rows


def rows_of_suspects(audit: Audit, dataset: Dataset) -> list[Row]:
    """A row for each suspect: its query, the lowest positive of that query, and the suspect, each with its score."""
    rows = []
    for suspect in (listed.candidate for listed in audit.suspects):
        positive = Card(f"positive  {suspect.positive_reference:.3f}", dataset.corpus[suspect.positive_id], True)
        dropped = Card(f"suspect  {suspect.reference:.3f}", dataset.corpus[suspect.doc_id])
        rows.append(Row(Card("query", dataset.queries[suspect.query_id]), [positive, dropped]))
    return rows


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

    Texts are cut to their boxes. Letters that no font here has are drawn as boxes.
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
        for index, card in enumerate(row.others):
            left = MARGIN + card_width + 2 * GAP + index % across * (card_width + GAP)
            missing += _draw(sheet, (left, top + index // across * step), side, card)
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
    """How many cards are in a line: of several rows each is one line, a single one is folded to about two."""
    return max(1, others if rows > 1 or others <= MOST_ACROSS // 2 + 1 else -(-others // 2))


def _draw(sheet: Image.Image, corner: tuple[int, int], side: int, card: Card) -> list[str]:
    """Draws a card; returns why its picture is missing, if it is."""
    missing = []
    left, top = corner[0] + PAD, corner[1] + PAD
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top), one_line(card.heading, SMALL, side), fill=FAINT, font=font_of(SMALL))
    top += LINE + 2
    box = (left, top, left + side, top + side)
    image, words = card.item.image, card.item.content
    if image is not None:
        try:
            picture = small(image, side, enlarge=True)
        except BrokenImage as fault:
            missing.append(str(fault))
            words = f"[{image.name}: {fault.reason}]"
        else:
            words = ""
            pen.rectangle(box, fill="white")
            sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
    if words:
        pen.rectangle(box, fill=PAPER)
        inner = side - 2 * PAD
        lines = wrapped(words, LARGE, inner, inner // STEPS[LARGE])
        size = SMALL if lines and lines[-1].endswith(DOTS) else LARGE
        _write(pen, (left + PAD, top + PAD), wrapped(words, size, inner, inner // STEPS[size]), size)
    colour, edge = (RIGHT, 3) if card.marked else (LINES, 1)
    pen.rectangle((left - edge, top - edge, left + side + edge, top + side + edge), None, colour, edge)
    caption = wrapped(card.caption, SMALL, side, CAPTION)
    _write(pen, (left, top + side + 6), caption, SMALL, RIGHT if card.marked else INK)
    return missing


def _write(
    pen: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], size: int, colour: str = INK
) -> None:
    for index, line in enumerate(lines):
        pen.text((corner[0], corner[1] + index * STEPS[size]), line, fill=colour, font=font_of(size))


def wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """The text in at most `most` lines of `width` pixels; the last one ends in dots where it is not the whole text."""
    font = font_of(size)
    legible = " ".join(text[: width * most].encode("utf-8", "replace").decode().split())
    letters = int(1.3 * width * len(legible) / max(1, font.getlength(legible)))
    lines: list[str] = []
    for count in range(max(letters, 5), 4, -1):
        lines = textwrap.wrap(legible, count, max_lines=most, placeholder=DOTS)
        if all(font.getlength(line) <= width for line in lines):
            break
    return lines


def one_line(text: str, size: int, width: int) -> str:
    """As much of the text as fits."""
    return "".join(wrapped(text, size, width, 1))


@cache
def font_of(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The letters, `size` pixels high: DejaVu Sans, for Latin, Greek, Cyrillic and more, of the system or of
    matplotlib; else Pillow's own, which has ASCII alone."""
    spec = find_spec("matplotlib")
    folders = (spec.submodule_search_locations if spec else None) or []
    for name in (DEJAVU, *(f"{folder}/mpl-data/fonts/ttf/{DEJAVU}" for folder in folders)):
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)
