"""What each figure of a report draws. The templates call these with a title and add the caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..evaluate.compare import Comparison
from ..evaluate.guarded import Guarded
from ..evaluate.sizes import Sizes
from ..negatives.audit import Audit
from .figures import Drawing, Points, histograms, lines, spans
from .learning import Curve, Learning
from .spread import Side, Spread, shared_edges, shares

POINTS = 300  # of a curve, at most
ACROSS = "training step"


def differences(title: str, comparisons: Sequence[Comparison], groups: Sequence[str]) -> Drawing:
    """The difference of each comparison with its interval, drawn alike within a group."""
    several = len({c.run for c in comparisons}) > 1
    rows = [
        (f"{c.run}: {c.dataset}" if several else c.dataset, group, c.difference, c.low, c.high)
        for c, group in zip(comparisons, groups, strict=True)
    ]
    return spans(rows, across=f"difference in {comparisons[0].measure}, with its 95% interval", title=title)


def quality_by_bytes(title: str, measured: Mapping[str, Sizes]) -> Drawing:
    """The measure of each way to store vectors over its bytes: a line for each dataset and precision."""
    curves: dict[str, list[Points]] = {}
    for label, sizes in measured.items():
        for quantize in dict.fromkeys(cell.quantize for cell in sizes.cells):
            cells = sorted((c for c in sizes.cells if c.quantize == quantize), key=lambda cell: cell.bytes)
            name = "float32" if quantize == "none" else quantize
            points = [c.bytes + c.rescore_bytes for c in cells], [c.measures[sizes.measure] for c in cells]
            curves[f"{label}: {name}" if len(measured) > 1 else name] = [points]
    measure = next(iter(measured.values())).measure
    return lines(curves, title=title, across="bytes of one stored vector", up=measure, doublings=True)


def loss(title: str, learning: Learning) -> Drawing:
    return lines({"loss": [thinned(learning)]}, title=title, across=ACROSS, up="training loss")


def thinned(learning: Learning) -> Points:
    """The losses by step as at most some 300 points: means of neighbours."""
    size = points_to_mean(learning)
    steps, losses = learning.steps, learning.losses
    slices = [slice(start, start + size) for start in range(0, len(steps), size)]
    return [_mean(steps[part]) for part in slices], [_mean(losses[part]) for part in slices]


def points_to_mean(learning: Learning) -> int:
    """How many steps a point of the loss stands for."""
    return max(1, len(learning.steps) // POINTS)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def curves(title: str, named: Mapping[str, Sequence[Curve]], mark: tuple[float, float, str] | None = None) -> Drawing:
    """Learning curves: for each name those of its seeds."""
    points: dict[str, list[Points]] = {
        name: [(curve.steps, curve.values) for curve in seeds] for name, seeds in named.items()
    }
    measure = next(iter(named.values()))[0].measure
    return lines(points, title=title, across=ACROSS, up=f"validation {measure}", mark=mark)


def alphas(title: str, guard: Guarded, changes: Mapping[str, Sequence[float]], *, budget: bool) -> Drawing:
    """The changes of the measure over alpha, on the scale that all of them share. budget: whether it is drawn."""
    x = [point.alpha for point in guard.curve]
    mark = None
    drawn = [value for _, rows, _ in alpha_changes(guard) for row in rows.values() for value in row]
    if guard.chosen in x:
        mark = (guard.chosen, next(iter(changes.values()))[x.index(guard.chosen)], f"alpha {guard.chosen:g}")
    return lines(
        {label: [(x, row)] for label, row in changes.items()},
        title=title,
        across="alpha (0: base, 1: tuned)",
        up=f"change of {guard.measure} from alpha {x[0]:g}",
        mark=mark,
        level=(-guard.largest_drop, "budget") if budget and x[0] == 0 else None,
        span=(min(*drawn, -guard.largest_drop), max(drawn)),
    )


def alpha_changes(guard: Guarded) -> list[tuple[str, dict[str, list[float]], bool]]:
    """(title, label -> change of the measure from the curve's first alpha, whether the budget holds it).

    Of the held-out training queries, and of the guarded sets, where there is such a curve.
    """
    points = guard.curve
    validation = [point.validation for point in points if point.validation is not None]
    curves = [
        ("In domain, on held-out training queries", {"validation": validation}, False),
        (
            "Guarded sets, on the queries that choose",
            {label: [point.sets[label] for point in points] for label in (points[0].sets if points else {})},
            True,
        ),
    ]
    return [
        (title, {label: [value - row[0] for value in row] for label, row in rows.items()}, budget)
        for title, rows, budget in curves
        if len(points) > 1 and rows and all(len(row) == len(points) for row in rows.values())
    ]


def mined_scores(title: str, audit: Audit) -> Drawing:
    """The scores of each query's lowest positive, and of the candidates kept and dropped, as shares of each kind."""
    columns = zip(("positives", "kept", "dropped"), ("better", "tuned", "worse"), (2, 3, 4), strict=True)
    groups = []
    for label, colour, column in columns:
        counts = [int(row[column]) for row in audit.scores]
        if any(counts):
            groups.append((label, colour, [count / sum(counts) for count in counts]))
    return histograms([("", groups)], _edges(audit.scores), across="the score that decided", title=title)


def mined_gaps(title: str, audit: Audit) -> Drawing:
    """How far the candidates kept and dropped lie below the positive, as shares of all candidates."""
    total = max(1, sum(row[2] + row[3] for row in audit.gaps))
    groups = [
        ("kept", "tuned", [row[2] / total for row in audit.gaps]),
        ("dropped", "worse", [row[3] / total for row in audit.gaps]),
    ]
    across = "positive's score minus candidate's"
    return histograms([("", groups)], _edges(audit.gaps), across=across, title=title, zero=True)


def above_the_positive(audit: Audit) -> float:
    """The share of candidates in the bins above the positive."""
    counts = [(high <= 0, kept + dropped) for _, high, kept, dropped in audit.gaps]
    return sum(count for above, count in counts if above) / max(1, sum(count for _, count in counts))


def _edges(bins: Sequence[tuple[float, ...]]) -> list[float]:
    return [bins[0][0], *(row[1] for row in bins)]


def scores(title: str, spread: Spread, spreads: Sequence[Spread]) -> Drawing:
    """The scores of each query's best positive and best other document, before above after, on the scales that all
    spreads share."""
    edges = shared_edges(spreads)

    def groups(side: Side) -> list[tuple[str, str, list[float]]]:
        return [
            ("best positive", "better", shares(side.positives, edges)),
            ("best other", "worse", shares(side.others, edges)),
        ]

    sides = [side for one in spreads for side in (one.before, one.after)]
    most = max(share for side in sides for _, _, row in groups(side) for share in row)
    panels = [("before", groups(spread.before)), ("after", groups(spread.after))]
    return histograms(panels, edges, across="score", title=title, most=most)
