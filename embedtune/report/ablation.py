"""The report of a grid of runs: how fast each cell learned, its final measures, and their tests."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluate.compare import Comparison, Group, compare_groups
from ..evaluate.significance import bootstrap_interval
from ..evaluate.sources import read_source
from ..files import FileKind, check_container, check_file, write_json, write_text
from ..recipe import Evaluate
from . import drawings
from .figures import as_file
from .learning import Curve, read_curve
from .markdown import INSTALL, MARK, need, render
from .record import domains_of, read_summary
from .write import Figures

NEAR = 0.95  # of the gain
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
    """cells: name -> its changes to the recipe. curves: cell -> seed -> learning curve. notes: what a reader must know
    of how it was compared."""

    recipe: str
    cells: dict[str, dict[str, Any]]
    seeds: list[int]
    measure: str
    convergence: list[Convergence]
    final: list[Final]
    curves: dict[str, dict[int, Curve]]
    notes: list[str]


def summarise(
    recipe: str, cells: Mapping[str, dict[str, Any]], runs: Mapping[str, Mapping[int, Path]], evaluate: Evaluate
) -> Ablation:
    """Reads finished runs. The first cell is what the others are compared with, by the mean over seeds per query.

    cells: name -> changes. runs: name -> seed -> run folder. evaluate: the first cell's, which says what is in domain.
    """
    groups = [Group(name=name, sources=[read_source(path) for path in runs[name].values()]) for name in cells]
    compared = compare_groups(groups, changes=0)
    against = {(c.run, c.dataset, c.measure): c for c in compared.comparisons}
    first = next(iter(runs.values()))
    first_run = next(iter(first.values()))
    base = Group(name=BASE, sources=[read_source(first_run / "evaluation-base")])
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
    for name in ("report.json", "report.md", "curves.svg"):
        check_file(output / name, FileKind(verb="ablate", wrote=_is_report), overwrite=True)


def _is_report(path: Path) -> bool:
    start = path.read_bytes()[:2000]
    # Older versions' curves have no mark; they were drawn by matplotlib alone.
    return start.startswith((b"# Ablation of ", b'{\n  "recipe": ')) or MARK.encode() in start or b"Matplotlib" in start


def write_report(ablation: Ablation, output: Path) -> Ablation:
    """Writes report.json, report.md and curves.svg; returns the ablation, with a note where there is no plot."""
    figure = Figures("")
    try:
        need("matplotlib", "plots")
    except InputError:
        note = f"curves.svg is left out: it needs matplotlib; try: {INSTALL}, and the same command again"
        ablation, figure = dataclasses.replace(ablation, notes=[*ablation.notes, note]), Figures(None)
    values = {
        "ablation": ablation,
        "cells": [[name, json.dumps(changes, ensure_ascii=False)] for name, changes in ablation.cells.items()],
        "curves": {name: list(seeds.values()) for name, seeds in ablation.curves.items()},
        "how_fast": convergence_table(ablation),
        "final": final_table(ablation),
        "draw": drawings,
        "figure": figure,
    }
    text = render("ablation.md.jinja", values)
    for name, (_, svg) in figure.drawn.items():
        write_text(output / name, as_file(svg))
    write_json(output / "report.json", dataclasses.asdict(ablation))
    write_text(output / "report.md", text)
    return ablation


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
