"""A document as Markdown, for a model card or a pull request. Figures are left out: the tables hold their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .document import Block, Cell, Code, Document, Exhibits, Facts, Figures, Section, Table, Text, Verdicts


def to_markdown(document: Document) -> str:
    """Headings from `#` on, GitHub's tables."""
    parts = [f"# {escaped(document.title)}", document.subtitle]
    parts += ["\n".join(f"- {escaped(note)}" for note in document.notes)] if document.notes else []
    return "\n\n".join([*parts, *map(_section, document.sections)]) + "\n"


def _section(section: Section) -> str:
    return "\n\n".join([f"## {section.title}", *(part for block in section.blocks if (part := _block(block)))])


def _block(block: Block) -> str:
    match block:
        case Text():
            return block.text
        case Facts():
            return "\n".join(f"- **{name}**: {escaped(text)}" for name, text in block.rows)
        case Table():
            return table(block.columns, block.rows, block.numeric)
        case Code():
            return f"```{block.language}\n{block.text.rstrip()}\n```"
        case Verdicts():
            return "\n".join(
                f"- **{v.dataset}** ({v.domain}): {v.measure} {v.before} -> {v.after}, {v.difference}"
                + (f" ({v.interval})" if v.interval else "")
                + f": {v.said}"
                for v in block.verdicts
            )
        case Exhibits():
            return "\n\n".join(
                f"**{escaped(exhibit.heading)}**\n\n"
                + "\n".join(f"- {label}: {escaped(cell.text)}" for label, cell in exhibit.parts)
                for exhibit in block.exhibits
            )
        case Figures():
            return ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], numeric: frozenset[int] = frozenset()) -> str:
    """A table with a line a row; what would break it is escaped."""
    rules = ["---:" if place in numeric else "---" for place in range(len(columns))]
    texts = [[escaped(cell.text if isinstance(cell, Cell) else cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(columns), rules, *texts])


def escaped(text: str) -> str:
    """Somebody's words on one line, without an effect on the layout."""
    return re.sub(r"([\\`*\[\]|]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
