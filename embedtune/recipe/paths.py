"""Names of data and models in recipes: which of them are paths, and what they mean from any folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from .schema import Chosen, Recipe

CROSS_ENCODER = "cross-encoder:"  # before a teacher's name
REVERSED = "reversed:"  # before a dataset's: its documents are the queries, and its queries the documents
JUDGED = "judged:"  # before that: only the documents that the split judges are ranked


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with paths made absolute, so that it means the same from any folder."""
    train = recipe.data.train
    data = dataclasses.replace(
        recipe.data, train=_absolute(train) if isinstance(train, str) else [_absolute(name) for name in train]
    )
    model = recipe.model
    if model.name is not None:
        model = dataclasses.replace(model, name=_absolute(model.name))
    if model.compose is not None:
        compose = model.compose
        compose = dataclasses.replace(compose, text=_absolute(compose.text), image=_absolute(compose.image))
        model = dataclasses.replace(model, compose=compose)
    evaluate = dataclasses.replace(
        recipe.evaluate,
        in_domain=[_absolute(path) for path in recipe.evaluate.in_domain],
        out_of_domain=[_absolute(path) for path in recipe.evaluate.out_of_domain],
    )
    negatives = dataclasses.replace(
        recipe.negatives,
        mining=[_resolved_method(miner) for miner in recipe.negatives.mining],
        filtering=[_resolved_method(chosen) for chosen in recipe.negatives.filtering],
        teacher=_absolute_teacher(recipe.negatives.teacher),
    )
    distill = recipe.stay_close.distill
    stay_close = dataclasses.replace(
        recipe.stay_close, distill=distill and dataclasses.replace(distill, data=_absolute(distill.data))
    )
    batching = _resolved_method(recipe.batching)
    loss = [_resolved_method(chosen) for chosen in recipe.loss]
    return dataclasses.replace(
        recipe,
        data=data,
        model=model,
        evaluate=evaluate,
        negatives=negatives,
        batching=batching,
        loss=loss,
        stay_close=stay_close,
    )


def _resolved_method(chosen: Chosen) -> Chosen:
    return dataclasses.replace(chosen, options=_absolute_paths(chosen.options))


def _absolute_paths(options: Any) -> Any:
    """Options with every file and model that is on disk made absolute, within lists of methods too."""
    if isinstance(options, list):
        return [_absolute_paths(part) for part in options]
    if not isinstance(options, dict):
        return options
    found = {key: _absolute_paths(value) for key, value in options.items()}
    found |= {key: _absolute(found[key]) for key in ("path", "model") if isinstance(found.get(key), str)}
    if isinstance(found.get("models"), list):
        found["models"] = [_absolute(name) for name in found["models"]]
    return found


def _absolute_teacher(name: str | None) -> str | None:
    if name is None or not name.startswith(CROSS_ENCODER):
        return None if name is None else _absolute(name)
    return CROSS_ENCODER + _absolute(name.removeprefix(CROSS_ENCODER))


def _absolute(name: str) -> str:
    """An existing path (with or without `:split`) as an absolute one; hub names as they are."""
    for prefix in (JUDGED, REVERSED):
        if name.startswith(prefix):
            return prefix + _absolute(name.removeprefix(prefix))
    path, split = split_of(name)
    if not Path(path).expanduser().exists():
        return name
    return str(Path(path).expanduser().resolve()) + (f":{split}" if split else "")


def without_prefixes(name: str) -> str:
    """`judged:reversed:DIR` as DIR."""
    return name.removeprefix(JUDGED).removeprefix(REVERSED)


def split_of(name: str) -> tuple[str, str | None]:
    """`DIR:split` as (DIR, split); a folder whose own name holds a colon wins."""
    path, separator, split = name.rpartition(":")
    if not separator or Path(name).exists() or "/" in split or split == "":
        return name, None
    return path, split
