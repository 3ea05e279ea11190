"""A report as a document: sections of texts, tables and figures, which HTML and Markdown each write in their way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["", "better", "worse"]


@dataclass(frozen=True)
class Cell:
    """What a table's cell shows. tone: how it is meant, beside what its text says. picture: a data URI."""

    text: str
    tone: Tone = ""
    picture: str | None = None


@dataclass(frozen=True)
class Text:
    """A paragraph; what stands between backquotes is code."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    rows: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first column names the row. numeric: the columns that are set right. texts: whether it is one to read, which
    a narrow screen shows row by row."""

    caption: str
    columns: list[str]
    rows: Sequence[Sequence[str | Cell]]
    numeric: frozenset[int] = frozenset()
    texts: bool = False


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with what it shows in words, for those who do not see it."""

    svg: str
    title: str
    text: str


@dataclass(frozen=True)
class Figures:
    """Figures that stand side by side where there is room."""

    figures: list[Figure]


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str
    language: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One dataset at a glance."""

    dataset: str
    domain: str
    measure: str
    before: str
    after: str
    difference: str
    interval: str
    said: str
    tone: Tone


@dataclass(frozen=True)
class Verdicts:
    verdicts: list[Verdict]


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """One thing to look at: a heading, and parts beside their labels."""

    heading: str
    parts: list[tuple[str, Cell]]


@dataclass(frozen=True)
class Exhibits:
    exhibits: list[Exhibit]


Block = Text | Facts | Table | Figures | Code | Verdicts | Exhibits


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True, kw_only=True)
class Document:
    """notes: what a reader must know before the figures: what is missing, how it was compared."""

    title: str
    subtitle: str
    sections: list[Section]
    notes: list[str] = field(default_factory=list)


def number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """With its sign, a true minus; what rounds to nothing has none."""
    if value is None:
        return ""
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "\N{MINUS SIGN}")


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"


def probability(p: float | None) -> str:
    """As it is usually printed: three digits, and nothing below one in a thousand."""
    return "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def plural(count: int, noun: str) -> str:
    """`1 query`, `2 processes`, `1,500 documents`."""
    many = f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else many}"


def shortened(text: str, most: int = 240) -> str:
    words = " ".join(text.split())
    return words if len(words) <= most else words[:most].rpartition(" ")[0] + " ..."
