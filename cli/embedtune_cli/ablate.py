"""`embedtune ablate`: train a grid of changes to a recipe and compare the cells."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from . import options
from .options import option, output_option
from .output import progress, say, show_json, show_tables, views_of
from .train import Watcher


def ablate(
    recipe: options.RecipeArgument,
    grid: Annotated[Path, option("FILE", "The grid (YAML): named cells of changed keys.", "--grid")],
    seeds: Annotated[int, option("N", "Train each cell with the seeds 0 to N - 1.", min=1)] = 3,
    output: Annotated[Path | None, output_option("DIR", "runs/ and the grid's name")] = None,
    as_json: options.Json = False,
) -> None:
    """Train a grid of changes to a recipe with several seeds, and compare each cell with the first one.

    Runs that are finished are kept, so the same command continues after a stop. The recipe must set data.validation
    and train.validate_every, because convergence is read from the validations. A grid looks like this:

        base: {train.epochs: 2}
        cells:
          plain: {}
          hardness: {weighting: [{name: hardness, alpha: 5}]}

    Example: embedtune ablate recipes/text/scifact.yaml --grid grid.yaml --seeds 3 --output runs/ablation
    """
    from embedtune.report.ablation import convergence_table, final_table
    from embedtune.train.ablate import ablate as run_grid

    folder = output or Path("runs") / grid.stem
    with progress("starting") as show:
        ablation = run_grid(recipe, grid, folder, seeds=seeds, on_event=Watcher(show))
    if as_json:
        show_json(dataclasses.asdict(ablation))
    else:
        row = ["dataset", "measure", "cell"]
        against = ["difference", "difference low", "difference high", "p", "p (Holm)", "p (seeds, t)"]
        views = {
            "Results": [*row, "domain", "mean", "low", "high"],
            "Difference to the first cell": [*row, *against],
            "Queries won and lost": [*row, "win", "tie", "loss", "p (seeds, t, Holm)"],
        }
        final = views_of(("Results", *final_table(ablation)), views)
        show_tables([("Convergence", *convergence_table(ablation)), *final])
    for note in ablation.notes:
        say(note)
    say(f"written: {folder}/report.md, report.json")
