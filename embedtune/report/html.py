"""A document as one HTML file that needs nothing else: no script, no network, styles and pictures inside."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .document import Document
from .figures import INSTALL

if TYPE_CHECKING:
    from markupsafe import Markup


def to_html(document: Document) -> str:
    """Texts are escaped, whatever they hold. Raises InputError where jinja2 is not installed."""
    if find_spec("jinja2") is None:
        raise InputError(f"reports need jinja2; try: {INSTALL}")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["with_code"] = _with_code
    environment.filters["kind"] = lambda block: type(block).__name__
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(document=document, style=style)


def _with_code(text: str) -> Markup:
    """A paragraph in which what stands between backquotes is code."""
    from markupsafe import Markup, escape

    parts = [
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)
