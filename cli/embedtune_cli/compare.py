"""`embedtune compare`: the differences between results, and whether they exceed chance."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from . import options
from .options import DATA_HELP, MEASURES_HELP, argument, option, switch
from .output import Table, say, show_json, show_tables, views_of

if TYPE_CHECKING:
    from embedtune.evaluate.compare import Compared, Comparison

COLUMNS = ["dataset", "measure", "run", "queries", "baseline", "value", "difference", "low", "high", "p", "p (Holm)",
           "p (t)", "win", "tie", "loss", "negative flips", "seeds", "deviation", "p (seeds)", "p (seeds, t)",
           "p (seeds, t, Holm)"]  # fmt: skip
ACROSS_COLUMNS = ["measure", "run", "datasets", "baseline", "value", "mean difference", "worst", "worst on", "lower on"]
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
        list[str],
        option(
            "CONDITION...",
            "Exit with 1 if this holds on any dataset, as 'nDCG@10 < baseline - 0.01', or on those named: "
            "'scifact: nDCG@10 < 0.6', 'in_domain: R@10 < baseline + 0.02', 'out_of_domain: R@10 < baseline'.",
        ),
    ] = [],  # noqa: B006
    changes: Annotated[int, option("N", "List the N queries that gained most and the N that lost most.", min=0)] = 10,
    as_json: options.Json = False,
) -> None:
    """Compare results with a baseline query by query: differences, intervals and paired tests.

    With --data all runs are measured again on those datasets; TREC runs need it. For several datasets a system is a
    folder with a run for each (scifact.run, cranfield.run), or one file if no two datasets judge the same query id. p
    is that of a paired randomisation test, and Holm's correction covers all rows shown. Runs that differ in their seed
    only are one row. What is in_domain and out_of_domain is read from the recipe of a run folder.

    Example: embedtune compare runs/base runs/tuned --measures nDCG@10 --fail-if "nDCG@10 < baseline - 0.01"

    Example: embedtune compare runs/tuned/evaluation-base runs/tuned

    Example: embedtune compare runs/base runs/tuned --fail-if "in_domain: nDCG@10 < baseline + 0.02"

    Example: embedtune compare bm25.run dense.run --data data/scifact:test

    Example: embedtune compare trec/bm25 trec/dense --data data/scifact --data data/cranfield
    """
    from embedtune.data.runs import RunFile
    from embedtune.errors import BarMissed
    from embedtune.evaluate.compare import compare as compare_runs
    from embedtune.evaluate.compare import misses, parse_bar

    bars = [parse_bar(text) for text in fail_if]
    files = [RunFile(path, third_column) for path in (baseline, *runs)]
    compared = compare_runs(files[0], files[1:], measures=measures, data=data, strict=strict, changes=changes)
    missed = [line for bar in bars for line in misses(bar, compared)]
    if as_json:
        show_json({**dataclasses.asdict(compared), "missed": missed})
    else:
        _show(compared)
    for note in compared.notes:
        say(note)
    if missed:
        raise BarMissed("; ".join(missed))


def _show(compared: Compared) -> None:
    """On a terminal narrow tables, one of each kind for a run; in a pipe whole ones, every value in its own column."""
    runs = list(dict.fromkeys(comparison.run for comparison in compared.comparisons))
    if sys.stdout.isatty():
        show_tables([table for run in runs for table in _for_people(compared, run)])
        return
    tables: list[Table] = [("Comparisons", COLUMNS, [_row(comparison) for comparison in compared.comparisons])]
    if compared.across:
        rows = [[a.measure, a.run, a.datasets, a.baseline, a.value, a.mean, a.worst, a.worst_dataset, a.lower]
                for a in compared.across]  # fmt: skip
        tables.append(("Over all datasets", ACROSS_COLUMNS, rows))
    if changes := [row for run in runs for row in _changes(compared, run)]:
        tables.append(("Queries that gained or lost most", CHANGE_COLUMNS, changes))
    show_tables([table for one in tables for table in views_of(one, {})])


def _for_people(compared: Compared, run: str) -> list[Table]:
    """The tables of one run, each at most some 80 characters wide."""
    from embedtune.report.wording import difference_with_interval, probability, rounded, rounded_difference

    rows = [comparison for comparison in compared.comparisons if comparison.run == run]
    name = f"{run} against {compared.baseline}"
    values = [
        [c.dataset, c.measure, c.queries, rounded(c.baseline), rounded(c.value),
         difference_with_interval(c.difference, c.low, c.high), probability(c.holm)]
        for c in rows
    ]  # fmt: skip
    tables: list[Table] = [
        (name, ["dataset", "measure", "queries", "baseline", "run", "difference [95% interval]", "p (Holm)"], values)
    ]
    tested = [
        [c.dataset, c.measure, probability(c.p), probability(c.t_p), f"{c.wins} / {c.ties} / {c.losses}",
         f"{c.negative_flips:.1%}"]
        for c in rows if c.negative_flips is not None
    ]  # fmt: skip
    if tested:
        columns = ["dataset", "measure", "p", "p (t)", "better / same / worse", "no longer right"]
        tables.append((f"Tests over queries: {name}", columns, tested))
    seeded = [
        [c.dataset, c.measure, len(c.seeds.means), rounded(c.seeds.deviation), probability(c.seeds.p),
         probability(c.seeds.t_p), probability(c.seeds.holm)]
        for c in rows if c.seeds is not None
    ]  # fmt: skip
    if seeded:
        columns = ["dataset", "measure", "seeds", "deviation", "p", "p (t)", "p (t, Holm)"]
        tables.append((f"Tests over seeds: {name}", columns, seeded))
    over_all = [
        [a.measure, a.datasets, rounded(a.baseline), rounded(a.value), rounded_difference(a.mean),
         f"{rounded_difference(a.worst)} on {a.worst_dataset}", a.lower]
        for a in compared.across if a.run == run
    ]  # fmt: skip
    if over_all:
        columns = ["measure", "datasets", "baseline", "run", "difference", "worst", "lower on"]
        tables.append((f"Means over all datasets: {name}", columns, over_all))
    changes = [
        [dataset, measure, query_id, f"{rounded(before)} to {rounded(after)}", text]
        for dataset, measure, _, query_id, before, after, _, text in _changes(compared, run)
    ]
    if changes:
        columns = ["dataset", "measure", "query", "change", "text"]
        tables.append((f"Queries that gained or lost most: {name}", columns, changes))
    return tables


def _changes(compared: Compared, run: str) -> list[Any]:
    """The queries that changed most by each dataset's first measure, as CHANGE_COLUMNS."""
    first = {comparison.dataset: comparison.measure for comparison in reversed(compared.comparisons)}
    return [
        [c.dataset, c.measure, c.run, change.query_id, change.baseline, change.value, change.difference, change.text]
        for c in compared.comparisons
        if c.run == run and c.measure == first[c.dataset]
        for change in (*c.gained, *c.lost)
    ]


def _row(row: Comparison) -> list[object]:
    seeds = row.seeds
    of_seeds = [len(seeds.means), seeds.deviation, seeds.p, seeds.t_p, seeds.holm] if seeds else [None] * 5
    return [row.dataset, row.measure, row.run, row.queries, row.baseline, row.value, row.difference,
            row.low, row.high, row.p, row.holm, row.t_p, row.wins, row.ties, row.losses,
            row.negative_flips, *of_seeds]  # fmt: skip
