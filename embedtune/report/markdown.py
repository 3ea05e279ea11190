"""Reports as Markdown: the templates, how numbers are printed, and how text of the data is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import wording

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

INSTALL = "pip install 'embedtune[plots]'"
TEMPLATES = Path(__file__).parent
MARK = "<!-- embedtune report -->"  # in files of this package, which may then be replaced
# Terminals act on control characters, overrides of the writing direction mislead readers, and no encoding has
# halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Characters with a meaning anywhere in a line: code, emphasis, links, tables, formulas, HTML, entities.
_INLINE = re.compile(r"([\\`*\[\]|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<= )#(?=#*$))")
# Characters that make a list, a heading, a quotation or a rule where a line begins with them; no signed number does.
_AT_START = re.compile(r"^(\d+(?=[.)](?: |$)))?([-+](?!\d)|[#>=.)])")


def need(package: str, purpose: str) -> None:
    """Raises InputError where a package of the extra `plots` is not installed."""
    if find_spec(package) is None:
        raise InputError(f"{purpose} need {package}; try: {INSTALL}")


def environment(*, escape: bool = True) -> Environment:
    """The templates of this folder. Every value that a template prints is escaped for Markdown; `escape=False`: for
    HTML, by jinja2. Raises InputError where jinja2 is not installed."""
    need("jinja2", "reports")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # so that macros and filters return Markup, which `finalize` leaves as it is
        finalize=escaped if escape else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {function.__name__: function for function in (*wording.FILTERS, prose, fenced, table)}
    return made


def render(template: str, values: Mapping[str, Any]) -> str:
    """The Markdown that a template makes of values, without runs of empty lines.

    Raises InputError where a value is missing that only files changed by hand, or of another version, lack.
    """
    made = environment().get_template(template)
    from jinja2 import UndefinedError

    try:
        text = made.render(values)
    except UndefinedError as error:
        raise InputError(f"a file of the run lacks a value that the report shows: {error.message}") from None
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def escaped(value: object) -> Markup:
    """Text of the data on one line, without an effect on the layout. Markup is Markdown already and stays as it is."""
    from markupsafe import Markup

    return value if isinstance(value, Markup) else Markup(_AT_START.sub(r"\1\\\2", _inert(_line(value))))


def prose(sentence: str) -> Markup:
    """A sentence of ours, in which the text between backquotes is code."""
    from markupsafe import Markup

    parts = _line(sentence).split("`")
    text = "".join(code(part) if index % 2 else _inert(part) for index, part in enumerate(parts))
    return Markup(_AT_START.sub(r"\1\\\2", text))


def _line(text: object) -> str:
    return " ".join(_CONTROL.sub(" ", str(text)).split())


def _inert(text: str) -> str:
    return _INLINE.sub(r"\\\1", text)


def code(text: object) -> Markup:
    """Text as code within a line."""
    from markupsafe import Markup

    line = _line(text)
    fence, space = _fence(line), " " if "`" in line else ""
    return Markup(f"{fence}{space}{line}{space}{fence}" if line else "")


def fenced(text: str, language: str = "") -> Markup:
    """Lines to copy."""
    from markupsafe import Markup

    fence = _fence(text, shortest=3)
    return Markup(f"{fence}{language}\n{_CONTROL.sub(' ', text).rstrip()}\n{fence}")


def _fence(text: str, shortest: int = 1) -> str:
    """More backquotes than stand side by side in the text."""
    return "`" * max(shortest, *(len(run) + 1 for run in ["", *re.findall("`+", text)]))


def table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> Markup:
    """A table. Columns of numbers are aligned right; None is an empty cell, and a float has 4 digits."""
    from markupsafe import Markup

    numeric = [any(isinstance(row[index], int | float) for row in rows) for index in range(len(columns))]
    lines: list[Sequence[str]] = [list(map(escaped, columns)), ["---:" if right else "---" for right in numeric]]
    lines += [[escaped(_cell(value)) for value in row] for row in rows]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cell(value: object) -> object:
    if isinstance(value, float):
        return wording.number(value)
    return "" if value is None else value
