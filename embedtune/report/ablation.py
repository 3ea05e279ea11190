"""The report of a grid of runs: how fast each cell learned, its final measures, and their tests."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluate.compare import Comparison, Group, compare_groups
from ..evaluate.domains import domains_of, read_summary
from ..evaluate.significance import bootstrap_interval
from ..evaluate.sources import read_source
from ..files import FileKind, check_container, check_file, write_bytes, write_json, write_text
from ..recipe import Evaluate
from . import drawings
from .figures import PDF_CREATOR, as_file, as_pdf
from .learning import Curve, read_curve
from .markdown import INSTALL, MARK, need, render
from .page import page
from .record import OF_BASE
from .write import HTML_MARK, Figures

NEAR = 0.95  # of the gain
LATEX_MARK = "% embedtune ablation"
FILES = ("report.json", "report.csv", "report.tex", "report.md", "report.html", "differences.svg", "differences.pdf",
         "curves.svg", "curves.pdf")  # fmt: skip
RESULTS = ("domain", "dataset", "measure", "cell", "queries", "mean", "low", "high")
AGAINST = ("dataset", "measure", "cell", "difference", "difference low", "difference high", "p", "p (Holm)",
           "p (seeds, t)", "p (seeds, t, Holm)", "win", "tie", "loss")  # fmt: skip
BASE = "(base model)"


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How fast a cell learned, means over its seeds.

    best: of its validations. area: the curve's mean height. steps, seconds: to the first validation at 95% of the way
    from the untouched model's value to the best one that any cell reached with the same seed (which holds out the same
    queries), over the `reached` seeds that came there; None where none did.
    """

    cell: str
    best: float
    area: float
    steps: float | None
    seconds: float | None
    reached: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Final:
    """A cell on one dataset by one measure: the mean over seeds, its 95% bootstrap interval over queries, each seed's
    mean, and the comparison with the first cell (None for the first cell itself and for the base model)."""

    cell: str
    domain: str
    dataset: str
    measure: str
    queries: int
    mean: float
    low: float | None
    high: float | None
    by_seed: dict[int, float]
    against_first: Comparison | None


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """cells: name -> its changes to the recipe. measure: of the validations. primary: the measure that decides, whose
    tests Holm's correction counts. curves: cell -> seed -> learning curve. notes: what a reader must know of how it was
    compared."""

    recipe: str
    cells: dict[str, dict[str, Any]]
    seeds: list[int]
    measure: str
    primary: str
    convergence: list[Convergence]
    final: list[Final]
    curves: dict[str, dict[int, Curve]]
    notes: list[str]


def summarise(
    recipe: str,
    cells: Mapping[str, dict[str, Any]],
    runs: Mapping[str, Mapping[int, Path]],
    evaluate: Evaluate,
    primary: str,
) -> Ablation:
    """Reads finished runs. The first cell is what the others are compared with, by the mean over seeds per query.

    cells: name -> changes. runs: name -> seed -> run folder. evaluate: the first cell's, which says what is in domain.
    primary: the measure whose tests Holm's correction counts.
    """
    groups = [Group(name=name, sources=[read_source(path) for path in runs[name].values()]) for name in cells]
    compared = compare_groups(groups, primary=primary, changes=0)
    against = {(c.run, c.dataset, c.measure): c for c in compared.comparisons}
    first = next(iter(runs.values()))
    first_run = next(iter(first.values()))
    base = Group(name=BASE, sources=[read_source(first_run / OF_BASE)])
    domains = domains_of(evaluate.in_domain, evaluate.out_of_domain, read_summary(first_run))
    final = [
        _final(group, key, measure, domains[key], against)
        for key in domains
        for measure in groups[0].sources[0].measured[key].measures
        for group in (base, *groups)
        if all(key in source.measured and measure in source.measured[key].measures for source in group.sources)
    ]
    curves = {name: {seed: read_curve(path) for seed, path in runs[name].items()} for name in cells}
    return Ablation(
        recipe=recipe,
        cells=dict(cells),
        seeds=sorted(first),
        measure=evaluate.measure,
        primary=primary,
        convergence=convergence(curves),
        final=final,
        curves=curves,
        notes=compared.notes,
    )


def _final(
    group: Group, key: str, measure: str, domain: str, against: Mapping[tuple[str, str, str], Comparison]
) -> Final:
    tables = [(source.measured[key].per_query or {})[measure] for source in group.sources]
    values = [_mean([table[query_id] for table in tables]) for query_id in tables[0]]
    low, high = bootstrap_interval(values) if len(values) > 1 else (None, None)
    label = group.sources[0].measured[key].label
    return Final(
        cell=group.name,
        domain=domain,
        dataset=label,
        measure=measure,
        queries=len(values),
        mean=_mean(values),
        low=low,
        high=high,
        by_seed={
            source.seed: source.measured[key].measures[measure] for source in group.sources if source.seed is not None
        },
        against_first=against.get((group.name, label, measure)),
    )


def convergence(curves: Mapping[str, Mapping[int, Curve]]) -> list[Convergence]:
    """How fast each cell came near the largest gain that any cell had with the same seed.

    Of a seed with which no cell validated above the untouched model, no cell counts as having reached it.
    """
    cells = list(curves.values())
    targets = {}
    for seed in cells[0]:
        untouched = cells[0][seed].values[0]  # before the first step every cell is the same model
        best = max(by_seed[seed].best for by_seed in cells)
        targets[seed] = untouched + NEAR * (best - untouched) if best > untouched else math.inf
    return [_convergence(cell, by_seed, targets) for cell, by_seed in curves.items()]


def _convergence(cell: str, by_seed: Mapping[int, Curve], targets: Mapping[int, float]) -> Convergence:
    reached = [at for seed, curve in by_seed.items() if (at := curve.reaches(targets[seed])) is not None]
    return Convergence(
        cell=cell,
        best=_mean([curve.best for curve in by_seed.values()]),
        area=_mean([curve.area for curve in by_seed.values()]),
        steps=_mean([steps for steps, _ in reached]) if reached else None,
        seconds=_mean([seconds for _, seconds in reached]) if reached else None,
        reached=len(reached),
        seeds=len(by_seed),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def check_output(output: Path) -> None:
    """Raises InputError where the report cannot be written into the folder, or would replace other files."""
    check_container(output)
    for name in FILES:
        check_file(output / name, FileKind(verb="ablate", wrote=_is_report), overwrite=True)


def _is_report(path: Path) -> bool:
    content = path.read_bytes()
    start = content[:2000]
    if content.startswith(b"%PDF-"):
        return PDF_CREATOR.encode() in content
    # Older versions' curves have no mark; they were drawn by matplotlib alone.
    opens = (b"# Ablation of ", b'{\n  "recipe": ', b"domain,dataset,measure,cell,", LATEX_MARK.encode())
    return start.startswith(opens) or MARK.encode() in start or b"Matplotlib" in start or HTML_MARK in content


def write_report(ablation: Ablation, output: Path) -> Ablation:
    """Writes FILES; returns the ablation, with a note where there is no page and no plot."""
    figure: Figures | None = Figures("")
    try:
        need("matplotlib", "plots")
        need("markdown_it", "reports in HTML")
    except InputError:
        note = (
            f"report.html and the plots are left out: they need matplotlib; try: {INSTALL}, and the same command again"
        )
        ablation, figure = dataclasses.replace(ablation, notes=[*ablation.notes, note]), None
    tested = [final for final in ablation.final if final.against_first and final.measure == ablation.primary]
    columns, rows = final_table(ablation)
    values = {
        "ablation": ablation,
        "pivot": pivot(ablation),
        "differences": [final.against_first for final in tested],
        "domains": [f"{final.domain} of domain" for final in tested],
        "cells": [[name, json.dumps(changes, ensure_ascii=False)] for name, changes in ablation.cells.items()],
        "curves": {name: list(seeds.values()) for name, seeds in ablation.curves.items()},
        "how_fast": convergence_table(ablation),
        "results": _columns_of(columns, rows, RESULTS),
        "against": _columns_of(columns, [row for row in rows if row[columns.index("difference")] is not None], AGAINST),
        "draw": drawings,
        "figure": figure or Figures(None),
    }
    text = render("ablation.md.jinja", values)
    for name, (_, svg) in figure.drawn.items() if figure is not None else ():
        write_text(output / name, as_file(svg))
        write_bytes(output / Path(name).with_suffix(".pdf"), as_pdf(svg))
    write_json(output / "report.json", dataclasses.asdict(ablation))
    write_text(output / "report.csv", as_csv(columns, rows))
    write_text(output / "report.tex", as_latex(ablation))
    write_text(output / "report.md", text)
    if figure is not None:
        write_text(output / "report.html", page(text, figure.drawn, {}))
    return ablation


def _columns_of(
    columns: Sequence[str], rows: Sequence[Sequence[object]], names: Sequence[str]
) -> tuple[list[str], list[list[object]]]:
    """Some of a table's columns."""
    indices = [columns.index(name) for name in names]
    return list(names), [[row[index] for index in indices] for row in rows]


def pivot(ablation: Ablation) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of the primary measure, a row for each cell and a column for each dataset. An asterisk marks a
    difference to the first cell that is more than chance."""
    final = [one for one in ablation.final if one.measure == ablation.primary]
    values: dict[str, dict[str, object]] = {}
    for one in final:
        star = "*" if is_significant(one) else ""
        values.setdefault(one.cell, {})[one.dataset] = f"{one.mean:.4f}{star}"
    datasets = list(dict.fromkeys(one.dataset for one in final))
    return ["cell", *datasets], [[cell, *map(row.get, datasets)] for cell, row in values.items()]


def is_significant(final: Final) -> bool:
    """Whether the difference to the first cell has p below .05 after Holm's correction."""
    tested = final.against_first
    return tested is not None and tested.holm is not None and tested.holm < 0.05


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV, with every digit."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def as_latex(ablation: Ablation) -> str:
    """The pivot as a LaTeX table of the package booktabs: the best cell of each dataset is bold."""
    columns, rows = pivot(ablation)
    best = [max((str(row[index]).rstrip("*") for row in rows), default="") for index in range(1, len(columns))]
    lines = [
        f"{LATEX_MARK} of {_latex(ablation.recipe)}: {_latex(ablation.primary)}, means over seeds "
        f"{', '.join(map(str, ablation.seeds))}",
        "% An asterisk: differs from the first cell, p < .05 after Holm's correction. Needs \\usepackage{booktabs}.",
        f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
        "\\toprule",
        " & ".join(map(_latex, columns)) + r" \\",
        "\\midrule",
    ]
    for cell, *values in rows:
        shown = []
        for value, top in zip(values, best, strict=True):
            number = str(value).rstrip("*")
            star = "$^{*}$" if str(value).endswith("*") else ""
            shown.append((f"\\textbf{{{number}}}" if number == top else number) + star)
        lines.append(" & ".join([_latex(str(cell)), *shown]) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(escapes.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def convergence_table(ablation: Ablation) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of how fast the cells learned."""
    columns = ["cell", f"best validation {ablation.measure}", "area under the curve", "steps to 95% of the gain",
               "seconds to it", "seeds that reached it"]  # fmt: skip
    return columns, [
        [c.cell, c.best, c.area, c.steps, c.seconds, f"{c.reached} of {c.seeds}"] for c in ablation.convergence
    ]


def final_table(ablation: Ablation) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of the cells' final measures, and their tests against the first."""
    columns = ["domain", "dataset", "measure", "cell", "queries", "mean", "low", "high", "difference", "difference low",
               "difference high", "p", "p (Holm)", "p (seeds, t)", "p (seeds, t, Holm)", "win", "tie",
               "loss"]  # fmt: skip
    rows = []
    for final in ablation.final:
        row: list[object] = [
            *(final.domain, final.dataset, final.measure, final.cell, final.queries, final.mean, final.low, final.high)
        ]
        if (tested := final.against_first) is not None:
            seeds = tested.seeds
            row += [tested.difference, tested.low, tested.high, tested.p, tested.holm]
            row += [seeds.t_p, seeds.holm] if seeds else [None, None]
            row += [tested.wins, tested.ties, tested.losses]
        rows.append(row + [None] * (len(columns) - len(row)))
    return columns, rows
