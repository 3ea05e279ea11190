"""Loads a sentence-transformers model, or a bare transformers checkpoint with the recipe's pooling."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Model
from .locate import Location, locate, with_safetensors

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def load_model(model: Model, device: torch.device) -> SentenceTransformer:
    """Weights in float32, the model's own pooling and normalisation; prompts and max_length as the recipe says.

    Raises InputError for a model that is not there, has no weights, or has no pooling and is given none.
    """
    location = locate(model.name)
    if location.folder is not None:
        adapter = location.folder / "adapter_config.json"
        if adapter.exists():
            return _with_adapter(model, location.folder, device)
        _refuse_unusable(location.folder)
        location = Location(str(with_safetensors(location.folder)))
    loaded = _open(model, location, device)
    _set_prompts(loaded, model)
    _set_length(loaded, model)
    return loaded.eval()


def _open(model: Model, location: Location, device: torch.device) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers.utils.logging import disable_progress_bar

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    disable_progress_bar()  # progress is ours to show
    options: dict[str, Any] = {
        "trust_remote_code": model.trust_remote_code,
        "revision": location.revision,
        "model_kwargs": {"dtype": "float32", "use_safetensors": True},
    }
    bare = location.folder is not None and not (location.folder / "modules.json").exists()
    if bare and model.pooling is None:
        raise InputError(f"model {model.name}: a bare checkpoint has no pooling; set model.pooling: mean|cls|lasttoken")
    if not bare and model.pooling is not None:
        raise InputError(f"model {model.name}: has its own pooling; remove model.pooling")
    try:
        if bare:
            del options["revision"], options["trust_remote_code"]
            transformer = Transformer(location.name, **options)
            pooling = Pooling(transformer.get_embedding_dimension(), model.pooling)
            return SentenceTransformer(modules=[transformer, pooling], device=str(device))
        return SentenceTransformer(location.name, device=str(device), **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        kind = "folder" if location.folder else "not a folder here, and from the hub"
        raise InputError(f"model {model.name}: {kind}: cannot be loaded: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _refuse_unusable(folder: Path) -> None:
    if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
        raise InputError(f"model {folder}: not a model folder (no modules.json and no config.json)")


def _with_adapter(model: Model, folder: Path, device: torch.device) -> SentenceTransformer:
    """A peft adapter folder: its base model with the adapter merged in. Keys that do not fit are an error."""
    from .lora import merge_adapter_folder

    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise InputError(f"model {folder}: adapter_config.json names no base_model_name_or_path")
    loaded = load_model(Model(**{**vars(model), "name": base}), device)
    merge_adapter_folder(loaded, folder)
    return loaded


def _set_prompts(loaded: SentenceTransformer, model: Model) -> None:
    for role in ("query", "document"):
        prompt = model.prompts.of("query" if role == "query" else "document")
        if prompt is not None:
            loaded.prompts[role] = prompt


def _set_length(loaded: SentenceTransformer, model: Model) -> None:
    if model.max_length is None:
        return
    limit = getattr(loaded[0].config, "max_position_embeddings", None) if hasattr(loaded[0], "config") else None
    if limit is not None and model.max_length > limit:
        raise InputError(f"model.max_length: {model.max_length} is more than the {limit} positions of {model.name}")
    loaded.max_seq_length = model.max_length
