"""`embedtune ablate`: train a grid of changes to a recipe and compare the cells."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from . import options
from .options import option, output_option, switch
from .output import progress, say, show_json, show_tables, views_of
from .train import Watcher

if TYPE_CHECKING:
    from embedtune.train.ablate import How


def ablate(
    recipe: options.RecipeArgument,
    grid: Annotated[Path, option("FILE", "The grid (YAML): named cells of changed keys.", "--grid")],
    methods: options.MethodFolders = [],  # noqa: B006
    seeds: Annotated[int, option("N", "Train each cell with the seeds 0 to N - 1.", min=1)] = 3,
    output: Annotated[Path | None, output_option("DIR", "runs/ and the grid's name")] = None,
    measures: Annotated[
        str | None, option("NAMES", options.MEASURES_HELP, "--measures", default="the recipe's evaluate.measures")
    ] = None,
    primary: Annotated[
        str | None,
        option(
            "NAME",
            "The measure that decides: Holm's correction counts its tests alone.",
            default="the recipe's evaluate.measure",
        ),
    ] = None,
    workers: Annotated[int, option("N", "Train so many runs at the same time, on a GPU each.", min=1)] = 1,
    keep: Annotated[
        bool, switch("--keep", "Keep the checkpoints, and the models of all seeds, not of each cell's first alone.")
    ] = False,
    dry_run: Annotated[bool, switch("--dry-run", "Print the plan; start nothing.")] = False,
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

    The folder then holds report.html, report.md, report.csv, report.tex and the figures as SVG and PDF. All seeds hold
    out the same queries for validation.
    """
    from embedtune.report.ablation import convergence_table, final_table, pivot
    from embedtune.train.ablate import How
    from embedtune.train.ablate import ablate as run_grid

    folder = output or Path("runs") / grid.stem
    names = tuple((measures or "").replace(",", " ").split())
    how = How(seeds=seeds, measures=names, primary=primary, workers=workers, keep=keep, methods=methods)
    if dry_run:
        _show_plan(recipe, grid, folder, how, as_json)
        return
    with progress("starting") as show:
        ablation = run_grid(recipe, grid, folder, how, on_event=Watcher(show))
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
        title = f"{ablation.primary} (* differs from {next(iter(ablation.cells))}, p < .05 after Holm's correction)"
        show_tables([(title, *pivot(ablation)), ("Convergence", *convergence_table(ablation)), *final])
    for note in ablation.notes:
        say(note)
    say(f"written: {folder}/report.html, .md, .csv, .tex and .json")


def _show_plan(recipe: Path, grid: Path, folder: Path, how: How, as_json: bool) -> None:
    from embedtune.train.ablate import load_grid, plan_of

    runs = plan_of(recipe, load_grid(grid), folder, how)
    cells = {run.cell: run.facts for run in runs if run.seed == 0}
    done = sum((run.folder / "summary.json").exists() for run in runs)
    if as_json:
        show_json({"runs": len(runs), "finished": done, "cells": cells})
        return
    shown = [name for name in next(iter(cells.values())) if len({facts.get(name) for facts in cells.values()}) > 1]
    rows: list[list[object]] = [[cell, *map(facts.get, shown)] for cell, facts in cells.items()]
    show_tables([("What differs between the cells", ["cell", *shown], rows)])
    for name, fact in next(iter(cells.values())).items():
        if name not in shown:
            say(f"{name}: {fact}")
    say(f"{len(runs):,} runs, {done:,} of them finished; nothing was trained")
