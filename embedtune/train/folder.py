"""A run folder: who may write to it, what it was started with, and whether this is the same run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..errors import InputError
from ..files import FolderKind, check_folder, write_json, write_text
from ..recipe import Recipe, dump
from ..recipe.strict_yaml import flattened
from ..report.record import read_summary
from . import checkpoint

_FILES = {"recipe.yaml", "environment.json", "left-out.txt", "log.jsonl", "guard.json", "summary.json", "report.html"}
_FOLDERS = {"checkpoints", "negatives", "model", "model-unmixed", "adapter", "adapter-unmixed", "mteb", "evaluation",
            "evaluation-base", "evaluation-unmixed"}  # fmt: skip
_TRACKERS = {"embedtune", "wandb", "trackio"}
_HIDDEN = re.compile(r"\.(lock.*|finishing|.+\.\w{8})")  # the last: what a killed process was still writing
LEFT_OUT = "left-out.txt"  # the items with a broken image, a line each


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Raises InputError unless a run may be written into the folder: absent, empty, or a run.

    overwrite: the run must hold nothing but what a run writes, for all of it will be removed. Nothing is written here.
    """
    started = (folder / "recipe.yaml").is_file()
    if started and overwrite and (others := _others({path.name for path in folder.iterdir()})):
        raise InputError(f"{folder}: holds {min(others)!r}, which no run writes; move it, or choose another --output")
    if overwrite or not started:  # else `claim` goes on with it or refuses it
        check_folder(folder, RUN, overwrite=True)


def _others(names: set[str]) -> set[str]:
    return {name for name in names - _FILES - _FOLDERS - _TRACKERS if not _HIDDEN.fullmatch(name)}


def _are_of_run(names: set[str]) -> bool:
    return not _others(names) and ("recipe.yaml" in names or all(_HIDDEN.fullmatch(name) for name in names))


RUN = FolderKind(verb="train", unmarked=_are_of_run)


def claim(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> bool:
    """Prepares the folder for a run, under its lock; True where a run in it is to go on.

    Raises InputError where the folder is in use by something else, or holds a run of another recipe.
    """
    there = [path for path in folder.iterdir() if not path.name.startswith(".lock")]
    if resume and (folder / "recipe.yaml").exists():
        _refuse_other_recipe(folder, recipe)
        checkpoint.clear_leftovers(folder)
        checkpoint.clear_leftovers(folder / "checkpoints")
        return True
    if there and overwrite:
        for path in there:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif there:
        raise InputError(
            f"{folder}: exists already; go on with --resume, start again with --overwrite, or choose another --output"
        )
    write_text(folder / "recipe.yaml", dump(recipe))
    return False


def withdraw(folder: Path) -> None:
    """Takes back the claim of a run that was refused before it had done anything, so that it can be tried again."""
    own = {".lock", ".lock.gate", "recipe.yaml", "environment.json", LEFT_OUT}
    if any(path.is_file() and path.name not in own and path.stat().st_size for path in folder.rglob("*")):
        return
    for path in folder.iterdir():
        if not path.name.startswith(".lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    then = flattened(yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")))
    now = flattened(yaml.safe_load(dump(recipe)))
    changed = [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
    if changed:
        listed = "; ".join(f"{key}: {then.get(key)!r} -> {now.get(key)!r}" for key in changed[:5])
        raise InputError(f"{folder}: --resume with a changed recipe ({listed}); use the old one, or another --output")


def keep_environment(folder: Path, recipe: Recipe, facts: dict[str, Any], *, resumed: bool) -> list[str]:
    """Writes environment.json, or on resume compares with it. Returns what differs without changing the result's kind.

    Raises InputError where the data or the base weights are no longer what the run was started with.
    """
    path = folder / "environment.json"
    if not (resumed and path.exists()):
        write_json(path, {"embedtune": __version__, "seed": recipe.train.seed, **facts})
        return []
    then = json.loads(path.read_text(encoding="utf-8"))
    for kind, found in facts["fingerprints"].items():
        if then["fingerprints"].get(kind) != found:
            raise InputError(f"{folder}: --resume, but {kind} changed since the run was started; start a new run")
    return [
        f"{key} was {then.get(key)!r}, is {facts[key]!r}: the weights will not be bit-identical to an uninterrupted run"
        for key in ("threads", "processes", "device", "versions")
        if then.get(key) != facts[key]
    ]


def finished(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run."""
    return read_summary(folder) or None
