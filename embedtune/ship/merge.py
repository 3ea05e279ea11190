"""By hand: weights between two models, by a given alpha or by what foreign sets say; and a model ready to leave."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..data.dataset import load_dataset
from ..errors import InputError
from ..evaluate.guarded import Point
from ..evaluate.results import distinct
from ..evaluate.significance import paired
from ..files import MARK, FolderKind, check_folder, whole_folder
from ..models.adapters import base_of_adapter, scale_adapter
from ..models.encoder import load_encoder
from ..models.loading import load_model
from ..models.locate import locate
from ..models.modules import weights_fingerprint
from ..models.precision import resolve_device
from ..recipe import Guard, Model, Precision
from ..train.guard import Values, Watched, choose, curve, watch
from ..train.mix import Mixtures
from ..types import Dataset

MERGED, EXPORTED = FolderKind(verb="merge"), FolderKind(verb="export")
ADAPTER = "adapter_config.json"
ONNX = "pip install 'sentence-transformers[onnx]'"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was written. sets: label -> what the queries that did not choose say, base and merged, and the interval of
    the difference; points: the curve on those that chose. Both empty where alpha was given."""

    folder: Path
    alpha: float
    kind: Literal["model", "adapter"]
    points: list[Point]
    sets: dict[str, dict[str, float | None]]


def merge(
    base: str,
    tuned: str,
    output: Path,
    *,
    alpha: float | None = None,
    choose_on: Sequence[str] = (),
    guard: Guard | None = None,
    precision: Precision = "fp32",
    overwrite: bool = False,
) -> Merged:
    """Writes (1 - alpha) base + alpha tuned as a model folder; of a LoRA adapter folder, the adapter scaled by alpha.

    choose_on: datasets (`DIR:split`) of which half the queries choose the largest alpha that keeps the guard's budget,
    and the other half reports. Raises InputError for an output that exists, and for models with other weights.
    """
    if (alpha is None) == (not choose_on):
        raise InputError("expected --alpha or --choose-on, one of them")
    check_folder(output, MERGED, overwrite=overwrite)
    adapter = _adapter_in(tuned)
    if adapter is not None:
        _refuse_other_base(base, adapter)
    guard = dataclasses.replace(guard or Guard(), interpolate=True)
    mixtures = Mixtures(Model(name=base), Model(name=tuned), precision)
    watched = [watch(dataset, guard) for dataset in distinct([load_dataset(name) for name in choose_on])]
    measure = guard.measure or "nDCG@10"

    def values(alpha: float, dataset: Dataset) -> Values:
        return mixtures.values(alpha, dataset, measure)

    points = curve(guard, watched, values, lambda alpha: None) if watched else []
    chosen = choose(points).alpha if alpha is None else alpha
    with whole_folder(output, MERGED, overwrite=overwrite) as temporary:
        if adapter is not None:
            scale_adapter(adapter, temporary, chosen)
        else:
            mixtures.save(chosen, temporary)
    sets = {w.reporting.label: _report(mixtures, chosen, w, measure) for w in watched}
    kind: Literal["model", "adapter"] = "model" if adapter is None else "adapter"
    return Merged(folder=output, alpha=chosen, kind=kind, points=points, sets=sets)


def _adapter_in(tuned: str) -> Path | None:
    folder = locate(tuned).folder
    return folder if folder is not None and (folder / ADAPTER).exists() else None


def _refuse_other_base(base: str, adapter: Path) -> None:
    """An adapter is scaled without its base being read; it must still be the one that was named."""
    own, device = base_of_adapter(adapter), resolve_device("cpu")
    if locate(own).name == locate(base).name:
        return
    prints = [weights_fingerprint(load_model(Model(name=name), device)) for name in (own, base)]
    if prints[0] != prints[1]:
        raise InputError(f"{adapter}: was trained on {own}, whose weights are not those of {base}; name that one")


def _report(mixtures: Mixtures, alpha: float, watched: Watched, measure: str) -> dict[str, float | None]:
    found = paired(*(mixtures.values(at, watched.reporting, measure) for at in (0.0, alpha)))
    return {
        "queries": found.queries,
        "base": found.baseline,
        "merged": found.value,
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


def export(
    model: str,
    output: Path,
    *,
    form: Literal["safetensors", "onnx"] = "safetensors",
    push_to: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model whole and self-contained: of a run folder its model, of an adapter folder the merged model.

    form: onnx goes through sentence-transformers, whose extra it needs. push_to: also uploads it to the hub, under
    that name (owner/name). Raises InputError for an output that exists and for an extra that is missing.
    """
    check_folder(output, EXPORTED, overwrite=overwrite)
    if form == "onnx" and find_spec("optimum") is None:
        raise InputError(f"--format onnx: needs optimum-onnx; try: {ONNX}")
    run = Path(model) / "model"
    name = str(run) if (Path(model) / "recipe.yaml").exists() and run.is_dir() else model
    card = Path(name) / "README.md"
    loaded: Any = load_encoder(name).model
    with whole_folder(output, EXPORTED, overwrite=overwrite) as temporary:
        loaded.save_pretrained(str(temporary), create_model_card=False)
        if card.exists():
            shutil.copyfile(card, temporary / "README.md")
        if form == "onnx":
            _to_onnx(temporary)
    if push_to is not None:
        _push(output, push_to)
    return output


def _to_onnx(folder: Path) -> None:
    """Replaces the weights in a saved model by onnx/model.onnx."""
    from sentence_transformers import SentenceTransformer

    exported: Any = SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs={"export": True})
    exported.save_pretrained(str(folder), create_model_card=False)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()


def _push(folder: Path, name: str) -> None:
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(name, exist_ok=True)
        HfApi().upload_folder(
            repo_id=name, folder_path=str(folder), ignore_patterns=MARK, commit_message="embedtune export"
        )
    except Exception as error:  # the hub's client and its transport each raise their own kinds
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"--push-to {name}: {folder} is written, but cannot be uploaded ({type(error).__name__}: {first}); set "
            "HF_TOKEN, or upload that folder later"
        ) from None
