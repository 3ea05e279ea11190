"""`embedtune report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import OUTPUT_HELP, Overwrite
from .output import say, show_text


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders. With several, each is compared with the first."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=OUTPUT_HELP, show_default="report.html in the run folder"),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the model card's text instead, or write it to --output.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML file about a run: what it did, gained and cost. Needs embedtune\\[plots].

    The report of an interrupted run shows what was done until then.

    Example: embedtune report runs/scifact

    Example: embedtune report runs/plain runs/hard --output comparison.html

    Example: embedtune report runs/scifact --markdown > summary.md
    """
    from embedtune.errors import InputError
    from embedtune.files import check_file, write_text
    from embedtune.report.write import REPORT
    from embedtune.report.write import report as render

    if overwrite and output is None:
        raise InputError("--overwrite has no effect without --output: report.html of a run is always written again")
    if output is None and len(runs) > 1 and not markdown:
        raise InputError("a report of several runs needs a file of its own; name it with --output FILE.html")
    target = output or runs[0] / "report.html"
    if output is not None or not markdown:
        check_file(target, REPORT, overwrite=overwrite or output is None)
    text, notes = render(runs, markdown=markdown)
    for note in notes:
        say(note)
    if markdown and output is None:
        show_text(text)
        return
    write_text(target, text)
    say(f"written: {target}")
