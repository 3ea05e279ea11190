"""`embedtune judge`: scores that say which mined candidates are relevant after all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import progress, say


def judge(
    negatives: Annotated[Path, typer.Argument(help="What `embedtune mine` wrote: the run or its .jsonl.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The TREC run with the judge's scores.")],
    by: Annotated[str | None, typer.Option(help="An encoder, or cross-encoder:NAME.")] = None,
    command: Annotated[
        str | None, typer.Option(help="A program: reads pairs as JSON lines on stdin, prints a number for each.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the data is now, if not where it was mined.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
) -> None:
    """Score mined candidates and their positives by a judge, for the filter `judge` and for losses that take a teacher.

    Example: embedtune judge mined.run --by cross-encoder:cross-encoder/ms-marco-MiniLM-L6-v2 --output judge.run

    Example: embedtune judge mined.run --command "python ask_an_expert.py" --output judge.run

    A recipe then says: filtering: [{name: judge, path: judge.run}]. A line on the program's stdin is {"query_id",
    "doc_id", "query", "document"}; pairs are in an order that it must keep.
    """
    from embedtune.data.trec import write_run
    from embedtune.errors import InputError
    from embedtune.files import refuse_existing
    from embedtune.negatives.audit import dataset_of
    from embedtune.negatives.evidence import files_of

    if (by is None) == (command is None):
        raise InputError("expected --by MODEL or --command PROGRAM, one of them")
    refuse_existing(output, overwrite=overwrite)
    files = files_of(negatives)
    dataset = dataset_of(files, data)

    from embedtune.negatives.judging import judge_by_command, judge_by_model, pairs_of

    pairs = pairs_of(files, dataset)
    if command is not None:
        run = judge_by_command(pairs, dataset, command)
    else:
        with progress("judging") as show:
            run = judge_by_model(pairs, dataset, str(by), on_progress=show)
    write_run(output, run, "judge")
    say(f"written: {output} ({sum(map(len, run.values())):,} pairs of {len(run):,} queries)")
