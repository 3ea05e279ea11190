"""`embedtune report`: one HTML page, or one Markdown text, about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import options
from .options import FORMAT_HELP, argument, output_option, switch
from .output import say, show_json, show_text


def report(
    runs: Annotated[list[Path], argument("RUN", "Run folders. With several, each is compared with the first.")],
    output: Annotated[
        Path | None,
        output_option("FILE", "report.html in the run folder; Markdown is printed"),
    ] = None,
    form: Annotated[Literal["html", "md"], typer.Option("--format", help=FORMAT_HELP)] = "html",
    figures: Annotated[
        bool, switch("--figures", "With --format md: also write the figures as SVG files and link them.")
    ] = False,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write one file about a run: what it did, gained and cost. Needs embedtune\\[plots].

    The HTML page needs no other file. Markdown holds the same without figures and pictures. The
    report of an interrupted run shows what was done until then.

    Example: embedtune report runs/scifact

    Example: embedtune report runs/plain runs/hard --output comparison.html

    Example: embedtune report runs/scifact --format md > summary.md
    """
    from embedtune.errors import InputError
    from embedtune.report.outcome import outcome_of
    from embedtune.report.write import check_output, figures_folder, write_report
    from embedtune.report.write import report as render

    if overwrite and output is None:
        raise InputError("--overwrite has no effect without --output: report.html of a run is always written again")
    if output is None and len(runs) > 1 and form == "html":
        raise InputError("a report of several runs needs a file of its own; name it with --output FILE.html")
    if as_json and form == "md" and output is None:
        raise InputError("--json and Markdown would both be printed; name a file for one with --output FILE.md")
    if figures and (form == "html" or output is None):
        raise InputError("--figures has no effect without --format md --output FILE.md")
    target = output or (runs[0] / "report.html" if form == "html" else None)
    if target is not None:
        check_output(target, overwrite=overwrite or output is None, figures=figures)
    made = render(runs, form=form, figures=figures_folder(output).name if figures and output else None)
    for note in made.notes:
        say(note)
    if target is None:
        show_text(made.text)
        return
    write_report(made, target)
    if as_json:
        show_json({"output": str(target), "notes": made.notes, "runs": {str(run): outcome_of(run) for run in runs}})
    say(f"written: {target}")
