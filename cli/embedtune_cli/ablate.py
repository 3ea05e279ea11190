"""`embedtune ablate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .output import progress, say, show_json, show_table, show_wide_table
from .train import Watcher


def ablate(
    recipe: Annotated[Path, typer.Argument(help="The recipe that the cells change.")],
    grid: Annotated[Path, typer.Option("--grid", help="YAML: cells, each a name with its changes as key: value.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds every cell is trained with: 0, 1, ...")] = 3,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="For runs and report; runs/<grid's name> if absent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a grid of changes to a recipe, several seeds each, and report what they bring against the first cell.

    Finished runs are kept: stopped and started again, it goes on. The recipe must set data.validation and
    train.validate_every, from which convergence is read. A grid:

        base: {train.epochs: 2}
        cells:
          plain: {}
          hardness: {weighting: [{name: hardness, alpha: 5}]}

    Example: embedtune ablate recipes/text/scifact.yaml --grid grid.yaml --seeds 3 --output runs/ablation
    """
    from embedtune.report.ablation import convergence_table, final_table
    from embedtune.train.ablate import ablate as run

    folder = output or Path("runs") / grid.stem
    with progress("starting") as show:
        found = run(recipe, grid, folder, seeds=seeds, on_event=Watcher(show))
    if as_json:
        show_json(dataclasses.asdict(found))
    else:
        columns, rows = convergence_table(found)
        show_table(columns, rows, as_json=False, title="How fast")
        print()
        columns, rows = final_table(found)
        row = ["dataset", "measure", "cell"]
        against = ["difference", "difference low", "difference high", "p", "p (Holm)", "p (seeds, t)"]
        views = {
            "What it came to": [*row, "domain", "mean", "low", "high"],
            "Against the first cell": [*row, *against],
            "Won and lost": [*row, "win", "tie", "loss", "p (seeds, t, Holm)"],
        }
        show_wide_table(columns, rows, views)
    for note in found.notes:
        say(note)
    say(f"written: {folder}/report.md, report.json")
