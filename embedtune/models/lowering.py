"""Weights in half precision, lowered once. Autocast keeps what it has lowered of trained weights until its outermost
block ends, and nothing of frozen ones: those it lowers at every use, and a graph holds each copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import may_take_any_dtype

Lowered = tuple[nn.Parameter, tuple[int, int], nn.Parameter]
"""A weight, which is held so that no other gets its id, its version and place when it was lowered, and the copy."""
AS_IN_TORCH = tuple(kind.forward for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


class LoweredWeights:
    """The frozen weights of a model in `dtype`, for as long as they do not change."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device.type, dtype
        self._low: dict[int, Lowered] = {}  # by the weight's id
        self._entered = False

    @contextmanager
    def once(self, model: nn.Module) -> Iterator[None]:
        """Around the chunks of a pass; each chunk enters autocast by itself. Not around a change of weights, nor around
        passes with a graph and without: autocast keeps of a weight what it lowered first, with its graph or without.

        The results are autocast's own, bit by bit. Within itself it has no effect.
        """
        if self._entered:
            yield
            return
        before, self._low = self._low, {}
        set_for_now: list[tuple[nn.Module, str]] = []
        for module in model.modules():
            if may_take_any_dtype(module):  # peft's copy in float32 would be lowered again at once
                set_for_now.append((module, "cast_input_dtype_enabled"))
                vars(module)["cast_input_dtype_enabled"] = False
            elif _lowers_all(module) and (low := self._lowered(module, before)):
                set_for_now.append((module, "forward"))
                vars(module)["forward"] = self._forward(module, low)
        self._entered = True
        try:
            with torch.autocast(self._device, self._dtype, enabled=False):  # the outermost block
                yield
        finally:
            self._entered = False
            for module, name in set_for_now:
                if name == "forward":
                    del vars(module)[name]
                else:
                    vars(module)[name] = True

    def _lowered(self, module: nn.Module, before: Mapping[int, Lowered]) -> dict[str, Tensor | None]:
        """The module's parameters with frozen ones lowered; empty where none is."""
        low: dict[str, Tensor | None] = {}
        for name, weight in module._parameters.items():
            if weight is None or weight.requires_grad or weight.dtype != torch.float32:
                continue
            state = (weight._version, weight.data_ptr())
            entry = self._low.get(id(weight)) or before.get(id(weight))
            if entry is None or entry[1] != state:
                with torch.inference_mode(False):  # a graph may not hold what is made in it
                    entry = (weight, state, nn.Parameter(weight.detach().to(self._dtype), requires_grad=False))
            self._low[id(weight)] = entry
            low[name] = entry[2]
        return {**module._parameters, **low} if low else {}

    def _forward(self, module: nn.Module, low: dict[str, Tensor | None]) -> Callable[..., Any]:
        """The module's forward pass, with the lowered weights wherever autocast would lower them."""
        forward, device = module.forward, self._device

        def lowered(*args: Any, **options: Any) -> Any:
            if not torch.is_autocast_enabled(device):
                return forward(*args, **options)
            parameters = module._parameters
            vars(module)["_parameters"] = low
            try:
                return forward(*args, **options)
            finally:
                vars(module)["_parameters"] = parameters

        return lowered


def _lowers_all(module: nn.Module) -> bool:
    """Whether autocast lowers all that the module computes with: linear layers and convolutions as torch has them."""
    return type(module).forward in AS_IN_TORCH and "forward" not in vars(module)
