"""`embedtune report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import say, show_text


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are compared with the first.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file. [default: RUN/report.html; needed for several]")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the model card's body instead.")] = False,
) -> None:
    """Show what a run did, gained and cost, in one HTML file that can be sent to anybody; needs embedtune\\[plots].

    A run that was stopped half way is shown as far as it went.

    Example: embedtune report runs/scifact

    Example: embedtune report runs/plain runs/hard --output comparison.html

    Example: embedtune report runs/scifact --markdown > summary.md
    """
    from embedtune.errors import InputError
    from embedtune.files import write_text
    from embedtune.report.write import report as run

    if output is None and len(runs) > 1 and not markdown:
        raise InputError("a report of several runs belongs to none of them; name its file with --output FILE.html")
    text, notes = run(runs, markdown=markdown)
    for note in notes:
        say(note)
    if markdown and output is None:
        show_text(text)
        return
    target = output or runs[0] / "report.html"
    write_text(target, text)
    say(f"written: {target}")
