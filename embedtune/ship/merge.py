"""A model between a base model and a tuned one: by a given alpha, or by the one that datasets choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..data.dataset import load_dataset
from ..errors import InputError
from ..evaluate.guarded import Point
from ..evaluate.results import distinct
from ..evaluate.significance import Paired, paired
from ..files import FolderKind, check_folder, refuse_source, whole_folder
from ..models.adapters import routed, scale_adapter, scales
from ..models.folders import ADAPTER_CONFIG, base_of_adapter, locate, model_folder
from ..models.loading import load_base, model_of
from ..models.modules import weights_fingerprint
from ..models.precision import resolve_device
from ..recipe import Guard, Model, Precision
from ..recipe.measures import parse
from ..train.guard import Values, choose, curve, watch
from ..train.mix import Mixtures
from ..types import Dataset

MERGED = FolderKind(verb="merge")
MEASURE = "nDCG@10"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Datasets (`DIR:split`): half of their queries choose the largest alpha that keeps the guard's budget, and the
    other half measures the result. precision: the number format that the models compute in."""

    data: Sequence[str]
    guard: Guard
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The result of a merge. points: the curve over the queries that choose. sets: label -> the mixture compared with
    the base on the other queries. Both are empty for a given alpha."""

    folder: Path
    alpha: float
    kind: Literal["model", "adapter"]
    points: list[Point]
    sets: dict[str, Paired]


def alpha_or_choice(
    alpha: float | None, choose_on: Sequence[str], guard: Mapping[str, Any], precision: Precision = "fp32"
) -> float | Choice:
    """The alpha, or the choice by the guard's options; an option that the user did not set is None.

    Raises InputError for both or neither, for an option without a choice, and for an unknown measure.
    """
    options = {name: value for name, value in guard.items() if value is not None}
    unused = [*options, *(["precision"] if precision != "fp32" else [])]
    for name in unused if not choose_on else ():
        raise InputError(f"--{name.replace('_', '-')} has no effect without --choose-on")
    if (alpha is None) == (not choose_on):
        raise InputError("expected --alpha or --choose-on, one of them")
    if alpha is not None:
        return alpha
    (options["measure"],) = parse([options.get("measure", MEASURE)])
    return Choice(data=choose_on, guard=Guard(**options, interpolate=True), precision=precision)


def merge(
    base: Model | str, tuned: Model | str, output: Path, alpha: float | Choice, *, overwrite: bool = False
) -> Merged:
    """Writes (1 - alpha) base + alpha tuned as a model folder.

    Of a LoRA adapter folder it writes the adapter scaled by alpha, if that is the same mixture (see `adapters.scales`),
    and else the mixed model. Raises InputError for an output that may not be replaced, and for models with other
    weights.
    """
    check_folder(output, MERGED, overwrite=overwrite)
    base, tuned = model_of(base), model_of(tuned)
    adapter = model_folder(tuned.label)
    refuse_source(output, model_folder(base.label), adapter)
    kind: Literal["model", "adapter"] = "model"
    if (adapter / ADAPTER_CONFIG).exists():
        _refuse_other_base(base, tuned, adapter)
        kind = "adapter" if scales(adapter) else "model"
    points: list[Point] = []
    sets: dict[str, Paired] = {}
    if isinstance(alpha, Choice):
        mixtures = Mixtures(base, tuned, alpha.precision)
        alpha, points, sets = _chosen(mixtures, alpha)
    elif kind == "model":
        mixtures = Mixtures(base, tuned, "fp32")
    with whole_folder(output, MERGED, overwrite=overwrite) as temporary:
        if kind == "adapter":
            scale_adapter(adapter, temporary, alpha)
        else:
            mixtures.save(alpha, temporary)
    return Merged(folder=output, alpha=alpha, kind=kind, points=points, sets=sets)


def _chosen(mixtures: Mixtures, choice: Choice) -> tuple[float, list[Point], dict[str, Paired]]:
    """The alpha that the datasets choose, the curve that it is chosen from, and each dataset's comparison."""
    measure = choice.guard.measure or MEASURE
    watched = [watch(dataset, choice.guard) for dataset in distinct([load_dataset(name) for name in choice.data])]

    def values(alpha: float, dataset: Dataset) -> Values:
        return mixtures.values(alpha, dataset, measure)

    points = curve(choice.guard, watched, values, None)
    alpha = choose(points).alpha
    reporting = [one.reporting for one in watched]
    return alpha, points, {each.label: paired(values(0.0, each), values(alpha, each)) for each in reporting}


def _refuse_other_base(base: Model, tuned: Model, adapter: Path) -> None:
    """Raises InputError unless the adapter was trained on the base: it is scaled without the base being read."""
    name, device = routed(base_of_adapter(adapter))[0], resolve_device("cpu")
    if locate(name).name == locate(base.label).name:
        return
    models = [replace(base, name=name), base]
    fingerprints = [weights_fingerprint(load_base(model, tuned, device)) for model in models]
    if fingerprints[0] != fingerprints[1]:
        raise InputError(
            f"{adapter}: was trained on {name}, whose weights are not those of {base.label}; name that one"
        )
