"""Activations that are computed again on the way back instead of being held: those that cost next to nothing to make.

In a decoder of the Llama kind they are two fifths of what a graph holds: both products of the gate, and the copies in
float32 that its norms compute with. The values are the same bits, and so are the gradients.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

GATED = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"
Again = Callable[[], Tensor]


@contextmanager
def fewer_activations(model: nn.Module) -> Iterator[None]:
    """Around forward passes that record a graph."""
    changed = []
    for module in model.modules():
        if "forward" in vars(module):
            continue
        if is_gated(type(module).forward):
            vars(module)["forward"] = partial(_gated, module)
        elif type(module).__name__.endswith("RMSNorm"):
            vars(module)["forward"] = partial(_norm, module.forward)
        else:
            continue
        changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del vars(module)["forward"]


@cache
def is_gated(forward: Callable[..., Any]) -> bool:
    """Whether a class's `forward` computes GATED of x and nothing else, as transformers writes it for many models."""
    if "MLP." not in forward.__qualname__:
        return False
    try:
        lines = [line.strip() for line in inspect.getsource(forward).splitlines()]
    except OSError:  # a class without a file
        return False
    return lines == ["def forward(self, x):", f"down_proj = {GATED}", "return down_proj"]


def _gated(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    held = gate.detach(), up.detach()
    gated = module.act_fn(gate)
    with _held_as(gated, lambda: module.act_fn(held[0])):
        product = gated * up
    del gated
    with _held_as(product, lambda: module.act_fn(held[0]) * held[1]):
        return cast(Tensor, module.down_proj(product))


def _norm(forward: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
    if x.dtype == torch.float32:
        return forward(x, *rest)
    with _copies_held_as(x.detach(), x.grad_fn):
        return forward(x, *rest)


def _held_as(values: Tensor, again: Again) -> saved_tensors_hooks:
    """While it is entered, a graph that would hold these values holds how to make them again."""
    pointer, count = values.data_ptr(), values.numel()

    def pack(tensor: Tensor) -> Tensor | tuple[Again, torch.Size]:
        same = tensor.data_ptr() == pointer and tensor.numel() == count and tensor.is_contiguous()
        return (again, tensor.shape) if same else tensor

    return saved_tensors_hooks(pack, _unpacked)


def _copies_held_as(low: Tensor, made_by: Any) -> saved_tensors_hooks:
    """While it is entered, a graph that would hold a copy of `low` in float32 makes it again. made_by: low's node."""

    def pack(tensor: Tensor) -> Tensor | tuple[Again, torch.Size]:
        node: Any = tensor.grad_fn
        copies = node is not None and node.name() == "ToCopyBackward0" and node.next_functions[0][0] is made_by
        return (low.float, tensor.shape) if copies and tensor.dtype == torch.float32 else tensor

    return saved_tensors_hooks(pack, _unpacked)


def _unpacked(held: Tensor | tuple[Again, torch.Size]) -> Tensor:
    if isinstance(held, Tensor):
        return held
    with torch.no_grad():
        return held[0]().view(held[1])
