"""Names of data and models in recipes: which of them are paths, and what they mean from any folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from .schema import Chosen, Model, Recipe

CROSS_ENCODER = "cross-encoder:"  # in front of a teacher's name
REVERSED = "reversed:"  # in front of a dataset's name: its documents are the queries, its queries the documents
JUDGED = "judged:"  # in front of these: only the documents that the split judges are ranked
INCOMPLETE = "incomplete:"  # in front of its path: documents that are judged may be absent, as for BEIR and mteb

Change = Callable[[str, str], str]
"""(key, name) -> the name to put in its place."""
_MODELS = ("name", "text", "image", "model", "models", "teacher")  # last parts of the keys that name models


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with paths made absolute, so that it means the same from any folder."""
    return _renamed(recipe, lambda key, name: _absolute(name))


def refuse_absent(recipe: Recipe, source: str) -> None:
    """Raises InputError that lists the data, models and files which the recipe names and which are not there.

    A name that may be a hub's is not looked up.
    """
    problems: list[str] = []

    def note(key: str, name: str) -> str:
        if _is_absent(key, name):
            problems.append(f"  {key}: {name}: no such file or folder")
        return name

    _renamed(recipe, note)
    if problems:
        raise InputError("\n".join([f"{source}: names what is not there", *problems]))


def refuse_within(recipe: Recipe, folder: Path) -> None:
    """Raises InputError for data, a model or a file of the recipe that lies in a folder which is to be replaced."""

    def check(key: str, name: str) -> str:
        path = Path(split_of(without_prefixes(name.removeprefix(CROSS_ENCODER)))[0]).expanduser()
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"{folder}: --overwrite would remove {name}, which {key} names; choose another --output, or move it"
            )
        return name

    _renamed(recipe, check)


def _is_absent(key: str, name: str) -> bool:
    path = Path(split_of(without_prefixes(name))[0]).expanduser()
    if name.startswith(("hf://", "package:")) or path.exists():
        return False
    if key.rpartition(".")[2] not in _MODELS:
        return True
    bare = name.removeprefix(CROSS_ENCODER)
    return bare.startswith((".", "/", "~")) or bare.count("/") > 1 or ("/" in bare and path.parent.is_dir())


def _renamed(recipe: Recipe, change: Change) -> Recipe:
    """The recipe with every name of data, a model or a file changed."""

    def listed(key: str, names: list[str]) -> list[str]:
        return [change(key, name) for name in names]

    def methods(family: str, chosen: list[Chosen]) -> list[Chosen]:
        return [
            dataclasses.replace(one, options=_options(f"{family}.{one.name}", one.options, change)) for one in chosen
        ]

    train, evaluate, negatives = recipe.data.train, recipe.evaluate, recipe.negatives
    renamed_train = change("data.train", train) if isinstance(train, str) else listed("data.train", train)
    teacher, distill = negatives.teacher, recipe.stay_close.distill
    if teacher is not None:
        prefix = CROSS_ENCODER if teacher.startswith(CROSS_ENCODER) else ""
        teacher = prefix + change("negatives.teacher", teacher.removeprefix(prefix))
    if distill is not None:
        distill = dataclasses.replace(distill, data=change("stay_close.distill.data", distill.data))
    return dataclasses.replace(
        recipe,
        methods=listed("methods", recipe.methods),
        data=dataclasses.replace(recipe.data, train=renamed_train),
        model=_model(recipe.model, change),
        evaluate=dataclasses.replace(
            evaluate,
            in_domain=listed("evaluate.in_domain", evaluate.in_domain),
            out_of_domain=listed("evaluate.out_of_domain", evaluate.out_of_domain),
        ),
        negatives=dataclasses.replace(
            negatives,
            mining=methods("mining", negatives.mining),
            filtering=methods("filtering", negatives.filtering),
            sampling=methods("sampling", [negatives.sampling])[0],
            teacher=teacher,
        ),
        batching=methods("batching", [recipe.batching])[0],
        synthesis=methods("synthesis", recipe.synthesis),
        weighting=methods("weighting", recipe.weighting),
        loss=methods("loss", recipe.loss),
        stay_close=dataclasses.replace(recipe.stay_close, distill=distill),
    )


def _model(model: Model, change: Change) -> Model:
    if model.compose is None:
        return dataclasses.replace(model, name=change("model.name", model.name or ""))
    text, image = change("model.compose.text", model.compose.text), change("model.compose.image", model.compose.image)
    return dataclasses.replace(model, compose=dataclasses.replace(model.compose, text=text, image=image))


def _options(key: str, options: Any, change: Change) -> Any:
    """A method's options with `path`, `model` and `models` changed, within lists of methods too."""
    if isinstance(options, list):
        return [_options(key, part, change) for part in options]
    if not isinstance(options, dict):
        return options
    changed = {name: _options(key, value, change) for name, value in options.items()}
    for name in ("path", "model"):
        if isinstance(changed.get(name), str):
            changed[name] = change(f"{key}.{name}", changed[name])
    if isinstance(changed.get("models"), list):
        changed["models"] = [change(f"{key}.models", name) for name in changed["models"]]
    return changed


def _absolute(name: str) -> str:
    """An existing path (with or without `:split`) as an absolute one; hub names as they are."""
    for prefix in (JUDGED, REVERSED, INCOMPLETE):
        if name.startswith(prefix):
            return prefix + _absolute(name.removeprefix(prefix))
    path, split = split_of(name)
    if not Path(path).expanduser().exists():
        return name
    return str(Path(path).expanduser().resolve()) + (f":{split}" if split else "")


def without_prefixes(name: str) -> str:
    """`judged:reversed:incomplete:DIR` as DIR."""
    return name.removeprefix(JUDGED).removeprefix(REVERSED).removeprefix(INCOMPLETE)


def split_of(name: str) -> tuple[str, str | None]:
    """`DIR:split` as (DIR, split); a folder whose own name holds a colon wins."""
    path, separator, split = name.rpartition(":")
    if not separator or Path(name).exists() or "/" in split or split == "":
        return name, None
    return path, split
