"""What a run's guard found, as its report shows it: base and tuned weights mixed, and the cost."""

from __future__ import annotations

from ..evaluate.guarded import Guarded
from .document import Block, Cell, Figure, Figures, Section, Table, Text, interval, number, signed
from .figures import SERIES, lines


def guard_section(guard: Guarded, *, drawn: bool = True) -> Section:
    """The budget, the curve over alpha and what was chosen, and what that costs on each guarded set."""
    over = [found.label for found in guard.sets if found.missed]
    blocks: list[Block] = [Text(_in_words(guard))]
    if drawn and len(guard.curve) > 1:
        blocks.append(Figures(_alpha_curves(guard)))
    blocks.append(_table(guard))
    if over:
        blocks.append(Text(f"Over budget: {', '.join(over)}."))
    return Section("The guard", blocks)


def _in_words(guard: Guarded) -> str:
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


def _table(guard: Guarded) -> Table:
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


def _alpha_curves(guard: Guarded) -> list[Figure]:
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
    guard: Guarded,
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
