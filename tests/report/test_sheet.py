"""Contact sheets: pictures, texts and marks stand where they should; bad pictures and odd letters do no harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from pictures import BROKEN
from PIL import Image

from embedtune.errors import InputError
from embedtune.report import sheet as sheets
from embedtune.report.sheet import (
    GAP,
    LARGE_SIDE,
    MARGIN,
    PAD,
    RIGHT,
    SIDE,
    TITLE,
    Card,
    Row,
    card_size,
    font_of,
    one_line,
    refuse,
    wrapped,
    write_sheet,
)
from embedtune.types import Item

COLOURS = [(200, 30, 30), (30, 160, 50), (40, 70, 220)]


@pytest.fixture
def cards(tmp_path: Path) -> list[Card]:
    """A wide, a high and a tiny picture of one colour each."""
    made = []
    for name, colour, size in zip("abc", COLOURS, [(400, 100), (100, 400), (3, 3)], strict=True):
        Image.new("RGB", size, colour).save(tmp_path / f"{name}.png")
        made.append(Card(name, Item(id=name, image=tmp_path / f"{name}.png"), name == "b"))
    return made


def middle(column: int, line: int, side: int = SIDE) -> tuple[int, int]:
    """Of a card's thumbnail: column 0 is the row's first card."""
    width, height = card_size(side)
    left = MARGIN + PAD + (width + 2 * GAP + (column - 1) * (width + GAP) if column else 0)
    return left + side // 2, MARGIN + TITLE + PAD + 19 + side // 2 + line * (height + GAP)


def colours_of(image: Image.Image, box: tuple[int, int, int, int]) -> set[tuple[int, ...]]:
    return {colour for _, colour in image.crop(box).getcolors(1_000_000) or []}  # type: ignore[misc]


def test_a_row_is_drawn_from_left_to_right(cards: list[Card], tmp_path: Path) -> None:
    words = Card("query", Item(id="q", text="three colours"))
    missing = write_sheet(tmp_path / "s.png", "Colours", [Row(words, cards), Row(cards[2], [])])
    assert missing == []
    sheet = Image.open(tmp_path / "s.png")
    for column, colour in enumerate(COLOURS, start=1):
        assert sheet.getpixel(middle(column, 0, LARGE_SIDE)) == colour
    assert sheet.getpixel(middle(0, 1, LARGE_SIDE)) == COLOURS[2]
    x, y = middle(1, 0, LARGE_SIDE)
    assert sheet.getpixel((x - LARGE_SIDE // 2 + 1, y)) == COLOURS[0]  # 400 x 100 fills the width
    assert sheet.getpixel((x, y - LARGE_SIDE // 4)) == (255, 255, 255)  # and not the height
    right = tuple(int(RIGHT[n : n + 2], 16) for n in (1, 3, 5))
    for column, framed in ((1, False), (2, True), (3, False)):
        x, y = middle(column, 0, LARGE_SIDE)
        assert (sheet.getpixel((x, y - LARGE_SIDE // 2 - 2)) == right) == framed


def test_a_long_row_is_folded_and_many_rows_are_not(cards: list[Card], tmp_path: Path) -> None:
    words = Card("query", Item(id="q", text="colours"))
    write_sheet(tmp_path / "one.png", "one", [Row(words, cards * 4)])
    write_sheet(tmp_path / "two.png", "two", [Row(words, cards * 3)] * 2)
    one, two = Image.open(tmp_path / "one.png"), Image.open(tmp_path / "two.png")
    assert one.getpixel(middle(6, 1)) == COLOURS[2]  # the 12th of 12 in two lines of 6
    assert two.getpixel(middle(9, 1)) == COLOURS[2]
    assert one.height == two.height


def test_a_sheet_is_bounded(cards: list[Card], tmp_path: Path) -> None:
    rows = [Row(cards[0], cards[1:])] * 60
    write_sheet(tmp_path / "s.webp", "sixty", rows)
    with Image.open(tmp_path / "s.webp") as sheet:
        width, height = card_size(LARGE_SIDE)
        assert sheet.size == (2 * MARGIN + 3 * (width + GAP), 40 * (height + GAP) + 76)  # WebP ends at 16,383


def test_pictures_that_cannot_be_read_are_said_and_drawn_as_words(cards: list[Card], tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BROKEN["bomb.png"][0]())
    gone = [Card("1.", Item(id=name, image=tmp_path / name)) for name in ("bomb.png", "nowhere.png")]
    missing = write_sheet(tmp_path / "s.png", "gone", [Row(cards[0], gone)])
    assert [fault.split(": ")[0] for fault in missing] == [str(tmp_path / "bomb.png"), str(tmp_path / "nowhere.png")]
    assert "more than 80,000,000 pixels" in missing[0]
    drawn = Image.open(tmp_path / "s.png")
    x, y = middle(2, 0, LARGE_SIDE)
    assert len(colours_of(drawn, (x - 150, y - 150, x + 150, y + 150))) > 2  # paper and ink


@pytest.mark.parametrize("font", ["found", "pillow"])
@pytest.mark.parametrize(
    "text", ["", " ", "日本語 عربي 🦊", "Straße läßt naïve", "\ud800\x00\n\t", "x" * 5000, "a b " * 900]
)
def test_any_text_keeps_to_its_place(font: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if font == "pillow":
        monkeypatch.setattr(sheets, "find_spec", lambda name: None)
        monkeypatch.setattr(sheets, "DEJAVU", "no-such-font.ttf")
        font_of.cache_clear()
    try:
        lines = wrapped(text, 13, 120, 3)
        assert len(lines) <= 3
        assert all(font_of(13).getlength(line) <= 120 for line in [*lines, one_line(text, 13, 120)])
        card = Card(text, Item(id=text, title=text, text=text))
        assert write_sheet(tmp_path / "s.jpg", text, [Row(card, [card])]) == []
    finally:
        font_of.cache_clear()


def test_words_are_wrapped_whole_and_dots_show_that_some_are_left_out() -> None:
    width = int(font_of(13).getlength("the quick brown")) + 2
    assert wrapped("the quick brown fox jumps", 13, width, 3) == ["the quick brown", "fox jumps"]
    first, second = wrapped("the quick brown fox jumps over the lazy dog", 13, width, 2)
    assert first == "the quick brown"
    assert second.startswith("fox")
    assert second.endswith(" ...")


def test_a_long_identifier_is_broken_at_a_hyphen() -> None:
    width = int(font_of(13).getlength("two-women-holding-ha")) + 1
    assert wrapped("two-women-holding-hands", 13, width, 2) == ["two-women-holding-", "hands"]
    assert wrapped("w" * 30, 13, width, 9)[0].startswith("ww")


def test_a_sheet_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--sheet s\.gif: expected a name that ends in \.png, \.jpg, \.jpeg, \.webp"):
        refuse(Path("s.gif"))
    (tmp_path / "s.png").touch()
    with pytest.raises(
        InputError, match=r"s\.png: exists already; choose another --sheet, or replace it with --overwrite"
    ):
        refuse(tmp_path / "s.png")
    refuse(tmp_path / "s.png", overwrite=True)
