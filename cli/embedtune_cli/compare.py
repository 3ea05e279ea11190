"""`embedtune compare`: the differences between results, and whether they exceed chance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from . import options
from .options import DATA_HELP, MEASURES_HELP, argument, option, switch
from .output import say, show_json, show_tables, views_of

if TYPE_CHECKING:
    from embedtune.evaluate.compare import Compared, Comparison

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
    baseline: Annotated[Path, argument("BASELINE", "A result of `eval`, a run folder, a TREC run, or mteb's results.")],
    runs: Annotated[list[Path], argument("RUN", "The same kinds of results, to be compared.")],
    measures: Annotated[
        str | None, option("NAMES", MEASURES_HELP, "--measures", default="all that every result has")
    ] = None,
    data: Annotated[list[str], option("DIR[:SPLIT]...", DATA_HELP, "--data", "-d", default="the stored measures")] = [],  # noqa: B006
    third_column: options.ThirdColumn = None,
    strict: Annotated[bool, switch("--strict", "Refuse runs that cover different queries.")] = False,
    fail_if: Annotated[
        list[str], option("CONDITION...", "Exit with 1 if this holds: 'nDCG@10 < baseline - 0.01'.")
    ] = [],  # noqa: B006
    changes: Annotated[int, option("N", "List the N queries that gained most and the N that lost most.", min=0)] = 10,
    as_json: options.Json = False,
) -> None:
    """Compare results with a baseline query by query: differences, intervals and paired tests.

    With --data all runs are measured again on that dataset; TREC runs need it. p is that of a paired randomisation
    test, and Holm's correction covers all rows shown. Runs that differ in their seed only are one row.

    Example: embedtune compare runs/base runs/tuned --measures nDCG@10 --fail-if "nDCG@10 < baseline - 0.01"

    Example: embedtune compare runs/tuned/evaluation-base runs/tuned

    Example: embedtune compare bm25.run dense.run --data data/scifact:test
    """
    from embedtune.data.runs import RunFile
    from embedtune.errors import BarMissed
    from embedtune.evaluate.compare import compare as compare_runs
    from embedtune.evaluate.compare import misses, parse_bar

    bars = [parse_bar(text) for text in fail_if]
    files = [RunFile(path, third_column) for path in (baseline, *runs)]
    compared = compare_runs(files[0], files[1:], measures=measures, data=data, strict=strict, changes=changes)
    missed = [line for bar in bars for line in misses(bar, compared.comparisons)]
    if as_json:
        show_json({**dataclasses.asdict(compared), "missed": missed})
    else:
        _show(compared)
    for note in compared.notes:
        say(note)
    if missed:
        raise BarMissed("; ".join(missed))


def _show(compared: Compared) -> None:
    tables = views_of(("Comparisons", COLUMNS, [_row(comparison) for comparison in compared.comparisons]), VIEWS)
    if compared.across:
        rows = [[a.measure, a.run, a.datasets, a.mean, a.worst, a.worst_dataset, a.lower] for a in compared.across]
        tables.append(("Over all datasets", ACROSS_COLUMNS, rows))
    first = {comparison.dataset: comparison.measure for comparison in reversed(compared.comparisons)}
    changes = [
        [c.dataset, c.measure, c.run, change.query_id, change.baseline, change.value, change.difference, change.text]
        for c in compared.comparisons
        if c.measure == first[c.dataset]
        for change in (*c.gained, *c.lost)
    ]
    if changes:
        tables.append(("Queries that gained or lost most", CHANGE_COLUMNS, changes))
    show_tables(tables)


def _row(row: Comparison) -> list[object]:
    seeds = row.seeds
    of_seeds = [len(seeds.means), seeds.deviation, seeds.p, seeds.t_p, seeds.holm] if seeds else [None] * 5
    return [row.dataset, row.measure, row.run, row.queries, row.baseline, row.value, row.difference,
            row.low, row.high, row.p, row.holm, row.t_p, row.wins, row.ties, row.losses,
            row.negative_flips, *of_seeds]  # fmt: skip
