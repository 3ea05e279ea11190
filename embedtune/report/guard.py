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
    """One alpha of the curve (0: the base model, 1: the tuned one), label -> value of the measure.

    in_domain: on the sets that the recipe trains for. choosing: on the queries of the guarded sets that choose.
    """

    alpha: float
    in_domain: dict[str, float]
    choosing: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class GuardedSet:
    """One out-of-domain set, on the queries that report: the base model, the tuned one, and the one chosen.

    low, high: the interval of mixed - base. held: whether the loss stays within the budget.
    """

    label: str
    base: float
    unmixed: float
    mixed: float
    low: float | None
    high: float | None
    queries: int
    held: bool


@dataclass(frozen=True, kw_only=True)
class Guard:
    """budget: how much of the measure may be lost on a set. chosen: the alpha that model/ has."""

    measure: str
    budget: float
    chosen: float
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
            budget=found["budget"],
            chosen=found["chosen"],
            curve=[Point(**point) for point in found["curve"]],
            sets=[GuardedSet(**of_set) for of_set in found["sets"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no guard's result of this version of embedtune ({error})") from None


def guard_section(guard: Guard, *, drawn: bool = True) -> Section:
    """The curve over alpha, what was chosen, and what that costs on each guarded set."""
    over = [found.label for found in guard.sets if not found.held]
    blocks: list[Block] = [
        Text(
            f"No guarded set may lose more than {guard.budget:g} {guard.measure}. Base and tuned weights were mixed: "
            f"alpha 0 is the base model, alpha 1 the tuned one; chosen is alpha {guard.chosen:g}. The queries that "
            "chose it are not those that the table reports."
        )
    ]
    if drawn and len(guard.curve) > 1:
        blocks.append(Figures(_alpha_curves(guard)))
    rows: list[list[str | Cell]] = [
        [
            found.label,
            number(found.base),
            number(found.unmixed),
            number(found.mixed),
            signed(found.mixed - found.base),
            interval(found.low, found.high),
            f"{found.queries:,}",
            Cell("within budget" if found.held else "over budget", "" if found.held else "worse"),
        ]
        for found in guard.sets
    ]
    columns = ["dataset", "base", "tuned", "chosen", "chosen - base", "95% interval", "queries", "verdict"]
    caption = f"{guard.measure} on the queries that report"
    blocks.append(Table(caption=caption, columns=columns, rows=rows, numeric=frozenset(range(1, 7))))
    if over:
        blocks.append(Text(f"Over budget: {', '.join(over)}."))
    return Section("The guard", blocks)


def _alpha_curves(guard: Guard) -> list[Figure]:
    alphas = [point.alpha for point in guard.curve]
    figures = []
    for heading, tables, level in (
        ("In domain", [point.in_domain for point in guard.curve], None),
        (
            "Guarded sets, on the queries that choose",
            [point.choosing for point in guard.curve],
            (-guard.budget, "budget"),
        ),
    ):
        labels = [label for label in tables[0] if all(label in table for table in tables)]
        if not labels:
            continue
        curves = [
            (label, SERIES[place % len(SERIES)], alphas, [table[label] - tables[0][label] for table in tables])
            for place, label in enumerate(labels)
        ]
        marks = [
            (alphas[place], curve[3][place], f"alpha {guard.chosen:g}")
            for curve in curves[:1]
            for place in range(len(alphas))
            if alphas[place] == guard.chosen
        ]
        svg = lines(
            curves,
            across="alpha (0: base, 1: tuned)",
            up=f"change of {guard.measure}",
            title=f"{heading}: {guard.measure} over alpha",
            marks=marks,
            level=level,
        )
        ends = "; ".join(f"{label}: {signed(values[-1])} at alpha {alphas[-1]:g}" for label, _, _, values in curves)
        figures.append(Figure(svg=svg, title=heading, text=ends + "."))
    return figures
