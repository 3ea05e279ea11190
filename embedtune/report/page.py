"""A report's Markdown as one HTML file that needs nothing else: no script, no network, styles and pictures inside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from .figures import STYLESHEET
from .markdown import environment
from .wording import MINUS

if TYPE_CHECKING:
    from markdown_it.token import Token

LONG = 60  # characters of a cell; a table with longer ones is one to read, which a narrow screen shows row by row
# A table that a narrow screen shows row by row keeps its roles for screen readers by these attributes alone.
_ROLES = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "th": "columnheader", "td": "cell"}


def page(text: str, figures: Mapping[str, tuple[str, str]], pictures: Mapping[str, str]) -> str:
    """The page of a report. figures: name -> title and SVG; pictures: name -> HTML; each for the images of that name.

    HTML and links in the text have no effect: only images by these names become more than text.
    """
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.disable(["link", "autolink", "reference", "html_inline", "html_block", "code", "lheading"])

    def image(token: Token) -> str:
        name, text = str(token.attrs["src"]), _plain(token)
        if name not in figures:
            return pictures.get(name, escape(text))
        title, svg = figures[name]
        caption = f"<strong>{escape(title)}.</strong>{escape(text.removeprefix(f'{title}.'))}"
        return f"<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"

    tokens = _prepared(reader.parse(text), image)

    def rendered(part: Sequence[Token]) -> str:
        return str(reader.renderer.render(part, reader.options, {}))

    starts = [index for index, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    ends = [*starts[1:], len(tokens)]
    head = tokens[: starts[0] if starts else len(tokens)]
    sections = []
    for start, end in zip(starts, ends, strict=True):
        title = _plain(tokens[start + 1])
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        sections.append({"title": title, "anchor": anchor, "body": rendered(tokens[start + 3 : end])})
    return (
        environment(escape=False)
        .get_template("page.html.jinja")
        .render(
            title=_plain(head[1]),
            subtitle=_plain(head[4]),
            notes=rendered(head[6:]),
            sections=sections,
            style=STYLESHEET.read_text(encoding="utf-8"),
        )
    )


def _plain(token: Token) -> str:
    """The text of an inline token without its marks."""
    return "".join(" " if child.type == "softbreak" else child.content for child in token.children or ())


def _html(content: str) -> Token:
    """A token that is HTML of ours."""
    from markdown_it.token import Token

    return Token("html_block", "", 0, content=content)


def _prepared(tokens: list[Token], image: Callable[[Token], str]) -> list[Token]:
    """The tokens with images in their places, figures side by side, and tables with caption, scopes and roles."""
    prepared: list[Token] = []
    ends = [index for index, token in enumerate(tokens) if token.type == "table_close"]
    for index, token in enumerate(tokens):
        if token.type == "inline":
            token.children = _children(token.children or [], image)
        if token.type == "fence":
            token.attrSet("tabindex", "0")
        if token.type == "paragraph_open" and _all_images(tokens[index + 1]):
            token.tag = tokens[index + 2].tag = "div"
            token.attrSet("class", "figures")
        if token.type == "table_open":
            table = tokens[index : next(end for end in ends if end > index)]
            caption = _caption(prepared)
            _mark_cells(table)
            if any(len(cell.content) > LONG for cell in table):
                token.attrSet("class", "texts")
            label = f'role="region" aria-label="{escape(caption)}" tabindex="0"'
            prepared += [
                _html(f'<div class="scroll" {label}>\n'),
                token,
                _html(f"<caption>{escape(caption)}</caption>\n"),
            ]
        else:
            prepared += [token, _html("</div>\n")] if token.type == "table_close" else [token]
    return prepared


def _caption(prepared: list[Token]) -> str:
    """Takes the bold paragraph before a table out of the tokens; its text is the table's caption."""
    inline = prepared[-2]
    del prepared[-3:]
    return _plain(inline)


def _mark_cells(table: Sequence[Token]) -> None:
    """Says of each cell which row and column it belongs to, and whether it is a number."""
    columns = [_plain(table[index + 1]) for index, token in enumerate(table) if token.type == "th_open"]
    column = 0
    for token in table:
        if token.tag in _ROLES and token.nesting == 1:
            token.attrSet("role", _ROLES[token.tag])
        if token.type == "tr_open":
            column = 0
        if token.type == "th_open":
            token.attrSet("scope", "col")
        if token.type in ("td_open", "td_close") and column == 0:
            token.tag = "th"
        if token.type == "td_open":
            token.attrs |= {"scope": "row", "role": "rowheader"} if column == 0 else {"data-column": columns[column]}
        if token.attrs.pop("style", None):
            token.attrSet("class", "numeric")
        column += token.type in ("td_close", "th_close")


def _all_images(inline: Token) -> bool:
    kinds = {child.type for child in inline.children or ()}
    return "image" in kinds and kinds <= {"image", "softbreak"}


def _children(children: Sequence[Token], image: Callable[[Token], str]) -> list[Token]:
    """The parts of a line, its images replaced, and bold differences coloured by their sign."""
    marked = []
    for index, child in enumerate(children):
        if child.type == "image":
            marked.append(_html(image(child)))
            continue
        if child.type == "strong_open" and (tone := _tone(children[index + 1].content)):
            child.attrSet("class", tone)
        marked.append(child)
    return marked


def _tone(text: str) -> str:
    verdict = re.search(r" (gained|lost) \d\.\d{4} ", text)
    if text.startswith("+") or (verdict and verdict[1] == "gained"):
        return "better"
    return "worse" if text.startswith((MINUS, "over budget")) or verdict else ""
