"""The figures of a report, each with its numbers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..evaluate.compare import Comparison
from ..evaluate.guarded import Guarded
from ..negatives.audit import Audit
from .figures import DASHES, SERIES, Figure, Line, histograms, lines, spans
from .learning import Curve, Learning
from .record import RunRecord
from .spread import Side, Spread, shares
from .wording import interval, number, plural, signed

POINTS = 300  # of a curve, at most
ACROSS = "training step"
Curves = Mapping[str, Sequence[float]]


def series(index: int) -> tuple[str, str]:
    """The colour and the dashes of the index-th line of a plot."""
    return SERIES[index % len(SERIES)], DASHES[index // len(SERIES) % len(DASHES)]


def change_figure(record: RunRecord) -> Figure:
    """The difference on each dataset by the recipe's measure, with its interval."""
    rows = [
        (c.dataset, "tuned" if record.domain(c.dataset) == "in domain" else "ink", c.difference, c.low, c.high)
        for c in record.main
    ]
    title = f"Change of {record.measure} by fine-tuning"
    texts = [
        f"{c.dataset}: {signed(c.difference)}" + (f" ({interval(c.low, c.high)})" if c.low is not None else "")
        for c in record.main
    ]
    return Figure(
        name="change",
        title=title,
        caption=f"{'; '.join(texts)}. Datasets in domain are coloured, the others are not.",
        svg=spans(rows, across=f"change of {record.measure}, with its 95% interval", title=title),
    )


def differences_figure(comparisons: Sequence[Comparison], baseline: str) -> Figure:
    """The difference of each run to the baseline on each dataset."""
    runs = list(dict.fromkeys(c.run for c in comparisons))
    labels = [f"{c.run}: {c.dataset}" if len(runs) > 1 else c.dataset for c in comparisons]
    rows = [
        (label, series(runs.index(c.run))[0], c.difference, c.low, c.high)
        for label, c in zip(labels, comparisons, strict=True)
    ]
    measure = comparisons[0].measure
    title = f"{measure} against {baseline}"
    return Figure(
        name="differences",
        title=title,
        caption="; ".join(f"{c.run}, {c.dataset}: {signed(c.difference)}" for c in comparisons) + ".",
        svg=spans(rows, across=f"difference in {measure}, with its 95% interval", title=title),
    )


def loss_figure(learning: Learning) -> Figure:
    steps, losses = thinned(learning.steps, learning.losses)
    size = max(1, len(learning.steps) // POINTS)
    caption = f"From {number(losses[0], 3)} to {number(losses[-1], 3)} over {plural(len(learning.steps), 'step')}"
    return Figure(
        name="loss",
        title="Loss",
        caption=caption + (f"; a point is the mean of {size} steps." if size > 1 else "."),
        svg=lines(
            [Line(label="loss", colour="tuned", x=steps, y=losses)], title="Loss", across=ACROSS, up="training loss"
        ),
    )


def thinned(steps: Sequence[int], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most some 300 points: means of neighbours."""
    size = max(1, len(steps) // POINTS)
    starts = range(0, len(steps), size)
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in starts]
    return [sum(steps[i : i + size]) / len(steps[i : i + size]) for i in starts], means


def learning_figure(curve: Curve, kept: int | None) -> Figure:
    """The validation curve. kept: the step whose weights the run keeps, where validation chose it."""
    value = curve.at(kept)
    step, shown = (curve.best_step, curve.best) if kept is None or value is None else (kept, value)
    best = f"best {curve.best:.4f} at step {curve.best_step:,}"
    if value == curve.best:
        best = f"best {curve.best:.4f} at step {step:,}, which is kept"
    elif value is not None:
        best += f"; kept is step {step:,} with {value:.4f}"
    caption = (
        f"{plural(len(curve.values), 'validation')} on held-out training queries: {curve.values[0]:.4f} at step "
        f"{curve.steps[0]:,}, {best}."
    )
    svg = lines(
        [Line(label=curve.measure, colour="tuned", x=curve.steps, y=curve.values)],
        title="Learning curve",
        across=ACROSS,
        up=f"validation {curve.measure}",
        mark=(step, shown, f"{'best' if shown == curve.best else 'kept'} {shown:.4f}"),
    )
    return Figure(name="learning", title="Learning curve", caption=caption, svg=svg)


def learning_curves_figure(curves: Mapping[str, Sequence[Curve]]) -> Figure:
    """The curves of several runs: for each name the mean over its seeds at the steps that all validated, and a thin
    line for each seed."""
    drawn = []
    for index, (name, seeds) in enumerate(curves.items()):
        colour, dashes = series(index)
        for curve in seeds if len(seeds) > 1 else ():
            drawn.append(Line(label=name, colour=colour, dashes=dashes, x=curve.steps, y=curve.values, faint=True))
        steps = [step for step in seeds[0].steps if all(step in curve.steps for curve in seeds)]
        means = [sum(curve.at(step) or 0.0 for curve in seeds) / len(seeds) for step in steps]
        drawn.append(Line(label=name, colour=colour, dashes=dashes, x=steps, y=means))
    measure = next(iter(curves.values()))[0].measure
    svg = lines(drawn, title="Learning curves", across=ACROSS, up=f"validation {measure}")
    texts = [f"{name}: best {max(curve.best for curve in seeds):.4f}" for name, seeds in curves.items()]
    return Figure(name="curves", title="Learning curves", caption="; ".join(texts) + ".", svg=svg)


def guard_figures(guard: Guarded) -> list[Figure]:
    """The measure over alpha, in domain and on the guarded sets; as change from alpha 0 where that is on the curve."""
    points = guard.curve
    if len(points) < 2:
        return []
    from_base = points[0].alpha == 0.0
    validation = {"validation": [point.validation for point in points if point.validation is not None]}
    choosing = {label: [point.sets[label] for point in points] for label in points[0].sets}
    level = (-guard.largest_drop, "budget") if from_base else None
    figures = []
    if len(validation["validation"]) == len(points):
        figures.append(
            _alpha_figure("guard-in-domain", "In domain, on held-out training queries", validation, guard, None)
        )
    if choosing:
        figures.append(_alpha_figure("guard", "Guarded sets, on the queries that choose", choosing, guard, level))
    return figures


def _alpha_figure(name: str, title: str, curves: Curves, guard: Guarded, level: tuple[float, str] | None) -> Figure:
    alphas = [point.alpha for point in guard.curve]
    from_base = alphas[0] == 0.0
    values = {label: [v - row[0] for v in row] if from_base else list(row) for label, row in curves.items()}
    drawn = [
        Line(label=label, colour=series(index)[0], dashes=series(index)[1], x=alphas, y=row)
        for index, (label, row) in enumerate(values.items())
    ]
    mark = None
    if guard.chosen in alphas:
        mark = (guard.chosen, next(iter(values.values()))[alphas.index(guard.chosen)], f"alpha {guard.chosen:g}")
    up = f"change of {guard.measure}" if from_base else guard.measure
    shown = signed if from_base else number
    ends = "; ".join(f"{label}: {shown(row[-1])} at alpha {alphas[-1]:g}" for label, row in values.items())
    svg = lines(
        drawn, title=f"{title}: {up} over alpha", across="alpha (0: base, 1: tuned)", up=up, mark=mark, level=level
    )
    return Figure(name=name, title=title, caption=f"{ends}.", svg=svg)


def mining_figures(audit: Audit) -> list[Figure]:
    """The scores of positives, kept and dropped candidates, and how far candidates lie below the positive."""
    edges = [audit.scores[0][0], *(row[1] for row in audit.scores)]
    columns = {"positives": ("better", 2), "kept": ("tuned", 3), "dropped": ("worse", 4)}
    groups = [
        (label, colour, _shares_of([int(row[column]) for row in audit.scores]))
        for label, (colour, column) in columns.items()
        if any(row[column] for row in audit.scores)
    ]
    gap_edges = [audit.gaps[0][0], *(row[1] for row in audit.gaps)]
    total = max(1, sum(row[2] + row[3] for row in audit.gaps))
    above = sum(row[2] + row[3] for row in audit.gaps if row[1] <= 0)
    gaps = [
        (label, colour, [row[column] / total for row in audit.gaps])
        for label, colour, column in (("kept", "tuned", 2), ("dropped", "worse", 3))
    ]
    return [
        Figure(
            name="mined-scores",
            title="Scores when mined",
            caption="Each query's lowest positive, and the candidates kept and dropped, each as shares of their kind.",
            svg=histograms([("", groups)], edges, across="the score that decided", title="Scores when mined"),
        ),
        Figure(
            name="mined-gaps",
            title="How far below the positive",
            caption=f"Left of the dotted line a candidate scores above the positive: about {above / total:.1%} do.",
            svg=histograms(
                [("", gaps)], gap_edges, across="positive's score minus candidate's", title="Gaps", zero=True
            ),
        ),
    ]


def _shares_of(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def spread_figure(spread: Spread, index: int) -> Figure:
    edges = spread.edges

    def groups(side: Side) -> list[tuple[str, str, list[float]]]:
        return [
            ("best positive", "better", shares(side.positives, edges)),
            ("best other", "worse", shares(side.others, edges)),
        ]

    panels = [("before", groups(spread.before)), ("after", groups(spread.after))]
    return Figure(
        name=f"scores-{index}",
        title=spread.label,
        caption=f"A positive is first for {spread.before.first:.1%} of queries before, {spread.after.first:.1%} after.",
        svg=histograms(panels, edges, across="score", title=f"{spread.label}: scores before and after"),
    )
