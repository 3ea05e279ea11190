"""Learning curves as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError
from ..files import whole_file
from .learning import Curve

INSTALL = "pip install 'embedtune[plots]'"
_STYLES = ("-", "--", ":", "-.")
_COLOURS = 10


def draw_curves(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """One thick line a name, the mean over its seeds where all were validated, and a thin one for each seed.

    The same curves give the same file. Raises InputError where matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise InputError(f"plots need matplotlib; try: {INSTALL}")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "embedtune", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for place, (name, seeds) in enumerate(curves.items()):
            colour, style = f"C{place % _COLOURS}", _STYLES[place // _COLOURS % len(_STYLES)]
            for curve in seeds if len(seeds) > 1 else ():
                axes.plot(curve.steps, curve.values, color=colour, linestyle=style, linewidth=0.6, alpha=0.5)
            steps, means = _mean(seeds)
            axes.plot(steps, means, color=colour, linestyle=style, linewidth=2, marker="o", markersize=3, label=name)
        axes.set_xlabel("training steps")
        axes.set_ylabel(f"validation {next(iter(curves.values()))[0].measure}")
        axes.grid(alpha=0.3)
        axes.legend()
        with whole_file(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _mean(curves: Sequence[Curve]) -> tuple[list[int], list[float]]:
    tables = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = [step for step in tables[0] if all(step in table for table in tables)]
    return steps, [sum(table[step] for table in tables) / len(tables) for step in steps]
