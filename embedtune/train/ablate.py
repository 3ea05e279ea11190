"""`ablate`: a grid of changes to one recipe, each trained with several seeds."""

from __future__ import annotations

import filecmp
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import distributed
from ..errors import InputError, Interrupted, unknown
from ..recipe import Recipe, dump, load_recipe, load_recorded, resolve
from ..recipe.measures import parse
from ..recipe.strict_yaml import read as read_yaml
from ..report.ablation import Ablation, check_output, summarise, write_report
from ..report.record import BY_WORDS, OF_BASE, OF_ORIGIN, UNMIXED
from .preflight import measures_of, preflight

if TYPE_CHECKING:
    from .log import Listener
    from .run import KnownEvaluations

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """cells: name -> {dotted key: value}, the changes to the recipe after those of `base`, which all cells share."""

    base: dict[str, Any]
    cells: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the grid: a cell with a seed. facts: what `preflight` says of the cell."""

    cell: str
    seed: int
    folder: Path
    recipe: Recipe
    facts: Mapping[str, str] = field(default_factory=dict)


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


def plan(
    recipe: Path, grid: Grid, output: Path, seeds: int, measures: Sequence[str] = (), methods: Sequence[Path] = ()
) -> list[PlannedRun]:
    """Every run of the grid, seed by seed within a cell. All seeds hold out the same queries for validation, unless
    `data.validation.seed` says otherwise, so that their curves can be averaged.

    measures: those to report, in place of the recipe's. methods: as `load_recipe` takes them.

    Raises InputError that lists every cell whose recipe is wrong, whose data or model is missing, or whose folder holds
    a run of another recipe.
    """
    runs: list[PlannedRun] = []
    problems = []
    shared = {**grid.base, **({"evaluate.measures": list(measures)} if measures else {})}
    for name, changes in grid.cells.items():
        overrides = [f"{key}={_as_yaml(value)}" for key, value in {**shared, **changes}.items()]
        try:
            of_cell = [
                PlannedRun(
                    cell=name,
                    seed=seed,
                    folder=output / name / f"seed-{seed}",
                    recipe=_same_validation(load_recipe(recipe, [*overrides, f"train.seed={seed}"], methods=methods)),
                )
                for seed in range(seeds)
            ]
            facts = _check(of_cell)
        except InputError as error:
            problems.append(f"cell {name!r}: {error}")
        else:
            runs += [replace(run, facts=facts) for run in of_cell]
    problems += _same_recipes([run for run in runs if run.seed == 0])
    if problems:
        raise InputError("\n".join(problems))
    return runs


def _same_validation(recipe: Recipe) -> Recipe:
    """The recipe with held-out queries that do not depend on the run's seed."""
    validation = recipe.data.validation
    if validation is None or validation.seed is not None:
        return recipe
    return replace(recipe, data=replace(recipe.data, validation=replace(validation, seed=0)))


def _as_yaml(value: Any) -> str:
    """A value as `--set` takes it: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def _check(runs: Sequence[PlannedRun]) -> dict[str, str]:
    recipe = runs[0].recipe
    if recipe.data.validation is None or recipe.train.validate_every is None:
        raise InputError(
            "convergence is read from the validation curve: set data.validation (as 0.1) and train.validate_every "
            "(steps) in the recipe or in the grid's base"
        )
    if not recipe.evaluate.in_domain and not recipe.evaluate.out_of_domain:
        raise InputError("evaluate.in_domain, evaluate.out_of_domain: name a dataset that the cells are compared on")
    facts = preflight(recipe, runs[0].folder)
    for run in runs:
        kept = run.folder / "recipe.yaml"
        if kept.exists() and load_recorded(kept) != resolve(run.recipe):
            raise InputError(f"{run.folder} holds a run of another recipe; rename the cell, or remove that folder")
    return facts


def _same_recipes(runs: Sequence[PlannedRun]) -> list[str]:
    first: dict[str, str] = {}
    problems = []
    for run in runs:
        same = first.setdefault(dump(run.recipe), run.cell)
        if same != run.cell:
            problems.append(f"cell {run.cell!r}: is the same recipe as cell {same!r}")
    return problems


@dataclass(frozen=True, kw_only=True)
class How:
    """How a grid is run. seeds: of each cell, 0, 1, ...; measures: those to report, in place of the recipe's.

    primary: the measure whose tests Holm's correction counts; None: the recipe's evaluate.measure. workers: processes
    that train at the same time, each with its share of the CPU's threads and, where there are GPUs, one of them. keep:
    checkpoints and the models of all seeds stay. methods: folders of methods, besides those that the recipe names.
    """

    seeds: int = 3
    measures: Sequence[str] = ()
    primary: str | None = None
    workers: int = 1
    keep: bool = False
    methods: Sequence[Path] = ()


def plan_of(recipe: Path, grid: Grid, output: Path, how: How) -> list[PlannedRun]:
    """The runs of a grid, checked. Raises InputError for anything wrong with its recipes or options."""
    if distributed.count() > 1:
        raise InputError("ablate runs in one process; start it without torchrun or accelerate launch")
    check_output(output)
    measures = parse(how.measures) if how.measures else ()
    runs = plan(recipe, grid, output, how.seeds, measures, how.methods)
    measured = measures_of(runs[0].recipe)
    if how.primary is not None and parse([how.primary])[0] not in measured:
        raise InputError(f"--primary {how.primary}: is not measured; the runs measure {', '.join(measured)}")
    return runs


def ablate(recipe: Path, grid: Path, output: Path, how: How = How(), *, on_event: Listener | None = None) -> Ablation:
    """Trains every cell of the grid with seeds 0, 1, ... into `output/<cell>/seed-<n>`, and reports the comparison.

    Finished runs are kept and unfinished ones resumed. Of a finished run the checkpoints are removed, and its model
    where it is not the cell's first seed. Writes report.json, report.csv, report.tex, report.md and, where matplotlib
    is installed, report.html and the figures as SVG and PDF. Raises InputError for anything wrong with the grid or any
    of its recipes before the first run, and Interrupted, with the state saved, on SIGINT and SIGTERM.
    """
    cells = load_grid(grid)
    runs = plan_of(recipe, cells, output, how)
    _train_all(runs, how, on_event or (lambda event: None))
    changes = {name: {**cells.base, **of_cell} for name, of_cell in cells.cells.items()}
    folders = {name: {run.seed: run.folder for run in runs if run.cell == name} for name in changes}
    evaluate = runs[0].recipe.evaluate
    primary = parse([how.primary or evaluate.measure])[0]
    return write_report(summarise(str(recipe), changes, folders, evaluate, primary), output)


def _train_all(runs: Sequence[PlannedRun], how: How, on_event: Listener) -> None:
    finished = 0
    try:
        if how.workers == 1:
            known: KnownEvaluations = {}  # the base model's, which are measured once
            for number, run in enumerate(runs):
                on_event({"event": "phase", "name": f"{_named(run)} ({number + 1} of {len(runs)})"})
                _train_one(run, keep=how.keep, known=known, on_event=on_event)
                finished += 1
            return
        on_event({"event": "phase", "name": "train the runs", "total": len(runs)})
        for run in _in_processes(runs, how):
            finished += 1
            on_event({"event": "message", "text": f"{_named(run)} is finished ({finished} of {len(runs)})"})
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(
            f"{finished} of {len(runs)} runs are finished, the state of the others is saved; the same command "
            "continues from here"
        ) from None


def _named(run: PlannedRun) -> str:
    return f"cell {run.cell}, seed {run.seed}"


def _in_processes(runs: Sequence[PlannedRun], how: How) -> Iterator[PlannedRun]:
    """The runs as they finish, trained in processes of their own."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(how.workers):
        numbers.put(number)
    pool = ProcessPoolExecutor(how.workers, context, _begin_worker, (numbers, how.workers))
    handles = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if handles else None
    try:
        running = {pool.submit(_train_one, run, keep=how.keep): run for run in runs}
        for done in as_completed(running):
            done.result()
            yield running[done]
    except (KeyboardInterrupt, GeneratorExit):
        for process in multiprocessing.active_children():  # each finishes its step and saves it
            os.kill(process.pid or 0, signal.SIGINT)
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(numbers: Any, workers: int) -> None:
    """In a new process: its share of the threads and, where there are GPUs, one of them.

    It leaves the terminal's process group, so that Ctrl-C reaches it through the first process alone, and once.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    number = numbers.get()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    import torch

    devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if devices and devices[0]:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def _train_one(
    run: PlannedRun, *, keep: bool, known: KnownEvaluations | None = None, on_event: Listener | None = None
) -> None:
    from .run import train  # torch, only once all is checked

    train(run.recipe, run.folder, resume=True, known=known, on_event=on_event)
    if not keep:
        _tidy(run.folder, model=run.seed == 0)


def _tidy(folder: Path, *, model: bool) -> None:
    """Removes what a finished run no longer needs: its checkpoints and, unless `model`, its models.

    Results of the untouched model and of BM25 that another run of the grid has, too, become links to the same files.
    """
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for name in () if model else ("model", "adapter", UNMIXED):
        shutil.rmtree(folder / name, ignore_errors=True)
    others = [other for other in folder.parent.parent.glob("*/seed-*") if other != folder]
    for path in [path for name in (OF_BASE, OF_ORIGIN, BY_WORDS) for path in (folder / name).rglob("*.*")]:
        for other in others:
            same = other / path.relative_to(folder)
            if same.is_file() and not same.samefile(path) and filecmp.cmp(same, path, shallow=False):
                _link(same, path)
                break


def _link(file: Path, path: Path) -> None:
    """Makes `path` another name of the same file, where the file system can."""
    temporary = path.with_name(f".{path.name}.link")
    with suppress(OSError):
        os.link(file, temporary)
        temporary.replace(path)
