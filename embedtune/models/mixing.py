"""Weights between those of a base model and a tuned one: (1 - alpha) base + alpha tuned (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import InputError

Weights = Mapping[str, Tensor]
FLOOR = 1e-3  # share of the mean Fisher information: without information both models count the same


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers, in the host's memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def mix_into(
    model: nn.Module, base: Weights, tuned: Weights, alpha: float, fisher: tuple[Weights, Weights] | None = None
) -> None:
    """Sets the model's weights to the mixture, in place. Whole numbers and flags are the tuned model's.

    fisher: the Fisher information of the base's and of the tuned model's weights. The mixture is then their mean
    weighted by it: ((1 - alpha) F0 base + alpha F1 tuned) / ((1 - alpha) F0 + alpha F1) (BCWI, arXiv 2301.10546).
    Raises InputError where the models do not have the same weights.
    """
    refuse_different(base, tuned)
    with torch.no_grad():
        for name, target in model.state_dict().items():
            target.copy_(_between(name, base[name], tuned[name], alpha, fisher))


def _between(name: str, base: Tensor, tuned: Tensor, alpha: float, fisher: tuple[Weights, Weights] | None) -> Tensor:
    if not tuned.is_floating_point() or alpha == 1:
        return tuned
    if alpha == 0:
        return base
    if fisher is None or name not in fisher[0]:
        return torch.lerp(base.float(), tuned.float(), alpha)
    of_base, of_tuned = (1 - alpha) * fisher[0][name], alpha * fisher[1][name]
    return (of_base * base + of_tuned * tuned) / (of_base + of_tuned)


def with_floor(fisher: Weights) -> dict[str, Tensor]:
    """The information with a floor: a small share of its mean over all weights."""
    total = sum(float(values.sum()) for values in fisher.values())
    count = sum(values.numel() for values in fisher.values())
    return {name: values + max(FLOOR * total / count, 1e-30) for name, values in fisher.items()}


def refuse_different(base: Weights, tuned: Weights) -> None:
    """Raises InputError that names the first weight whose presence or shape differs."""
    for name in sorted(base.keys() | tuned.keys()):
        shapes = [tuple(weights[name].shape) if name in weights else None for weights in (base, tuned)]
        if shapes[0] != shapes[1]:
            of_base, of_tuned = ("absent" if shape is None else f"of shape {list(shape)}" for shape in shapes)
            raise InputError(
                f"the two models do not have the same weights: {name} is {of_base} in the base and {of_tuned} in the "
                "tuned model; is it the model that was tuned?"
            )
