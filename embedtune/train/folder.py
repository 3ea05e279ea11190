"""A run folder: what it was started with, whether it may be resumed or replaced, and whether all processes see it."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__, distributed
from ..data.jsonl import read_json_object
from ..errors import InputError
from ..evaluate.domains import read_summary
from ..files import GATE, LOCK, FolderKind, check_folder, first_line, write_json, write_text
from ..models.folders import SUMMARY
from ..recipe import Recipe, dump, load_recorded, method_fingerprints, plain
from ..recipe.strict_yaml import flattened
from . import checkpoint, earlier

LEFT_OUT = "left-out.txt"  # the items with a broken image, a line each
_FILES = {"recipe.yaml", "environment.json", LEFT_OUT, "log.jsonl", "guard.json", "summary.json", "report.html"}
_FOLDERS = {"checkpoints", "negatives", "model", "model-unmixed", "adapter", "adapter-unmixed", "mteb", "evaluation",
            "evaluation-base", "evaluation-origin", "evaluation-unmixed", "evaluation-bm25"}  # fmt: skip
_TRACKERS = {"embedtune", "wandb", "trackio"}
_BEFORE_TRAINING = {"recipe.yaml", LEFT_OUT, "log.jsonl", "negatives"}  # older than environment.json
# The last: what a killed process was still writing.
_HIDDEN = re.compile(r"\.(lock.*|finishing|validation|earlier|earlier-moving|.+\.\w{8})")
SEEN_WITHIN = 60.0  # seconds after which a machine that does not see the run's folder is taken not to share it


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Raises InputError unless a run may be written into the folder: absent, empty, or a run.

    overwrite: the run must hold nothing but what a run writes, for all of it will be removed. Nothing is written here.
    """
    names = {path.name for path in folder.iterdir()} if (folder / "recipe.yaml").is_file() else set()
    if names and not _is_marked(names):
        raise InputError(
            f"{folder}: holds a recipe.yaml and no environment.json, so it is no run; choose another --output"
        )
    if names and overwrite and (others := _others(names)):
        raise InputError(f"{folder}: holds {min(others)!r}, which no run writes; move it, or choose another --output")
    if overwrite or not names:  # else `claim` resumes it or refuses it
        check_folder(folder, RUN, overwrite=True)


def _others(names: set[str]) -> set[str]:
    return {name for name in names - _FILES - _FOLDERS - _TRACKERS if not _HIDDEN.fullmatch(name)}


def _is_marked(names: set[str]) -> bool:
    """Whether a run made the folder with these names: it recorded its environment, or was killed before it did."""
    shown = {name for name in names if not _HIDDEN.fullmatch(name)}
    begun = LOCK in names and shown <= _BEFORE_TRAINING
    return "environment.json" in names or begun or not names.isdisjoint({earlier.EARLIER, earlier.MOVING})


def _are_of_run(names: set[str]) -> bool:
    return not _others(names) and (_is_marked(names) or all(_HIDDEN.fullmatch(name) for name in names))


RUN = FolderKind(verb="train", unmarked=_are_of_run)


@dataclass(frozen=True)
class Claim:
    """What a run finds in its folder: whether it resumes, and the summary of a run that is finished."""

    resumed: bool
    summary: dict[str, Any] | None


def claim(folder: Path, recipe: Recipe, *, resume: bool, overwrite: bool) -> Claim:
    """Prepares the folder for a run, under its lock.

    overwrite: an earlier run is set aside, to be removed after the first step. Raises InputError where the folder holds
    something else, or a run of another recipe.
    """
    if not (resume and (folder / "recipe.yaml").exists() and (folder / earlier.EARLIER).exists()):
        earlier.put_back(folder)  # of a start with --overwrite that was killed before its first step
    entries = {path.name for path in earlier.entries(folder)}
    if resume and "recipe.yaml" in entries:
        changed = _changed_keys(folder, recipe)
        _refuse_changed(folder, method_fingerprints(recipe.chosen()))
        checkpoint.clear_leftovers(folder)
        checkpoint.clear_leftovers(folder / "checkpoints")
        return Claim(True, None if changed else read_summary(folder) or None)
    if entries and overwrite:
        checkpoint.clear_leftovers(folder)
        earlier.set_aside(folder)
    elif entries:
        raise InputError(
            f"{folder}: exists already; go on with --resume, start again with --overwrite, or choose another --output"
        )
    try:
        write_text(folder / "recipe.yaml", dump(recipe))
    except (InputError, OSError):
        earlier.put_back(folder)
        raise
    return Claim(False, None)


def withdraw(folder: Path) -> None:
    """Empties the folder of a run that was refused before it did anything, so that it can be tried again.

    Where it was to replace an earlier run, and had done no step, the folder holds that run again.
    """
    if (folder / earlier.EARLIER).exists():
        earlier.put_back(folder)
        return
    claimed = {LOCK, GATE, "recipe.yaml", "environment.json", LEFT_OUT}
    if any(path.is_file() and path.name not in claimed and path.stat().st_size for path in folder.rglob("*")):
        return
    for path in earlier.entries(folder):
        earlier.remove(path)


def _changed_keys(folder: Path, recipe: Recipe) -> list[str]:
    """The recipe's keys that are not those of the run that resumes. Raises InputError where they may not change.

    Once training is done, `evaluate` may change: the run is then evaluated again.
    """
    then, now = flattened(plain(load_recorded(folder / "recipe.yaml"))), flattened(plain(recipe))
    changed = [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
    evaluation = all(key.startswith("evaluate.") for key in changed)
    if changed and not (evaluation and checkpoint.is_done(folder / "checkpoints")):
        listed = "; ".join(f"{key}: {then.get(key)!r} -> {now.get(key)!r}" for key in changed[:5])
        raise InputError(f"{folder}: --resume with a changed recipe ({listed}); use the old one, or another --output")
    return changed


def keep_environment(folder: Path, recipe: Recipe, facts: dict[str, Any], *, resumed: bool) -> list[str]:
    """Writes environment.json; on resume compares with it, and returns a sentence for each harmless difference.

    A recipe whose `evaluate` changed replaces the run's here, when all that it names is loaded. Raises InputError where
    the data or the base weights are not those that the run was started with.
    """
    path = folder / "environment.json"
    if not (resumed and path.exists()):
        write_json(path, {"embedtune": __version__, "seed": recipe.train.seed, **facts})
        return []
    _refuse_changed(folder, facts["fingerprints"])
    then = read_json_object(path)
    if then.get("dtype", facts["dtype"]) != facts["dtype"]:
        raise InputError(
            f"{folder}: --resume, but the run was started with weights in {then['dtype']}, and they are in "
            f"{facts['dtype']} here (model.dtype: auto follows the precision that the machine has); resume it on a "
            "machine like the first, or start a new run"
        )
    if _changed_keys(folder, recipe):
        (folder / SUMMARY).unlink(missing_ok=True)
        write_text(folder / "recipe.yaml", dump(recipe))
        write_json(path, then | {"fingerprints": facts["fingerprints"]})
    return [
        f"{key} was {then.get(key)!r}, is {facts[key]!r}: the weights will not be bit-identical to an uninterrupted run"
        for key in ("threads", "processes", "device", "precision", "versions")
        if then.get(key) != facts[key]
    ]


def _refuse_changed(folder: Path, fingerprints: dict[str, str]) -> None:
    """Raises InputError where data, weights or a method's files are not those that the run was started with."""
    path = folder / "environment.json"
    recorded = read_json_object(path).get("fingerprints") if path.exists() else {}
    if not isinstance(recorded, dict):
        raise InputError(f"{path}: damaged (fingerprints); start a new run")
    for kind, fingerprint in fingerprints.items():
        if recorded.get(kind, fingerprint) != fingerprint:
            raise InputError(f"{folder}: --resume, but {kind} changed since the run was started; start a new run")


def refuse_unseen(folder: Path) -> None:
    """Raises InputError on every process where one of them does not see the folder that the first one holds."""
    holder, until = distributed.from_first(lambda: str(os.getpid())), time.monotonic() + SEEN_WITHIN

    def seen() -> bool:
        try:
            return first_line(folder / LOCK) == holder
        except OSError:
            return False

    while not seen() and time.monotonic() < until:
        time.sleep(0.1)  # a network's file system shows a new folder late
    unseen = (
        f"{folder}: {distributed.host()} does not see the run that the first process began there; every machine of a "
        "run must see its folder: choose an --output on a file system that they share"
    )
    distributed.refuse_together(None if seen() else unseen)


def refuse_different(recipe: Recipe, fingerprints: dict[str, str]) -> None:
    """Raises InputError on every process where one of them has other data, weights or settings than the first one.

    Paths may differ, as those of machines do: fingerprints tell whether the files are the same.
    """
    facts = {key: str(value) for key, value in flattened(plain(recipe)).items() if not _has_path(value)} | fingerprints
    first = distributed.from_first(lambda: facts)
    unlike = sorted(kind for kind in first.keys() | facts.keys() if first.get(kind) != facts.get(kind))
    distributed.refuse_together(
        f"{distributed.host()} has another {unlike[0]} than the first process: {facts.get(unlike[0])}, and not "
        f"{first.get(unlike[0])}; every process of a run must read the same"
        if unlike
        else None
    )


def _has_path(value: Any) -> bool:
    if isinstance(value, list | dict):
        return any(map(_has_path, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and Path(value).is_absolute()
