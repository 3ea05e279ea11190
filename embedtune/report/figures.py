"""Figures as SVG that stands inside a page: its colours are the page's, so they follow light, dark and print."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import fingerprint_of
from .markdown import MARK, need

WIDTH = 4.6  # inches; 9-point letters are 13 pixels high where the figure is 460 pixels wide
SERIES = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6")
HATCHES = ("", "///", "...", "xxx")
DASHES = ("-", "--", ":", "-.")  # colour alone tells nothing to some readers
PDF_CREATOR = "embedtune"
SPANS = ("tuned", "ink", *SERIES[2:])  # neither of the first two says better or worse
MARKERS = ("o", "D", "s", "^", "v", "P")
STYLESHEET = Path(__file__).parent / "report.css"
# matplotlib wants real colours: each name is drawn in a colour of its own, which the SVG then has by its name.
_NAMES = ("ink", "muted", "rule", "surface", "base", "tuned", "better", "worse", *SERIES)
COLOURS = {name: f"#0a00{number:02x}" for number, name in enumerate(_NAMES)}
_NAME_OF = {colour: name for name, colour in COLOURS.items()}
Points = tuple[Sequence[float], Sequence[float]]
_STYLE = {
    **dict.fromkeys(("text.color", "legend.labelcolor"), COLOURS["ink"]),
    **dict.fromkeys(("axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), COLOURS["muted"]),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), COLOURS["rule"]),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **{"font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 9, "legend.fontsize": 8},
    **{"axes.linewidth": 0.8, "grid.linewidth": 0.6, "lines.linewidth": 1.8},
    **{"axes.axisbelow": True, "axes.titlelocation": "left"},
    **{"svg.hashsalt": "embedtune", "svg.fonttype": "none"},
    "text.parse_math": False,  # a dataset's name may hold dollar signs
}


class Drawing(str):
    """A figure as SVG, which `as_pdf` can draw once more."""

    paint: Callable[[Any], None]
    height: float


def as_file(svg: str) -> str:
    """A figure as a file of its own, with the colours of the page's style sheet, light and dark."""
    light, dark = _palettes()
    colours = [" ".join(re.findall(r"--[\w-]+: #[0-9a-f]{6};", block)) for block in (light, dark)]
    style = f"svg {{ {colours[0]} }} @media (prefers-color-scheme: dark) {{ svg {{ {colours[1]} }} }}"
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "><", f">{MARK}<style>{style}</style><", 1
    )


def as_pdf(drawing: Drawing) -> bytes:
    """The figure for print, in the light colours of the style sheet."""
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", _palettes()[0]))
    names = dict(COLOURS)
    style = {key: colours[_NAME_OF[value]] if value in _NAME_OF else value for key, value in _STYLE.items()}
    COLOURS.update({name: colours[name] for name in names})
    try:
        return _saved(drawing.paint, drawing.height, style, "pdf", {"CreationDate": None, "Creator": PDF_CREATOR})
    finally:
        COLOURS.update(names)


def _palettes() -> tuple[str, str]:
    """The declarations of the style sheet's colours, light and dark."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLESHEET.read_text(encoding="utf-8"), re.DOTALL)[:2]
    return light, dark


def _drawn(paint: Callable[[Any], None], *, title: str, height: float = 2.7) -> Drawing:
    """An SVG element named `title` of what `paint` draws into a matplotlib figure. The same drawing is the same text.

    height: inches. Raises InputError where matplotlib is not installed.
    """
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawing = Drawing(_inline(_saved(paint, height, _STYLE, "svg", metadata).decode(), title))
    drawing.paint, drawing.height = paint, height
    return drawing


def _saved(
    paint: Callable[[Any], None], height: float, style: dict[str, Any], form: str, metadata: Mapping[str, str | None]
) -> bytes:
    need("matplotlib", "plots")
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(style):
        figure = Canvas(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        file = io.BytesIO()
        figure.savefig(file, format=form, metadata=metadata)
    return file.getvalue()


def _inline(svg: str, title: str) -> str:
    """Without what only a file needs; ids made unique to this figure, as a page holds many."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    label = html.escape(title)
    opening = re.compile(r'<svg [^>]*viewBox="([^"]*)"[^>]*>')
    body = opening.sub(lambda match: f'<svg viewBox="{match[1]}" role="img" aria-label="{label}">', body, count=1)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    prefix = f"f{fingerprint_of(body)[:8]}-"
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{prefix}", body)
    names = {colour: name for name, colour in COLOURS.items()}
    body = re.sub(r"#0a00[0-9a-f]{2}", lambda m: f"var(--{names[m[0]]})", body)
    return re.sub(r">\s+<", "><", body).strip()


def lines(
    curves: Mapping[str, Sequence[Points]],
    *,
    title: str,
    across: str,
    up: str,
    mark: tuple[float, float, str] | None = None,
    level: tuple[float, str] | None = None,
    span: tuple[float, float] | None = None,
    doublings: bool = False,
) -> Drawing:
    """A line for each name: of several curves their mean, where all have a point, and each one thin beside it.

    mark: (x, y, text) of a point; level: (y, text) of a line across. span: the least and the largest value that the
    vertical axis has room for, so that figures side by side have the same. The vertical axis begins at 0 where the
    values come near it. Two names or more have a legend. doublings: the horizontal axis has equal steps for equal
    ratios.
    """
    need("matplotlib", "plots")
    from matplotlib.ticker import MaxNLocator

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for index, (name, seeds) in enumerate(curves.items()):
            style = {"color": COLOURS[SERIES[index % len(SERIES)]], "linestyle": DASHES[index % len(DASHES)]}
            for x, y in seeds if len(seeds) > 1 else ():
                axes.plot(x, y, linewidth=0.7, alpha=0.5, **style)
            x, y = mean_of(seeds)
            axes.plot(x, y, label=name, marker="o" if len(x) <= 40 else "", markersize=3.5, **style)
        if mark is not None:
            axes.plot(mark[0], mark[1], "o", color=COLOURS["ink"], markersize=7, fillstyle="none")
            axes.annotate(mark[2], mark[:2], xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8)
        axes.margins(x=0.12 if mark else 0.03, y=0.2 if mark else 0.06)
        if level is not None:
            axes.axhline(level[0], color=COLOURS["worse"], linewidth=1, linestyle="--")
            axes.annotate(level[1], (0, level[0]), xytext=(2, -10), xycoords=("axes fraction", "data"),
                          textcoords="offset points", fontsize=8, color=COLOURS["worse"])  # fmt: skip
        points = [point for seeds in curves.values() for curve in seeds for point in zip(*curve, strict=True)]
        counted = all(float(x).is_integer() for x, _ in points)
        if doublings:
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted({x for x, _ in points}), [f"{x:g}" for x in sorted({x for x, _ in points})])
            axes.minorticks_off()
            axes.tick_params(axis="x", labelrotation=60, labelsize=7)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=counted, steps=[1, 2, 5, 10]))
        if 0 <= min(y for _, y in points) < max(y for _, y in points) / 3:
            axes.set_ylim(bottom=0)
        if span is not None:
            room = 0.2 * (span[1] - span[0]) or 0.01
            axes.set_ylim(span[0] - room, span[1] + room)
        axes.set_xlabel(across)
        axes.set_title(up)
        axes.grid(axis="y")
        if len(curves) > 1:
            axes.legend()

    return _drawn(paint, title=title)


def mean_of(seeds: Sequence[Points]) -> Points:
    """The mean of several curves at the points that all of them have."""
    tables = [dict(zip(x, y, strict=True)) for x, y in seeds]
    shared = [x for x in tables[0] if all(x in table for table in tables)]
    return shared, [sum(table[x] for table in tables) / len(tables) for x in shared]


def spans(rows: Sequence[tuple[str, str, float, float | None, float | None]], *, across: str, title: str) -> Drawing:
    """A point with its interval for each row of (label, group, value, low, high), around a line at 0.

    Groups differ in colour and in the shape of the point; two or more have a legend.
    """
    groups = list(dict.fromkeys(group for _, group, *_ in rows))

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for index, (_, group, value, low, high) in enumerate(rows):
            number = groups.index(group)
            colour = COLOURS[SPANS[number % len(SPANS)]]
            if low is not None and high is not None:
                axes.plot([low, high], [index, index], color=colour, linewidth=2.2, solid_capstyle="butt")
            first = group if [row[1] for row in rows].index(group) == index else None
            axes.plot([value], [index], MARKERS[number % len(MARKERS)], color=colour, markersize=6.5, label=first)
        if len(groups) > 1:
            figure.legend(loc="outside upper left", ncols=3)
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        axes.set_yticks(range(len(rows)), [clipped(label) for label, *_ in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=5)  # of more than these the labels overlap
        axes.margins(x=0.08)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(across)
        axes.grid(axis="x")

    legend = 0.25 * -(-len(groups) // 3) if len(groups) > 1 else 0
    return _drawn(paint, title=title, height=0.85 + legend + 0.36 * len(rows))


def histograms(
    panels: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[float]]]]],
    edges: Sequence[float],
    *,
    across: str,
    title: str,
    zero: bool = False,
    most: float | None = None,
) -> Drawing:
    """Panels of (heading, groups of (label, colour, share of each bin)), one above another on the same axis. zero:
    whether 0 is marked. most: the largest share that there is room for, so that figures side by side have the same."""

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)
        for axes, (heading, groups) in zip(grid[:, 0], panels, strict=True):
            for (label, colour, shares), dashes, hatch in zip(groups, DASHES, HATCHES, strict=False):
                axes.stairs(shares, edges, fill=True, color=COLOURS[colour], alpha=0.18)
                axes.stairs(shares, edges, fill=True, facecolor="none", edgecolor=COLOURS[colour], hatch=hatch, lw=0)
                axes.stairs(shares, edges, color=COLOURS[colour], linewidth=1.6, label=label, linestyle=dashes)
            if zero:
                axes.axvline(0, color=COLOURS["ink"], linewidth=1, linestyle=":")
            axes.set_title(heading, color=COLOURS["ink"])
            axes.set_yticks([])
            if most is not None:
                axes.set_ylim(0, 1.08 * most)
            axes.spines["left"].set_visible(False)
        grid[0, 0].legend()
        grid[-1, 0].set_xlabel(across)

    return _drawn(paint, title=title, height=1.0 + 1.3 * len(panels))


def clipped(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
