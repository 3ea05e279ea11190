"""A model folder for other tools: adapters merged, weights complete, the model card kept, other forms measured."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ..data.dataset import load_dataset
from ..errors import BarMissed, InputError
from ..evaluate.results import distinct
from ..files import MARK, FolderKind, check_folder, refuse_source, whole_folder
from ..models import adapters, saving
from ..models.dtypes import Stored
from ..models.encoder import Encoder, load_encoder
from ..models.folders import model_folder
from ..models.loading import model_of
from ..models.merging import PROBED, Expected, merge_proven, probe_of, refuse_lost
from ..models.opening import opened
from ..recipe import Model
from . import onnx
from .costs import TEXTS, Cost, Costs, sample_items, sample_pictures

EXPORTED = FolderKind(verb="export")
Form = Literal["safetensors", "onnx"]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
FORMATS: dict[Form, tuple[Dtype, ...]] = {
    "safetensors": ("auto", "float32", "bfloat16", "float16"),
    "onnx": ("auto", "float32", "int8"),
}
LOWEST_COSINE = 0.9999  # of a graph in float32 to the model: what kernels round differently is far above it


@dataclass(frozen=True, kw_only=True)
class Target:
    """form: onnx adds onnx/model.onnx beside the model, checked against it. dtype: the number format of the weights,
    auto that of the model's own files; int8 adds onnx/model_quantized.onnx. data: datasets (DIR[:split]) whose nDCG@10
    tells what another form costs."""

    form: Form = "safetensors"
    dtype: Dtype = "auto"
    data: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The folder, and what its forms cost beside the model in float32, which comes first; empty for that one alone."""

    folder: Path
    costs: Sequence[Cost]


def export(
    model: Model | str,
    output: str | Path,
    *,
    target: Target = Target(),  # frozen
    push_to: str | None = None,
    overwrite: bool = False,
) -> Exported:
    """Writes a complete model folder: of a run folder its model, of an adapter folder the merged model.

    push_to: also uploads the folder to the hub, under this name (owner/name).

    Raises InputError for an output that may not be replaced, options that do not go together, a missing extra, a failed
    upload, and a merged model that is not the base with its adapter; BarMissed, with nothing written, for a graph that
    computes other embeddings.
    """
    output = Path(output)
    check_folder(output, EXPORTED, overwrite=overwrite)
    form, dtype = target.form, target.dtype
    if dtype not in FORMATS[form]:
        raise InputError(f"--dtype {dtype}: --format {form} takes {', '.join(FORMATS[form])}")
    if form == "onnx":
        onnx.refuse_absent_packages()
    elif dtype in ("auto", "float32") and target.data:
        raise InputError("--data has no effect without another --dtype or --format onnx")
    datasets = distinct([load_dataset(name) for name in target.data])
    model = model_of(model)
    folder = model_folder(model.label)
    refuse_source(output, folder)
    encoder = load_encoder(model, device="cpu" if form == "onnx" else "auto", merged=False)
    stored: Stored | None = None if dtype == "auto" or dtype == "int8" else dtype
    costs: list[Cost] = []
    with TemporaryDirectory() as pictures, whole_folder(output, EXPORTED, overwrite=overwrite) as temporary:
        expected = _merged(encoder, Path(pictures))
        saving.save_model(encoder.model, temporary, stored)
        if form == "onnx" or dtype not in ("auto", "float32"):
            measured = Costs(encoder, datasets)
            costs.append(measured.of_model())
            if form == "onnx":
                costs += _with_graphs(measured, encoder, temporary, dtype)
            else:
                costs.append(_reopened(measured, model, encoder, temporary, dtype))
        if (folder / "README.md").exists():
            shutil.copyfile(folder / "README.md", temporary / "README.md")
        if expected is not None:
            refuse_lost(encoder.model, model.label, expected, stored, "write it with --dtype float32")
    if push_to is not None:
        _push(output, push_to)
    return Exported(folder=output, costs=costs)


def _merged(encoder: Encoder, pictures: Path) -> Expected | None:
    """Merges the model's adapters; the embeddings that the merged model is to have. None of a model without. pictures:
    an empty folder, for items of a model that reads no text."""
    if not adapters.adapted(encoder.model):
        return None
    texts = sample_items(encoder.max_length)[:: TEXTS // PROBED]
    items = texts if encoder.reads(texts[0]) else sample_pictures(pictures, PROBED)
    return merge_proven(encoder.model, encoder.name, probe_of(encoder, items, items))


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def _with_graphs(measured: Costs, encoder: Encoder, folder: Path, dtype: Dtype) -> list[Cost]:
    """Writes onnx/model.onnx, and for int8 the quantized graph as well. Raises BarMissed for other embeddings."""
    file = onnx.write_graph(encoder, folder)
    files = sorted(file.parent.iterdir())  # a large graph's weights lie beside it
    costs = [measured.of(f"{onnx.GRAPH}, float32", files, onnx.run_by_onnx(encoder, file))]
    if not (costs[0].lowest or 0) >= LOWEST_COSINE:  # NaN is below it
        raise BarMissed(
            f"--format onnx: the graph's embeddings are not the model's: cosine {costs[0].lowest:.6f} at the lowest "
            f"over {TEXTS} texts, expected at least {LOWEST_COSINE}; nothing is written"
        )
    if dtype == "int8":
        quantized = onnx.quantize(file, folder)
        costs.append(measured.of(f"{onnx.QUANTIZED}, int8", [quantized], onnx.run_by_onnx(encoder, quantized)))
    return costs


def _reopened(measured: Costs, model: Model, encoder: Encoder, folder: Path, dtype: Dtype) -> Cost:
    """Measures a folder in another number format as sentence-transformers opens it."""
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = {"device": str(encoder.device), "local_files_only": True}
    options["trust_remote_code"] = model.trust_remote_code
    reopened = opened(str(folder), lambda: SentenceTransformer(str(folder), **options))
    other = Encoder(reopened.eval(), model.label, "fp32", cached=False)
    cost = measured.of(f"model, {dtype}", _weights(folder), other)
    if not math.isfinite(cost.lowest or 0):
        raise BarMissed(f"--dtype {dtype}: gives embeddings that are not finite; try --dtype bfloat16")
    return cost


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
