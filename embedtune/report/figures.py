"""Figures as SVG that stands inside a page: its colours are the page's, so they follow light, dark and print."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from ..errors import InputError
from ..files import fingerprint_of

INSTALL = "pip install 'embedtune[plots]'"
WIDTH = 4.6  # inches; with 9-point letters they are 13 pixels high where the figure is 460 wide
SERIES = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6")
# matplotlib wants real colours: each name is drawn in one that nobody would choose, then named in the SVG.
_NAMES = ("ink", "muted", "rule", "surface", "base", "tuned", "better", "worse", *SERIES)
COLOURS = {name: f"#0a00{number:02x}" for number, name in enumerate(_NAMES)}
_STYLE = {
    "svg.hashsalt": "embedtune",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a dataset's name may hold dollar signs
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["ink"],
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def need_matplotlib() -> None:
    """Raises InputError where it is not installed."""
    if find_spec("matplotlib") is None:
        raise InputError(f"plots need matplotlib; try: {INSTALL}")


def drawn(paint: Callable[[Any], None], *, title: str, height: float = 2.7) -> str:
    """What `paint` draws into a matplotlib figure, as an SVG element named `title`. The same drawing is the same text.

    height: inches. Raises InputError where matplotlib is not installed.
    """
    need_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    return _inline(file.getvalue(), title)


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
    curves: Sequence[tuple[str, str, Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    title: str,
    marks: Sequence[tuple[float, float, str]] = (),
    whole: bool = False,
    floor: float | None = None,
    level: tuple[float, str] | None = None,
) -> str:
    """Lines of (label, colour, x, y), named in a legend where there are several. marks: (x, y, text) of points. whole:
    x counts something. floor: where y begins, where that is known. level: (y, text) of a line across."""
    need_matplotlib()
    from matplotlib.ticker import MaxNLocator

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for label, colour, x, y in curves:
            marker = "o" if len(x) <= 40 else ""
            axes.plot(x, y, color=COLOURS[colour], label=label, marker=marker, markersize=3.5)
        for x_at, y_at, text in marks:
            axes.plot([x_at], [y_at], "o", color=COLOURS["ink"], markersize=7, fillstyle="none")
            axes.annotate(text, (x_at, y_at), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8)
        axes.margins(x=0.12 if marks else 0.03, y=0.2 if marks else 0.06)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole, steps=[1, 2, 5, 10]))
        if level is not None:
            axes.axhline(level[0], color=COLOURS["worse"], linewidth=1, linestyle="--")
            axes.annotate(level[1], (1, level[0]), xytext=(0, 3), xycoords=("axes fraction", "data"), ha="right",
                          textcoords="offset points", fontsize=8, color=COLOURS["worse"])  # fmt: skip
        if floor is not None:
            axes.set_ylim(bottom=floor)
        axes.set_xlabel(across)
        axes.set_title(up, color=COLOURS["muted"])
        axes.grid(axis="y")
        if len(curves) > 1:
            axes.legend(fontsize=8)

    return drawn(paint, title=title)


def spans(rows: Sequence[tuple[str, str, float, float | None, float | None]], *, across: str, title: str) -> str:
    """A point with its interval for each row of (label, colour, value, low, high), around a line at 0."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        places = range(len(rows))
        for place, (_, colour, value, low, high) in zip(places, rows, strict=True):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=COLOURS[colour], linewidth=2.2, solid_capstyle="butt")
            axes.plot([value], [place], "o", color=COLOURS[colour], markersize=6)
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        axes.set_yticks(list(places), [clipped(label) for label, *_ in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(across)
        axes.grid(axis="x")

    return drawn(paint, title=title, height=0.85 + 0.36 * len(rows))


def histograms(
    panels: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[float]]]]],
    edges: Sequence[float],
    *,
    across: str,
    title: str,
    zero: bool = False,
) -> str:
    """One above another, panels of (heading, groups of (label, colour, share of each bin)), on the same axis."""

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)
        for axes, (heading, groups) in zip(grid[:, 0], panels, strict=True):
            for number, (label, colour, shares) in enumerate(groups):
                style = ("-", "--", ":")[number % 3]  # colour alone tells nothing to some
                axes.stairs(shares, edges, fill=True, color=COLOURS[colour], alpha=0.18)
                axes.stairs(shares, edges, color=COLOURS[colour], linewidth=1.6, label=label, linestyle=style)
            if zero:
                axes.axvline(0, color=COLOURS["ink"], linewidth=1, linestyle=":")
            axes.set_title(heading, color=COLOURS["ink"])
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        grid[0, 0].legend(fontsize=8)
        grid[-1, 0].set_xlabel(across)

    return drawn(paint, title=title, height=1.0 + 1.3 * len(panels))


def clipped(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
