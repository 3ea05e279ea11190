"""`report`: run folders in, one file out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..files import FileKind
from .document import Document
from .figures import need_matplotlib
from .html import to_html
from .markdown import to_markdown
from .record import read_record
from .several import runs_document
from .single import card_document, run_document

_MARKDOWN_MARK = "\n<!-- embedtune report -->\n"
_HTML_MARKS = (b'<p class="kicker">embedtune report</p>', b" \xc2\xb7 embedtune</title>")


def _is_report(path: Path) -> bool:
    content = path.read_bytes()
    return content.endswith(_MARKDOWN_MARK.encode()) or all(mark in content for mark in _HTML_MARKS)


REPORT = FileKind(verb="report", wrote=_is_report)


def report(runs: Sequence[str | Path], *, markdown: bool = False) -> tuple[str, list[str]]:
    """The report of one run, or of several beside the first, and its notes (what is missing, how it was compared).

    markdown: the model card's body in place of the HTML page; it draws nothing and needs no extra. Raises InputError
    where a folder is no run, and, for HTML, where matplotlib or jinja2 is not installed.
    """
    if not markdown:
        need_matplotlib()
    document = report_document([Path(run) for run in runs], drawn=not markdown)
    text = to_markdown(document) + _MARKDOWN_MARK if markdown else to_html(document)
    return text, document.notes


def report_document(runs: Sequence[Path], *, drawn: bool) -> Document:
    records = [read_record(run, negatives=drawn and len(runs) == 1) for run in runs]
    if len(records) > 1:
        return runs_document(records, drawn=drawn)
    return run_document(records[0]) if drawn else card_document(records[0])
