"""Where a run's model comes from, when its recipe names a run: that run, those before it, and the base of them all."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ..data.jsonl import read_json_object
from ..data.selection import Selection
from ..errors import InputError
from ..files import fingerprints_of_weights
from ..models.folders import SUMMARY, locate
from ..recipe import Data, Model, Recipe, load_recorded, plain, resolve, split_of, without_prefixes
from ..recipe.upgrade import with_present_keys
from ..types import Items

COMPARED = 32  # documents that are embedded by both models, to see whether their embeddings changed
CLOSE = 1e-5  # the largest difference of a number that rounding explains


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """run: the folder of the run whose model is trained further. recorded: that run's recipe. runs: its folder and the
    sha256 of its weights, then those of the run that it came from itself, and so on. base: the model of the first, and
    seed: that of its weights which no file has, as of a composed model's projections."""

    run: Path
    recorded: Recipe
    runs: list[dict[str, Any]]
    base: Model
    seed: int

    def as_json(self) -> dict[str, Any]:
        """What environment.json keeps, so that the chain is known where earlier runs are gone."""
        return {"runs": self.runs, "base": plain(self.base), "seed": self.seed}


def lineage_of(model: Model) -> Lineage | None:
    """The lineage of a model that is a run's; None where it is no run's, by a run's folder or by the model/ in it.

    Raises InputError for a run that is not finished, one without a model, and one whose files are damaged.
    """
    folder = Path(model.name or "").expanduser()
    if model.name is None or not folder.is_dir():
        return None
    weights = locate(model.name).folder or folder
    run = weights.parent if weights.name == "model" else folder
    if weights == run or not (run / "recipe.yaml").is_file():
        return None
    if not (run / SUMMARY).exists():
        if run != folder:  # a folder called model beside a recipe
            return None
        again = f"embedtune train {run / 'recipe.yaml'} --output {run} --resume"
        raise InputError(f"model {run}: this run is not finished; finish it with `{again}`, then train its model")
    recorded = load_recorded(run / "recipe.yaml")
    environment = run / "environment.json"
    earlier = read_json_object(environment).get("lineage") if environment.exists() else None
    runs: list[dict[str, Any]] = [{"run": str(run.resolve()), "weights": fingerprints_of_weights(weights)}]
    if earlier is None:
        return Lineage(run=run, recorded=recorded, runs=runs, base=recorded.model, seed=recorded.train.seed)
    try:
        recorded_base = {"model": dict(earlier["base"])}
        with_present_keys(recorded_base, str(environment))
        base = TypeAdapter(Model).validate_json(json.dumps(recorded_base["model"]))
        seed = int(earlier["seed"])
        runs += [{"run": str(one["run"]), "weights": dict(one["weights"])} for one in earlier["runs"]]
    except (ValidationError, KeyError, TypeError, ValueError):
        raise InputError(
            f"{environment}: damaged (lineage); expected the runs and the base of the run's model"
        ) from None
    return Lineage(run=run, recorded=recorded, runs=runs, base=base, seed=seed)


def facts_of_lineage(recipe: Recipe) -> dict[str, str]:
    """The facts of a run that trains another run's model: what it is compared with, and what it does not replay."""
    lineage = lineage_of(recipe.model)
    if lineage is None:
        return {}
    first = f"{lineage.run}, which came from {lineage.base.label}; all three are measured on every dataset"
    changed = _changed(lineage.recorded.model, recipe.model)
    settings = f"; served otherwise than before: {changed}" if changed else ""
    return {"from": first + settings, "replay": _replay(lineage.recorded.data, resolve(recipe).data)}


def _changed(before: Model, now: Model) -> str:
    """The settings of the model that the recipe changes, `max_length 128 -> 256`. A setting that a saved model keeps
    stays where the recipe does not name it."""
    was, values = plain(before), plain(now)
    lost = {"passages": values["passages"]} if was["passages"] != values["passages"] else {}
    kept = {"max_length": values["max_length"], **{f"prompts.{role}": text for role, text in values["prompts"].items()}}
    before_of = {"max_length": was["max_length"], **{f"prompts.{role}": text for role, text in was["prompts"].items()}}
    named = {key: value for key, value in kept.items() if value is not None and value != before_of[key]}
    return ", ".join(
        f"{key} {before_of.get(key, was.get(key))!r} -> {value!r}" for key, value in (named | lost).items()
    )


def _names(data: Data) -> list[str]:
    """The names of training data, each with its split."""
    names = [data.train] if isinstance(data.train, str) else data.train
    return [name if split_of(without_prefixes(name))[1] else f"{name}:{data.split}" for name in names]


def _replay(before: Data, now: Data) -> str:
    """Whether the earlier run's data is trained on again, and how it would be."""
    absent = [name for name in _names(before) if name not in _names(now)]
    if not absent:
        return "all that the earlier run was trained on is trained on again"
    gone = [name for name in absent if not _is_there(name)]
    if gone:
        return f"not trained on again: {', '.join(absent)}; {gone[0]} is no longer there"
    train = json.dumps([*_names(now), *absent], ensure_ascii=False)
    return (
        f"not trained on again, and partly forgotten: {', '.join(absent)}; to mix it in: --set "
        f"{shlex.quote(f'data.train={train}')} (batching homogeneous gives each a share); without its judgements: "
        "stay_close.distill"
    )


def _is_there(name: str) -> bool:
    path = split_of(without_prefixes(name))[0]
    return path.startswith("hf://") or Path(path).exists()


def succession(run: Path, deployed: Path, documents: Items) -> dict[str, Any]:
    """Whether indexes of the deployed model fit the new one: the identity of each, as an index's manifest has it, and
    whether the first documents' embeddings changed."""
    from ..models.encoder import load_encoder

    sample = list(Selection(documents, documents.ids[:COMPARED]))
    identities, embedded = [], []
    for folder in (deployed, run):
        encoder = load_encoder(str(folder), cached=False)
        identities.append(encoder.document_identity)
        embedded.append(encoder.encode(sample, "document"))
    before, after = embedded
    same = before.shape == after.shape and bool(np.allclose(before, after, rtol=0, atol=CLOSE))
    return {"deployed": identities[0], "tuned": identities[1], "documents": len(sample), "documents_changed": not same}
