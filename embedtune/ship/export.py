"""A model folder for other tools: adapters merged, weights complete, the model card kept."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..files import MARK, FolderKind, check_folder, refuse_source, whole_folder
from ..models import saving
from ..models.encoder import load_encoder
from ..models.folders import model_folder
from ..models.loading import model_of
from ..recipe import Model

EXPORTED = FolderKind(verb="export")
ONNX = "pip install 'sentence-transformers[onnx]'"


def export(
    model: Model | str,
    output: Path,
    *,
    form: Literal["safetensors", "onnx"] = "safetensors",
    push_to: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a complete model folder: of a run folder its model, of an adapter folder the merged model.

    form: onnx is written by sentence-transformers, with an extra of its own. push_to: also uploads the folder to the
    hub, under this name (owner/name). Raises InputError for an output that may not be replaced, for a missing extra and
    for a failed upload.
    """
    check_folder(output, EXPORTED, overwrite=overwrite)
    if form == "onnx" and find_spec("optimum") is None:
        raise InputError(f"--format onnx: needs optimum-onnx; try: {ONNX}")
    model = model_of(model)
    folder = model_folder(model.label)
    refuse_source(output, folder)
    card = folder / "README.md"
    loaded: Any = load_encoder(model).model
    with whole_folder(output, EXPORTED, overwrite=overwrite) as temporary:
        saving.save_model(loaded, temporary)
        if card.exists():
            shutil.copyfile(card, temporary / "README.md")
        if form == "onnx":
            _to_onnx(temporary)
    if push_to is not None:
        _push(output, push_to)
    return output


def _to_onnx(folder: Path) -> None:
    """Replaces the weights of a saved model by onnx/model.onnx."""
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
