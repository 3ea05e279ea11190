"""Mixing a base model with a tuned one, by a given alpha or one that datasets choose; exporting a model."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
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
from ..models.adapters import base_of_adapter, routed, scale_adapter, scales
from ..models.encoder import load_encoder
from ..models.folders import ADAPTER_CONFIG, model_folder
from ..models.loading import load_model, model_of
from ..models.locate import locate
from ..models.modules import weights_fingerprint
from ..models.precision import resolve_device
from ..recipe import Guard, Model, Precision
from ..train.guard import Values, Watched, choose, curve, watch
from ..train.mix import Mixtures
from ..types import Dataset

MERGED, EXPORTED = FolderKind(verb="merge"), FolderKind(verb="export")
ONNX = "pip install 'sentence-transformers[onnx]'"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The folder that was written. points: the curve on the queries that chose alpha. sets: dataset's label -> the
    measure of base and mixture on the other queries, and the interval of the difference. Both empty with a given
    alpha."""

    folder: Path
    alpha: float
    kind: Literal["model", "adapter"]
    points: list[Point]
    sets: dict[str, dict[str, float | None]]


def merge(
    base: Model | str,
    tuned: Model | str,
    output: Path,
    *,
    alpha: float | None = None,
    choose_on: Sequence[str] = (),
    guard: Guard | None = None,
    precision: Precision = "fp32",
    overwrite: bool = False,
) -> Merged:
    """Writes (1 - alpha) base + alpha tuned as a model folder.

    Of a LoRA adapter folder it writes the adapter scaled by alpha, where that is the same mixture (see
    `adapters.scales`), and else the mixed model. choose_on: datasets (`DIR:split`); half of their queries choose the
    largest alpha that keeps the guard's budget, and the other half report. Raises InputError for an output that exists,
    and for models with other weights.
    """
    if (alpha is None) == (not choose_on):
        raise InputError("expected --alpha or --choose-on, one of them")
    check_folder(output, MERGED, overwrite=overwrite)
    base, tuned = model_of(base), model_of(tuned)
    folder = model_folder(tuned.label)
    adapter = folder if (folder / ADAPTER_CONFIG).exists() else None
    if adapter is not None:
        _refuse_other_base(base, adapter)
    kind: Literal["model", "adapter"] = "adapter" if adapter is not None and scales(adapter) else "model"
    guard = dataclasses.replace(guard or Guard(), interpolate=True)
    watched = [watch(dataset, guard) for dataset in distinct([load_dataset(name) for name in choose_on])]
    mixtures = Mixtures(base, tuned, precision) if watched or kind == "model" else None
    measure = guard.measure or "nDCG@10"

    def values(alpha: float, dataset: Dataset) -> Values:
        assert mixtures is not None
        return mixtures.values(alpha, dataset, measure)

    points = curve(guard, watched, values, lambda alpha: None) if watched else []
    chosen = choose(points).alpha if alpha is None else alpha
    with whole_folder(output, MERGED, overwrite=overwrite) as temporary:
        if adapter is not None and kind == "adapter":
            scale_adapter(adapter, temporary, chosen)
        elif mixtures is not None:
            mixtures.save(chosen, temporary)
    sets = {w.reporting.label: _report(values, chosen, w) for w in watched}
    return Merged(folder=output, alpha=chosen, kind=kind, points=points, sets=sets)


def _refuse_other_base(base: Model, adapter: Path) -> None:
    """An adapter is scaled without its base being read; it must still be the one that was named."""
    name, device = routed(base_of_adapter(adapter))[0], resolve_device("cpu")
    if locate(name).name == locate(base.label).name:
        return
    prints = [weights_fingerprint(load_model(dataclasses.replace(base, name=one), device)) for one in (name, base.name)]
    if prints[0] != prints[1]:
        raise InputError(
            f"{adapter}: was trained on {name}, whose weights are not those of {base.label}; name that one"
        )


def _report(values: Callable[[float, Dataset], Values], alpha: float, watched: Watched) -> dict[str, float | None]:
    comparison = paired(*(values(at, watched.reporting) for at in (0.0, alpha)))
    return {
        "queries": comparison.queries,
        "base": comparison.baseline,
        "merged": comparison.value,
        "difference": comparison.difference,
        "low": comparison.low,
        "high": comparison.high,
    }


def export(
    model: Model | str,
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
    model = model_of(model)
    card = model_folder(model.label) / "README.md"
    loaded: Any = load_encoder(model).model
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

    exported: Any = SentenceTransformer(
        str(folder), backend="onnx", device="cpu", model_kwargs={"export": True}, local_files_only=True
    )
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
