"""What the guard found, as guard.json keeps it and as a report shows it: base and tuned weights mixed, and the cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .document import Block, Cell, Figure, Figures, Section, Table, Text, interval, number, signed
from .figures import SERIES, lines


@dataclass(frozen=True, kw_only=True)
class Point:
    """One alpha of the curve (0: the base model, 1: the tuned one).

    validation: the measure on the training queries that were held out, None without any. sets: on the queries of each
    guarded set that choose. fits: whether every set keeps the budget there.
    """

    alpha: float
    validation: float | None
    sets: dict[str, float]
    fits: bool


@dataclass(frozen=True, kw_only=True)
class GuardedSet:
    """One out-of-domain set, on the queries that report: the base model, the tuned one before it was mixed (None where
    nothing was), and the one that is kept. difference: kept - base, with its interval. missed: over the budget."""

    label: str
    queries: int
    chosen_on: str | None
    base: float
    tuned: float
    unmixed: float | None
    difference: float
    low: float | None
    high: float | None
    negative_flips: float
    missed: bool


@dataclass(frozen=True, kw_only=True)
class Guard:
    """largest_drop: how much of the measure may be lost on a set; largest_flips: the share of queries that may go
    wrong. chosen: the alpha that model/ has, None where weights were not mixed."""

    measure: str
    largest_drop: float
    largest_flips: float | None
    chosen: float | None
    curve: list[Point]
    sets: list[GuardedSet]


def read_guard(run: Path) -> Guard | None:
    """A run folder's guard.json; None where the run was not guarded. Raises InputError where it is not one."""
    path = run / "guard.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Guard(
            measure=found["measure"],
            largest_drop=found["largest_drop"],
            largest_flips=found["largest_flips"],
            chosen=found["chosen"],
            curve=[Point(**point) for point in found["curve"]],
            sets=[GuardedSet(**of_set) for of_set in found["sets"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no guard's result of this version of embedtune ({error})") from None


def guard_section(guard: Guard, *, drawn: bool = True) -> Section:
    """The budget, the curve over alpha and what was chosen, and what that costs on each guarded set."""
    over = [found.label for found in guard.sets if found.missed]
    blocks: list[Block] = [Text(_in_words(guard))]
    if drawn and len(guard.curve) > 1:
        blocks.append(Figures(_alpha_curves(guard)))
    blocks.append(_table(guard))
    if over:
        blocks.append(Text(f"Over budget: {', '.join(over)}."))
    return Section("The guard", blocks)


def _in_words(guard: Guard) -> str:
    said = f"No guarded set may lose more than {guard.largest_drop:g} {guard.measure}"
    if guard.largest_flips is not None:
        said += f", nor may more than {guard.largest_flips:.1%} of its queries go from right to wrong"
    if guard.chosen is None:
        return f"{said}."
    kept = "" if any(point.fits for point in guard.curve) else ", though no alpha kept the budget on them"
    return (
        f"{said}. Base and tuned weights were mixed: alpha 0 is the base model, alpha 1 the tuned one; kept is alpha "
        f"{guard.chosen:g}{kept}. The queries that chose it are not those that the table reports."
    )


def _table(guard: Guard) -> Table:
    mixed = any(found.unmixed is not None for found in guard.sets)
    columns = ["dataset", "base", *(["tuned, unmixed"] if mixed else []), "kept", "kept - base", "95% interval",
               "no longer right", "queries", "verdict"]  # fmt: skip
    rows: list[list[str | Cell]] = [
        [
            found.label,
            number(found.base),
            *([number(found.unmixed)] if mixed else []),
            number(found.tuned),
            signed(found.difference),
            interval(found.low, found.high),
            f"{found.negative_flips:.1%}",
            f"{found.queries:,}",
            Cell("over budget", "worse") if found.missed else "within budget",
        ]
        for found in guard.sets
    ]
    caption = f"{guard.measure} on the queries that report"
    return Table(caption=caption, columns=columns, rows=rows, numeric=frozenset(range(1, len(columns) - 1)))


def _alpha_curves(guard: Guard) -> list[Figure]:
    """In domain, and on the guarded sets; as change from alpha 0, where that is on the curve."""
    points, figures = guard.curve, []
    validation = {"validation": [point.validation for point in points if point.validation is not None]}
    choosing = {label: [point.sets[label] for point in points] for label in points[0].sets}
    from_base = points[0].alpha == 0.0
    for heading, tables, level in (
        ("In domain, on held-out training queries", validation, None),
        ("Guarded sets, on the queries that choose", choosing, (-guard.largest_drop, "budget") if from_base else None),
    ):
        curves = [
            (label, SERIES[place % len(SERIES)], [point.alpha for point in points], _changes(values, from_base))
            for place, (label, values) in enumerate(tables.items())
            if len(values) == len(points)
        ]
        if curves:
            figures.append(_alpha_figure(heading, curves, guard, level, from_base))
    return figures


def _changes(values: list[float], from_base: bool) -> list[float]:
    return [value - values[0] for value in values] if from_base else values


def _alpha_figure(
    heading: str,
    curves: list[tuple[str, str, list[float], list[float]]],
    guard: Guard,
    level: tuple[float, str] | None,
    from_base: bool,
) -> Figure:
    _, _, alphas, first = curves[0]
    marks = [(a, v, f"alpha {a:g}") for a, v in zip(alphas, first, strict=True) if a == guard.chosen]
    up = f"change of {guard.measure}" if from_base else guard.measure
    across = "alpha (0: base, 1: tuned)"
    svg = lines(curves, across=across, up=up, title=f"{heading}: {up} over alpha", marks=marks, level=level)
    shown = signed if from_base else number
    ends = "; ".join(f"{label}: {shown(values[-1])} at alpha {alphas[-1]:g}" for label, _, _, values in curves)
    return Figure(svg=svg, title=heading, text=f"{ends}.")
