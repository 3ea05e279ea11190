"""Composed dual encoders: a text tower and an image tower, each with a projection into one space.

They consist of sentence-transformers' own modules, Router[Transformer, Pooling, Dense] and Normalize, so that a saved
folder opens with `SentenceTransformer(path)` and runs no code of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import InputError
from ..recipe import Compose, Model
from . import efficientnet_lite
from .dtypes import options_of, ready_to_train, resolve_dtype, stored_dtype
from .folders import model_folder, with_safetensors
from .opening import opened, transformer_in
from .precision import Resolved

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROUTES = ("text", "image")
TOWER = 2  # modules of a route before its projection: Transformer and Pooling


def compose(
    model: Model, chosen: Compose, text: SentenceTransformer, device: torch.device, frozen_in: Resolved | None
) -> SentenceTransformer:
    """The model of these towers, with new projections. text: the loaded text encoder. frozen_in: as in `load_model`."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Router

    towers = {"text": _tower(text, chosen.text), "image": _image_tower(model, chosen, device, frozen_in)}
    for tower in towers.values():
        tower.append(Dense(tower[-1].get_embedding_dimension(), chosen.dimension, activation_function=None))
    router = Router(towers, route_mappings={(None, route): route for route in ROUTES})
    modules = [router, Normalize()]
    composed = SentenceTransformer(modules=modules, device=str(device), similarity_fn_name="cosine")
    composed.prompts = text.prompts
    return composed


def projections(model: SentenceTransformer) -> list[torch.nn.Module]:
    """The projection of each tower."""
    return [route[TOWER] for route in model[0].sub_modules.values()]


def tower_output(model: SentenceTransformer, features: dict[str, Any]) -> torch.Tensor:
    """(n, F) the output of the tower for these features' modality, before its projection."""
    for module in list(model[0].sub_modules[features["modality"]])[:TOWER]:
        features = module(features)
    output: torch.Tensor = features["sentence_embedding"]
    return output


def from_tower(model: SentenceTransformer, features: dict[str, Any]) -> dict[str, Any]:
    """The features after the rest of the model; they hold a tower's output as sentence_embedding before."""
    for module in [*list(model[0].sub_modules[features["modality"]])[TOWER:], *list(model)[1:]]:
        features = module(features)
    return features


def _tower(model: SentenceTransformer, name: str) -> list[Any]:
    """The transformer and the pooling of a model, without a normalisation after them."""
    modules = list(model)
    names = [type(module).__name__ for module in modules]
    if names[:2] != ["Transformer", "Pooling"] or set(names[2:]) - {"Normalize"}:
        raise InputError(f"model.compose: {name} is {' + '.join(names)}; a tower is a Transformer and a Pooling")
    return modules[:TOWER]


def _image_tower(model: Model, chosen: Compose, device: torch.device, frozen_in: Resolved | None) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Pooling

    label = f"model.compose.image: {chosen.image}"
    folder = model_folder(chosen.image)
    if not (folder / "config.json").exists():
        weights = efficientnet_lite.weights_in(folder)
        if weights is None:
            raise InputError(f"{label}: not a model folder (no config.json)")
        folder = efficientnet_lite.converted(weights)
    folder = with_safetensors(folder)
    stored = stored_dtype(folder)
    options = options_of(resolve_dtype(model.dtype, stored, frozen_in), device, frozen_in)
    options["attn_implementation"] = model.attention
    transformer = opened(
        label,
        lambda: transformer_in(folder, options, trust_remote_code=model.trust_remote_code),
        new_weights=model.new_weights,
    )
    transformer.stored_dtype = stored
    ready_to_train(transformer)
    if transformer.modalities != ["image"] or transformer.module_output_name != "token_embeddings":
        reads = ", ".join(map(str, transformer.modalities))
        raise InputError(f"{label} reads {reads}; expected a vision model alone")
    transformer.processor.do_convert_rgb = True  # whoever opens the saved folder may hand it any picture
    patches = getattr(transformer.config, "patch_size", None) is not None
    if chosen.image_size is not None:
        _set_size(transformer, chosen, fixed=patches)
    if chosen.image_pooling == "cls" and not patches:
        raise InputError(f"model.compose.image_pooling: {chosen.image} has no first token; use mean")
    return [transformer, Pooling(transformer.get_embedding_dimension(), chosen.image_pooling)]


def _set_size(transformer: Any, chosen: Compose, *, fixed: bool) -> None:
    """fixed: the model has a position embedding for each patch of images of one size."""
    size, expected = chosen.image_size, getattr(transformer.config, "image_size", None)
    if fixed and size != expected:
        raise InputError(
            f"model.compose.image_size: {chosen.image} takes images of {expected} pixels a side, not {size}"
        )
    processor = transformer.processor
    processor.size = type(processor.size)(height=size, width=size)
    if getattr(processor, "do_center_crop", False):
        processor.crop_size = type(processor.crop_size)(height=size, width=size)
