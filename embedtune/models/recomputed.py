"""Activations that are computed again on the way back instead of being held: those that cost next to nothing to make.

In a decoder of the Llama kind they are half of what a graph holds: both products of the gate, what the norms give, and
the copies in float32 that they compute with. The values are the same bits, and so are the gradients.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

GATED = "self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))"


class Again:
    """How to make a tensor again from others. uses: how often the graph wants it; it is held from the first time to
    the last."""

    def __init__(self, make: Callable[..., Tensor], *sources: Tensor) -> None:
        self._make, self._sources = make, [source.detach() for source in sources]
        self._versions = [source._version for source in sources]
        self.uses = 0
        self.values: Tensor | None = None

    def take(self) -> Tensor:
        """Raises RuntimeError where a source was changed in place since, as autograd does."""
        values = self.values
        if values is None:
            if self._versions != [source._version for source in self._sources]:
                raise RuntimeError("an activation that is computed again on the way back was changed in place")
            with torch.no_grad():
                values = self._make(*self._sources)
        self.uses -= 1
        self.values = values if self.uses > 0 else None
        return values


class Graph:
    """Tensors that a graph need not hold."""

    def __init__(self) -> None:
        # address -> what stands there as long as it lives, its version, how to make it again
        self._noted: dict[int, tuple[weakref.ref[Tensor], int, Again]] = {}

    def note(self, values: Tensor, again: Again) -> None:
        self._noted[values.data_ptr()] = (weakref.ref(values), values._version, again)

    def copied(self, low: Tensor) -> Callable[[Tensor], Tensor | tuple[Again, torch.Size]]:
        """Packs copies of `low` in float32 as well."""
        copies, made_by = Again(Tensor.float, low), (low.grad_fn, low.output_nr)

        def pack(tensor: Tensor) -> Tensor | tuple[Again, torch.Size]:
            node: Any = tensor.grad_fn
            copied = node is not None and node.name() == "ToCopyBackward0" and node.next_functions[0] == made_by
            if not copied or tensor.dtype != torch.float32:
                return self.pack(tensor)
            copies.uses += 1
            return copies, tensor.shape

        return pack

    def pack(self, tensor: Tensor) -> Tensor | tuple[Again, torch.Size]:
        entry = self._noted.get(tensor.data_ptr())
        if entry is None or entry[0]() is None:
            return tensor
        values, again = cast(Tensor, entry[0]()), entry[2]
        like = (values.numel(), values.dtype, values._version) == (tensor.numel(), tensor.dtype, entry[1])
        if not like or not tensor.is_contiguous():
            return tensor
        again.uses += 1
        return again, tensor.shape

    def hooks(self) -> saved_tensors_hooks:
        return saved_tensors_hooks(self.pack, unpacked)


def unpacked(held: Tensor | tuple[Again, torch.Size]) -> Tensor:
    return held if isinstance(held, Tensor) else held[0].take().view(held[1])


@contextmanager
def fewer_activations(model: nn.Module) -> Iterator[None]:
    """Around forward passes that record a graph. Without effect within hooks for saved tensors, such as save_on_cpu:
    torch calls the innermost ones alone."""
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        yield
        return
    changed, graph = [], Graph()
    for module in model.modules():
        if "forward" in vars(module):
            continue
        if is_gated(type(module).forward):
            vars(module)["forward"] = partial(_gated, graph, module)
        elif type(module).__name__.endswith("RMSNorm"):
            vars(module)["forward"] = partial(_norm, graph, module.forward)
        else:
            continue
        changed.append(module)
    try:
        with graph.hooks() if changed else nullcontext():
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


def _gated(graph: Graph, module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    gated = module.act_fn(gate)
    graph.note(gated, Again(module.act_fn, gate))
    product = gated * up
    del gated
    graph.note(product, Again(lambda gate, up: module.act_fn(gate) * up, gate, up))
    return cast(Tensor, module.down_proj(product))


def _norm(graph: Graph, forward: Callable[..., Tensor], x: Tensor, *rest: Any, **options: Any) -> Tensor:
    with saved_tensors_hooks(graph.copied(x), unpacked):
        values = forward(x, *rest, **options)
    graph.note(values, Again(lambda low: forward(low, *rest, **options), x))
    return values
