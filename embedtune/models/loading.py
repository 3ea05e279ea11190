"""Loads a sentence-transformers model, or a bare transformers checkpoint with the recipe's pooling."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..recipe import Model
from .attention import pad_three_axes, refuse_absent, refuse_other
from .locate import Location, locate, with_safetensors
from .modules import image_processors_of, transformers_of

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def load_model(model: Model, device: torch.device, *, seed: int = 0) -> SentenceTransformer:
    """Weights in float32, the model's own pooling and normalisation; prompts, lengths and sizes as the recipe says.

    seed: of weights that no file has, as a composed model's projections. Raises InputError for a model that is not
    there, has no weights, or has no pooling and is given none.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _load(model, device)


def _load(model: Model, device: torch.device) -> SentenceTransformer:
    if model.compose is not None:
        from .compose import compose

        text = replace(model, name=model.compose.text, compose=None, min_pixels=None, max_pixels=None)
        loaded = compose(model.compose, _load(text, device), device, attention=model.attention)
        _set_pixels(loaded, model)
        return loaded.eval()
    location = locate(model.label)
    if location.folder is not None:
        adapter = location.folder / "adapter_config.json"
        if adapter.exists():
            return _with_adapter(model, location.folder, device)
        _refuse_unusable(location.folder)
        location = Location(str(with_safetensors(location.folder)))
    if model.attention is not None:
        refuse_absent(model.attention, model.trust_remote_code)
    loaded = _open(model, location, device)
    if model.attention is not None:
        refuse_other(loaded, model.attention, model.label)
    pad_three_axes(loaded)
    for transformer in transformers_of(loaded).values():
        _pad_where_unmasked(transformer)
    _set_prompts(loaded, model)
    _set_length(loaded, model)
    _set_pixels(loaded, model)
    return loaded.eval()


def _open(model: Model, location: Location, device: torch.device) -> SentenceTransformer:
    try:
        loaded, bare = _loaded(model, location, device)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        kind = "folder" if location.folder else "not a folder here, and from the hub"
        reason = _needs_torchvision(error) or f"cannot be loaded: {_first_line(error)}"
        raise InputError(f"model {model.label}: {kind}: {reason}") from error
    if bare and loaded[0].module_output_name != "sentence_embedding":  # else it pools by itself, as CLIP does
        if model.pooling is None:
            wanted = "set model.pooling: mean|cls|lasttoken"
            raise InputError(f"model {model.label}: a bare checkpoint has no pooling; {wanted}")
        return _pooled(loaded[0], model.pooling, device)
    if model.pooling is not None:
        raise InputError(f"model {model.label}: has its own pooling; remove model.pooling")
    return loaded


def _pooled(transformer: Any, mode: str, device: torch.device) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    pooling = Pooling(transformer.get_embedding_dimension(), mode)
    return SentenceTransformer(modules=[transformer, pooling], device=str(device))


def _loaded(model: Model, location: Location, device: torch.device) -> tuple[SentenceTransformer, bool]:
    """The model, and whether it is a bare checkpoint, which sentence-transformers would pool by the mean."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer
    from sentence_transformers.util import is_sentence_transformer_model
    from transformers.utils.logging import disable_progress_bar

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    disable_progress_bar()  # progress is ours to show
    weights = {"dtype": "float32", "use_safetensors": True, "attn_implementation": model.attention}
    if location.folder is not None and not (location.folder / "modules.json").exists():
        transformer = Transformer(location.name, model_kwargs=weights)
        return SentenceTransformer(modules=[transformer], device=str(device)), True
    loaded = SentenceTransformer(
        location.name,
        device=str(device),
        trust_remote_code=model.trust_remote_code,
        revision=location.revision,
        model_kwargs=weights,
    )
    known = location.folder is not None
    return loaded, not (known or is_sentence_transformer_model(location.name, revision=location.revision))


def _needs_torchvision(error: BaseException) -> str | None:
    """A sentence where an error comes of torchvision: it is not there, or was built for another torch (and then
    transformers itself cannot be imported)."""
    said = f"{error} {error.__cause__ or ''}".lower()
    if not any(sign in said for sign in ("torchvision", "video processor", "video_processor")):
        return None
    return (
        "needs torchvision, which is not here or was built for another torch: pip install 'embedtune[vlm]', or the "
        "torchvision that is made for your torch"
    )


def _pad_where_unmasked(transformer: Any) -> None:
    """A tokenizer without attention mask (SigLIP's) pads every text to the full length, as its model was trained: else
    an embedding would depend on the other texts of its batch. The saved folder keeps it."""
    tokenizer = transformer.tokenizer
    if tokenizer is not None and "attention_mask" not in tokenizer.model_input_names:
        text = {**transformer.processing_kwargs.get("text", {}), "padding": "max_length"}
        transformer.processing_kwargs = {**transformer.processing_kwargs, "text": text}


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def _refuse_unusable(folder: Path) -> None:
    if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
        raise InputError(f"model {folder}: not a model folder (no modules.json and no config.json)")


def _with_adapter(model: Model, folder: Path, device: torch.device) -> SentenceTransformer:
    """A peft adapter folder: its base model with the adapter merged in. Keys that do not fit are an error."""
    from .adapters import merge_adapter_folder

    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise InputError(f"model {folder}: adapter_config.json names no base_model_name_or_path")
    loaded = _load(replace(model, name=base), device)
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
        raise InputError(f"model.max_length: {model.max_length} is more than the {limit} positions of {model.label}")
    loaded.max_seq_length = model.max_length


def _set_pixels(loaded: SentenceTransformer, model: Model) -> None:
    """How many pixels an image is scaled to, for processors that keep its shape (Qwen-VL's)."""
    bounds = {"shortest_edge": model.min_pixels, "longest_edge": model.max_pixels}
    given = {edge: pixels for edge, pixels in bounds.items() if pixels is not None}
    if not given:
        return
    processors = [found for found in image_processors_of(loaded) if hasattr(found, "merge_size")]
    if not processors:
        raise InputError(f"model.min_pixels, model.max_pixels: {model.label} does not take images of any size")
    for processor in processors:
        size = {**dict(processor.size), **given}
        if size["shortest_edge"] > size["longest_edge"]:
            raise InputError(
                f"model.min_pixels: {size['shortest_edge']:,} is more than model.max_pixels: {size['longest_edge']:,}"
            )
        processor.size = type(processor.size)(**size) if not isinstance(processor.size, dict) else size
