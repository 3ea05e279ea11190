"""`ablate`: a grid of changes to one recipe, each trained with several seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import distributed
from ..errors import InputError, Interrupted, unknown
from ..recipe import Recipe, dump, load_recipe, load_recorded, resolve
from ..recipe.strict_yaml import read as read_yaml
from ..report.ablation import Ablation, check_output, summarise, write_report
from .preflight import preflight

if TYPE_CHECKING:
    from .log import Listener

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """cells: name -> {dotted key: value}, the changes to the recipe after those of `base`, which all cells share."""

    base: dict[str, Any]
    cells: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the grid: a cell with a seed."""

    cell: str
    seed: int
    folder: Path
    recipe: Recipe


def load_grid(path: Path) -> Grid:
    """Reads `{base: {key: value}, cells: {name: {key: value}}}`. Raises InputError that says what is wrong with it."""
    values = read_yaml(path)
    form = "{base: {train.epochs: 1}, cells: {plain: {}, harder: {train.learning_rate: 1e-4}}}"
    if not isinstance(values, dict) or not isinstance(values.get("cells"), dict):
        raise InputError(f"{path}: expected a mapping with `cells`, as in {form}")
    for key in values.keys() - {"base", "cells"}:
        raise InputError(f"{path}: {unknown('key', str(key), ['base', 'cells'])}")
    base, cells = values.get("base") or {}, {str(name): changes or {} for name, changes in values["cells"].items()}
    for where, changes in (("base", base), *((f"cell {name!r}", changes) for name, changes in cells.items())):
        if not isinstance(changes, dict) or not all(isinstance(key, str) for key in changes):
            raise InputError(f"{path}: {where}: expected changes as key: value, as in train.epochs: 2, got {changes!r}")
        block = changes.get("train")
        if "train.seed" in changes or (isinstance(block, dict) and "seed" in block):
            raise InputError(f"{path}: {where} sets train.seed; --seeds says how many seeds every cell is trained with")
    for name in cells:
        if not _NAME.fullmatch(name):
            raise InputError(f"{path}: cell {name!r}: its name becomes a folder; use letters, digits and . _ + = -")
    if len(cells) < 2:
        raise InputError(f"{path}: a grid needs two cells at least; the others are compared with the first")
    return Grid(base=base, cells=cells)


def plan(recipe: Path, grid: Grid, output: Path, seeds: int) -> list[PlannedRun]:
    """Every run of the grid, seed by seed within a cell.

    Raises InputError that lists every cell whose recipe is wrong, whose data or model is missing, or whose folder holds
    a run of another recipe.
    """
    runs: list[PlannedRun] = []
    problems = []
    for name, changes in grid.cells.items():
        overrides = [f"{key}={_as_yaml(value)}" for key, value in {**grid.base, **changes}.items()]
        try:
            of_cell = [
                PlannedRun(
                    cell=name,
                    seed=seed,
                    folder=output / name / f"seed-{seed}",
                    recipe=load_recipe(recipe, [*overrides, f"train.seed={seed}"]),
                )
                for seed in range(seeds)
            ]
            _check(of_cell)
        except InputError as error:
            problems.append(f"cell {name!r}: {error}")
        else:
            runs += of_cell
    problems += _same_recipes([run for run in runs if run.seed == 0])
    if problems:
        raise InputError("\n".join(problems))
    return runs


def _as_yaml(value: Any) -> str:
    """A value as `--set` takes it: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _check(runs: Sequence[PlannedRun]) -> None:
    recipe = runs[0].recipe
    if recipe.data.validation is None or recipe.train.validate_every is None:
        raise InputError(
            "convergence is read from the validation curve: set data.validation (as 0.1) and train.validate_every "
            "(steps) in the recipe or in the grid's base"
        )
    if not recipe.evaluate.in_domain and not recipe.evaluate.out_of_domain:
        raise InputError("evaluate.in_domain, evaluate.out_of_domain: name a dataset that the cells are compared on")
    preflight(recipe, runs[0].folder)
    for run in runs:
        kept = run.folder / "recipe.yaml"
        if kept.exists() and load_recorded(kept) != resolve(run.recipe):
            raise InputError(f"{run.folder} holds a run of another recipe; rename the cell, or remove that folder")


def _same_recipes(runs: Sequence[PlannedRun]) -> list[str]:
    first: dict[str, str] = {}
    problems = []
    for run in runs:
        same = first.setdefault(dump(run.recipe), run.cell)
        if same != run.cell:
            problems.append(f"cell {run.cell!r}: is the same recipe as cell {same!r}")
    return problems


def ablate(recipe: Path, grid: Path, output: Path, *, seeds: int = 3, on_event: Listener | None = None) -> Ablation:
    """Trains every cell of the grid with seeds 0, 1, ... into `output/<cell>/seed-<n>`, and reports the comparison.

    Finished runs are kept and unfinished ones resumed. Writes report.json, report.md and, where matplotlib is
    installed, curves.svg. Raises InputError for anything wrong with the grid or any of its recipes before the first
    run, and Interrupted, with the state saved, on SIGINT and SIGTERM.
    """
    if distributed.count() > 1:
        raise InputError("ablate runs in one process; start it without torchrun or accelerate launch")
    cells = load_grid(grid)
    check_output(output)
    runs = plan(recipe, cells, output, seeds)
    from .run import train  # torch, only once all is checked

    for number, run in enumerate(runs):
        if on_event is not None:
            on_event({"event": "phase", "name": f"cell {run.cell}, seed {run.seed} ({number + 1} of {len(runs)})"})
        try:
            train(run.recipe, run.folder, resume=True, on_event=on_event)
        except Interrupted:
            raise Interrupted(
                f"{number} of {len(runs)} runs are finished, the state of {run.folder} is saved; "
                "the same command continues from here"
            ) from None
    changes = {name: {**cells.base, **of_cell} for name, of_cell in cells.cells.items()}
    folders = {name: {run.seed: run.folder for run in runs if run.cell == name} for name in changes}
    return write_report(summarise(str(recipe), changes, folders, runs[0].recipe.evaluate), output)
