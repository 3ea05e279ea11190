"""What a grid of runs showed: how fast each cell learned, what it came to, and whether that is more than chance."""

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
from ..evaluate.sources import Source, read_source
from ..files import FileKind, check_container, check_file, first_line, write_json, write_text
from ..recipe import Evaluate
from .curves import INSTALL, draw_curves
from .learning import Curve, read_curve
from .markdown import table
from .record import domains_of, read_summary

NEAR_BEST = 0.95
BASE = "(base model)"


@dataclass(frozen=True, kw_only=True)
class Convergence:
    """How fast a cell learned, means over its seeds.

    to_best: to the first validation at 95% of the best value that any cell reached with the same seed (which holds out
    the same queries). A pretrained model may be there before its first step, so to_gain asks for 95% of the way from
    the untouched model to that best value. area: the curve's mean height.
    """

    cell: str
    best: float
    area: float
    to_best: Arrival
    to_gain: Arrival
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Steps and their seconds, means over the `reached` seeds that got there; None where none did."""

    steps: float | None
    seconds: float | None
    reached: int


@dataclass(frozen=True, kw_only=True)
class Final:
    """A cell on one dataset by one measure: the mean over seeds, its 95% bootstrap interval over queries, each seed's
    mean, and the comparison with the first cell (None for the first cell itself and for the base model)."""

    cell: str
    domain: str
    dataset: str
    measure: str
    mean: float
    low: float | None
    high: float | None
    by_seed: dict[int, float]
    against_first: Comparison | None


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What a grid showed.

    cells: name -> its changes to the recipe. curves: cell -> seed -> learning curve. notes: what a reader must know of
    how it was compared.
    """

    recipe: str
    cells: dict[str, dict[str, Any]]
    seeds: list[int]
    measure: str
    convergence: list[Convergence]
    final: list[Final]
    curves: dict[str, dict[int, Curve]]
    notes: list[str]


def summarise(
    recipe: str,
    cells: Mapping[str, dict[str, Any]],
    runs: Mapping[str, Mapping[int, Path]],
    evaluate: Evaluate,
) -> Ablation:
    """Reads finished runs. The first cell is what the others are compared with, by the mean over seeds per query.

    cells: name -> changes. runs: name -> seed -> run folder. evaluate: the first cell's, which says what is in domain.
    """
    groups = [Group(name=name, sources=[read_source(path) for path in runs[name].values()]) for name in cells]
    compared = compare_groups(groups, changes=0)
    against = {(found.run, found.dataset, found.measure): found for found in compared.comparisons}
    first = next(iter(runs.values()))
    base = Group(name=BASE, sources=[read_source(next(iter(first.values())) / "evaluation-base")])
    domains = domains_of(evaluate, read_summary(next(iter(first.values()))))
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
    group: Group,
    key: str,
    measure: str,
    domain: str,
    against: Mapping[tuple[str, str, str], Comparison],
) -> Final:
    tables = [_table(source, key, measure) for source in group.sources]
    values = [math.fsum(table[query_id] for table in tables) / len(tables) for query_id in tables[0]]
    low, high = bootstrap_interval(values) if len(values) > 1 else (None, None)
    label = group.sources[0].measured[key].label
    return Final(
        cell=group.name,
        domain=domain,
        dataset=label,
        measure=measure,
        mean=math.fsum(values) / len(values),
        low=low,
        high=high,
        by_seed={
            source.seed: source.measured[key].measures[measure] for source in group.sources if source.seed is not None
        },
        against_first=against.get((group.name, label, measure)),
    )


def _table(source: Source, key: str, measure: str) -> dict[str, float]:
    return (source.measured[key].per_query or {})[measure]


def convergence(curves: Mapping[str, Mapping[int, Curve]]) -> list[Convergence]:
    """How fast each cell came near the best value that any cell reached with the same seed."""
    seeds = next(iter(curves.values())).keys()
    best = {seed: max(by_seed[seed].best for by_seed in curves.values()) for seed in seeds}
    start = {seed: next(iter(curves.values()))[seed].values[0] for seed in seeds}  # the untouched model, in every cell
    near_gain = {seed: start[seed] + NEAR_BEST * (best[seed] - start[seed]) for seed in seeds}
    return [
        Convergence(
            cell=cell,
            best=_mean([curve.best for curve in by_seed.values()]),
            area=_mean([curve.area for curve in by_seed.values()]),
            to_best=_arrival(by_seed, {seed: NEAR_BEST * value for seed, value in best.items()}),
            to_gain=_arrival(by_seed, near_gain),
            seeds=len(by_seed),
        )
        for cell, by_seed in curves.items()
    ]


def _arrival(by_seed: Mapping[int, Curve], target: Mapping[int, float]) -> Arrival:
    found = [at for seed, curve in by_seed.items() if (at := curve.reaches(target[seed])) is not None]
    return Arrival(
        steps=_mean([steps for steps, _ in found]) if found else None,
        seconds=_mean([seconds for _, seconds in found]) if found else None,
        reached=len(found),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def check_output(output: Path) -> None:
    """Raises InputError where the report cannot be written into the folder, or would replace other files."""
    check_container(output)
    for name, wrote in (("report.json", _is_json), ("report.md", _is_markdown), ("curves.svg", _is_drawn)):
        check_file(output / name, FileKind(verb="ablate", wrote=wrote), overwrite=True)


def _is_json(path: Path) -> bool:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(report, dict) and report.keys() >= {"recipe", "cells", "seeds", "convergence", "final"}


def _is_markdown(path: Path) -> bool:
    return first_line(path).startswith("# Ablation of ")


def _is_drawn(path: Path) -> bool:
    return b"Matplotlib" in path.read_bytes()[:2000]


def write_report(found: Ablation, output: Path) -> Ablation:
    """Writes report.json, report.md and curves.svg; returns what was found, with a note where there is no plot."""
    try:
        draw_curves({name: list(by_seed.values()) for name, by_seed in found.curves.items()}, output / "curves.svg")
    except InputError:
        notes = [
            *found.notes,
            f"curves.svg is left out: it needs matplotlib; try: {INSTALL}, and the same command again",
        ]
        found = dataclasses.replace(found, notes=notes)
    write_json(output / "report.json", dataclasses.asdict(found))
    write_text(output / "report.md", _markdown(found, (output / "curves.svg").exists()))
    return found


def convergence_table(found: Ablation) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of how fast the cells learned."""
    columns = ["cell", f"best validation {found.measure}", "area under the curve", "steps to 95% of the best",
               "seconds", "steps to 95% of the gain", "seconds to it", "seeds that reached it"]  # fmt: skip
    return columns, [
        [c.cell, c.best, c.area, c.to_best.steps, c.to_best.seconds, c.to_gain.steps, c.to_gain.seconds,
         f"{c.to_gain.reached} of {c.seeds}"]
        for c in found.convergence
    ]  # fmt: skip


def final_table(found: Ablation) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of what the cells came to, and their tests against the first."""
    columns = ["domain", "dataset", "measure", "cell", "mean", "low", "high", "difference", "difference low",
               "difference high", "p", "p (Holm)", "p (seeds, t)", "p (seeds, t, Holm)", "win", "tie",
               "loss"]  # fmt: skip
    rows = []
    for final in found.final:
        row: list[object] = [final.domain, final.dataset, final.measure, final.cell, final.mean, final.low, final.high]
        tested, seeds = final.against_first, final.against_first.seeds if final.against_first else None
        if tested is None:
            rows.append(row + [None] * (len(columns) - len(row)))
            continue
        row += [tested.difference, tested.low, tested.high, tested.p, tested.holm]
        row += [seeds.t_p, seeds.holm] if seeds else [None, None]
        rows.append([*row, tested.wins, tested.ties, tested.losses])
    return columns, rows


def _markdown(found: Ablation, drawn: bool) -> str:
    first = next(iter(found.cells))
    changes = [[name, json.dumps(changes, ensure_ascii=False)] for name, changes in found.cells.items()]
    parts = [
        f"# Ablation of {found.recipe}",
        f"Every cell was trained with seeds {', '.join(map(str, found.seeds))} and is compared with `{first}`.",
        _markdown_table(["cell", "changes"], changes),
        "## How fast",
        "Means over seeds. The best is the best validation value that any cell reached with the same seed, the gain "
        "what it has over the untouched model; seconds are those of training steps. The area is the curve's mean "
        "height.",
        _markdown_table(*convergence_table(found)),
        *(["![Validation curves](curves.svg)"] if drawn else []),
        "## What it came to",
        f"Means over seeds with 95% bootstrap intervals over queries. p: two-sided paired randomisation over queries "
        f"against `{first}`, each query's value being its mean over seeds. p (seeds, t): paired t-test over the seeds' "
        "means. Holm's correction covers all rows.",
        _markdown_table(*final_table(found)),
        *([f"- {note}" for note in found.notes]),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return table(columns, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else str(value)
