"""Which layer a weight belongs to, by its name: for freezing the lowest layers and for rates that fall with depth."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from ..errors import InputError

_LAYER = re.compile(r"\.(?:layers?|blocks?|h)\.(\d+)\.")
_EMBEDDING = re.compile(r"embed|\.wte\.|\.wpe\.")


def layers_of(names: Iterable[str]) -> dict[str, int | None]:
    """name -> its layer from 0 at the bottom; -1 for embeddings; None for what stands above all layers."""
    found: dict[str, int | None] = {}
    for name in names:
        numbered = _LAYER.search(name)
        found[name] = int(numbered[1]) if numbered else -1 if _EMBEDDING.search(name) else None
    return found


def rate_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """name -> the share of the learning rate that it gets: 1 above the layers and in the highest one, times `decay`
    for each layer below (layer-wise rates, ULMFiT, arXiv 1801.06146; BERT, arXiv 1905.05583).

    Raises InputError where the names show no layers.
    """
    layers = layers_of(names)
    highest = _highest(layers, "stay_close.layer_decay")
    return {name: 1.0 if layer is None else decay ** (highest - layer) for name, layer in layers.items()}


def freeze(model: nn.Module, count: int) -> None:
    """Stops gradients of the lowest `count` layers and of the embeddings. Nothing below the lowest trained layer is
    then recorded for the backward pass. Raises InputError for more layers than there are."""
    layers = layers_of(name for name, _ in model.named_parameters())
    highest = _highest(layers, "stay_close.freeze_layers")
    if count > highest + 1:
        raise InputError(f"stay_close.freeze_layers: {count} is more than the model's {highest + 1} layers")
    for name, parameter in model.named_parameters():
        layer = layers[name]
        if layer is not None and layer < count:
            parameter.requires_grad_(False)


def _highest(layers: dict[str, int | None], key: str) -> int:
    numbers = [layer for layer in layers.values() if layer is not None]
    if not numbers or max(numbers) < 0:
        raise InputError(f"{key}: the weights' names show no layers here (none is called layer.0 or the like)")
    return max(numbers)
