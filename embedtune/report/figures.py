"""Figures as SVG that stands inside a page: its colours are the page's, so they follow light, dark and print."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import fingerprint_of
from .markdown import MARK, need

WIDTH = 4.6  # inches; 9-point letters are 13 pixels high where the figure is 460 pixels wide
SERIES = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6")
DASHES = ("-", "--", ":", "-.")  # colour alone tells nothing to some readers
STYLESHEET = Path(__file__).parent / "report.css"
# matplotlib wants real colours: each name is drawn in a colour of its own, which the SVG then has by its name.
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
    "axes.titlecolor": COLOURS["muted"],
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": COLOURS["ink"],
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its caption, which also says what it shows to those who do not see it. name: of its file."""

    name: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a plot. faint: thin and without a label, as one seed beside the mean."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    dashes: str = "-"


def as_file(svg: str) -> str:
    """A figure as a file of its own, with the colours of the page's style sheet, light and dark."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLESHEET.read_text(encoding="utf-8"), re.DOTALL)[:2]
    colours = [" ".join(re.findall(r"--[\w-]+: #[0-9a-f]{6};", block)) for block in (light, dark)]
    style = f"svg {{ {colours[0]} }} @media (prefers-color-scheme: dark) {{ svg {{ {colours[1]} }} }}"
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        "><", f">{MARK}<style>{style}</style><", 1
    )


def _drawn(paint: Callable[[Any], None], *, title: str, height: float = 2.7) -> str:
    """An SVG element named `title` of what `paint` draws into a matplotlib figure. The same drawing is the same text.

    height: inches. Raises InputError where matplotlib is not installed.
    """
    need("matplotlib", "plots")
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_STYLE):
        figure = Canvas(figsize=(WIDTH, height), layout="constrained")
        paint(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
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
    curves: Sequence[Line],
    *,
    title: str,
    across: str,
    up: str,
    mark: tuple[float, float, str] | None = None,
    level: tuple[float, str] | None = None,
) -> str:
    """Curves over one axis, with a legend where several have a label. mark: (x, y, text) of a point; level: (y, text)
    of a line across. The vertical axis begins at 0 where the values come near it."""
    need("matplotlib", "plots")
    from matplotlib.ticker import MaxNLocator

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for curve in curves:
            marker = "o" if len(curve.x) <= 40 and not curve.faint else ""
            faint = {"linewidth": 0.7, "alpha": 0.5} if curve.faint else {"label": curve.label}
            axes.plot(
                curve.x, curve.y, curve.dashes, color=COLOURS[curve.colour], marker=marker, markersize=3.5, **faint
            )
        if mark is not None:
            x, y, text = mark
            axes.plot([x], [y], "o", color=COLOURS["ink"], markersize=7, fillstyle="none")
            axes.annotate(text, (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=8)
        axes.margins(x=0.12 if mark else 0.03, y=0.2 if mark else 0.06)
        counted = all(isinstance(value, int) for curve in curves for value in curve.x)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=counted, steps=[1, 2, 5, 10]))
        if level is not None:
            axes.axhline(level[0], color=COLOURS["worse"], linewidth=1, linestyle="--")
            axes.annotate(level[1], (1, level[0]), xytext=(0, 3), xycoords=("axes fraction", "data"), ha="right",
                          textcoords="offset points", fontsize=8, color=COLOURS["worse"])  # fmt: skip
        values = [value for curve in curves for value in curve.y]
        if 0 <= min(values) < max(values) / 3:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(across)
        axes.set_title(up)
        axes.grid(axis="y")
        if sum(not curve.faint for curve in curves) > 1:
            axes.legend()

    return _drawn(paint, title=title)


def spans(rows: Sequence[tuple[str, str, float, float | None, float | None]], *, across: str, title: str) -> str:
    """A point with its interval for each row of (label, colour, value, low, high), around a line at 0."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for index, (_, colour, value, low, high) in enumerate(rows):
            if low is not None and high is not None:
                axes.plot([low, high], [index, index], color=COLOURS[colour], linewidth=2.2, solid_capstyle="butt")
            axes.plot([value], [index], "o", color=COLOURS[colour], markersize=6)
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        axes.set_yticks(range(len(rows)), [clipped(label) for label, *_ in rows])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], length=0)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(across)
        axes.grid(axis="x")

    return _drawn(paint, title=title, height=0.85 + 0.36 * len(rows))


def histograms(
    panels: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[float]]]]],
    edges: Sequence[float],
    *,
    across: str,
    title: str,
    zero: bool = False,
) -> str:
    """Panels of (heading, groups of (label, colour, share of each bin)), one above another on the same axis. zero:
    whether 0 is marked."""

    def paint(figure: Any) -> None:
        grid = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)
        for axes, (heading, groups) in zip(grid[:, 0], panels, strict=True):
            for (label, colour, shares), dashes in zip(groups, DASHES, strict=False):
                axes.stairs(shares, edges, fill=True, color=COLOURS[colour], alpha=0.18)
                axes.stairs(shares, edges, color=COLOURS[colour], linewidth=1.6, label=label, linestyle=dashes)
            if zero:
                axes.axvline(0, color=COLOURS["ink"], linewidth=1, linestyle=":")
            axes.set_title(heading, color=COLOURS["ink"])
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
        grid[0, 0].legend()
        grid[-1, 0].set_xlabel(across)

    return _drawn(paint, title=title, height=1.0 + 1.3 * len(panels))


def clipped(text: str, most: int = 22) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
