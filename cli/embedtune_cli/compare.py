"""`embedtune compare`: is it better, and is it real."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import say, show_json, show_table, show_wide_table

if TYPE_CHECKING:
    from embedtune.evaluate.compare import Compared, Comparison

Fail = Annotated[
    list[str], typer.Option("--fail-if", metavar="BAR", help="Exit 1 if so: 'nDCG@10 < baseline - 0.01'; repeatable.")
]
Data = Annotated[
    list[str], typer.Option("--data", "-d", help="Measure all runs again by DIR or DIR:split; TREC runs need it.")
]
COLUMNS = ["dataset", "measure", "run", "queries", "baseline", "value", "difference", "low", "high", "p", "p (Holm)",
           "p (t)", "win", "tie", "loss", "negative flips", "seeds", "deviation", "p (seeds)", "p (seeds, t)",
           "p (seeds, t, Holm)"]  # fmt: skip
VIEWS = {
    "Differences": [*COLUMNS[:3], "queries", "baseline", "value", "difference", "low", "high"],
    "Tests over queries": [*COLUMNS[:3], "p", "p (Holm)", "p (t)", "win", "tie", "loss", "negative flips"],
    "Tests over seeds": [*COLUMNS[:3], "seeds", "deviation", "p (seeds)", "p (seeds, t)", "p (seeds, t, Holm)"],
}
ACROSS_COLUMNS = ["measure", "run", "datasets", "mean difference", "worst", "worst on", "lower on"]
CHANGE_COLUMNS = ["dataset", "measure", "run", "query", "baseline", "value", "difference", "text"]


def compare(
    baseline: Annotated[Path, typer.Argument(help="An evaluation or run folder, a TREC run, or mteb's results.")],
    runs: Annotated[list[Path], typer.Argument(help="What is compared with it.")],
    measures: Annotated[str | None, typer.Option(help="As in 'nDCG@10 R@100'; all that all have if absent.")] = None,
    data: Data = [],  # noqa: B006
    strict: Annotated[bool, typer.Option("--strict", help="Refuse runs that cover different queries.")] = False,
    fail_if: Fail = [],  # noqa: B006
    changes: Annotated[int, typer.Option(min=0, help="How many most gained and lost queries are shown.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs with a baseline, query by query: differences, intervals, and whether they are more than chance.

    p is a paired randomisation test's, and Holm's correction covers all rows shown. Seeds of one recipe are one row.

    Example: embedtune compare runs/base runs/tuned --measures nDCG@10 --fail-if "nDCG@10 < baseline - 0.01"

    Example: embedtune compare runs/tuned/evaluation-base runs/tuned

    Example: embedtune compare bm25.run dense.run --data data/scifact:test
    """
    from embedtune.errors import BarMissed
    from embedtune.evaluate.compare import compare as run
    from embedtune.evaluate.compare import misses, parse_bar

    bars = [parse_bar(text) for text in fail_if]
    found = run(baseline, runs, measures=measures, data=data, strict=strict, changes=changes)
    missed = [line for bar in bars for line in misses(bar, found.comparisons)]
    if as_json:
        show_json({**dataclasses.asdict(found), "missed": missed})
    else:
        _show(found)
    for note in found.notes:
        say(note)
    if missed:
        raise BarMissed("; ".join(missed))


def _show(found: Compared) -> None:
    show_wide_table(COLUMNS, [_row(comparison) for comparison in found.comparisons], VIEWS)
    if found.across:
        rows = [[a.measure, a.run, a.datasets, a.mean, a.worst, a.worst_dataset, a.lower] for a in found.across]
        print()
        show_table(ACROSS_COLUMNS, rows, as_json=False, title="Over all datasets")
    first = {comparison.dataset: comparison.measure for comparison in reversed(found.comparisons)}
    changes = [
        [c.dataset, c.measure, c.run, change.query_id, change.baseline, change.value, change.difference, change.text]
        for c in found.comparisons
        if c.measure == first[c.dataset]
        for change in (*c.gained, *c.lost)
    ]
    if changes:
        print()
        show_table(CHANGE_COLUMNS, changes, as_json=False, title="Gained and lost most")


def _row(found: Comparison) -> list[object]:
    seeds = found.seeds
    of_seeds = [len(seeds.means), seeds.deviation, seeds.p, seeds.t_p, seeds.holm] if seeds else [None] * 5
    return [found.dataset, found.measure, found.run, found.queries, found.baseline, found.value, found.difference,
            found.low, found.high, found.p, found.holm, found.t_p, found.wins, found.ties, found.losses,
            found.negative_flips, *of_seeds]  # fmt: skip
