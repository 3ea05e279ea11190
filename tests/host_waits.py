"""Counts where the host would wait for a GPU, on a machine without one.

Tensors that would be on the device are marked: the model's, those that are moved, those made with `device=`, and all
that is computed from them. Recorded is what reads a marked tensor's values or copies to the device and waits.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.bincount, aten.equal, aten.is_nonzero,
    aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive,
}  # fmt: skip
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class HostWaits:
    """Entered around what is counted. waits: one line for each, with the place in embedtune that asked."""

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        self.waits: list[str] = []
        self._marked = WeakIdKeyDictionary()
        self._modes = [_Calls(self), _Operations(self)]
        for tensor in on_device:
            self.mark(tensor)

    def mark(self, tensor: Tensor) -> None:
        self._marked[tensor] = True

    def is_marked(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self._marked

    def record(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/embedtune/" in frame.filename]
        place = f"{frames[-1].filename.rpartition('/embedtune/')[2]}:{frames[-1].lineno}" if frames else "elsewhere"
        self.waits.append(f"{what} at {place}")

    def __enter__(self) -> HostWaits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(None, None, None)


def tensors_of(training: Any) -> Iterator[Tensor]:
    """What a run keeps on the device between its steps; lowered copies of weights are parameters too."""
    yield from (value for value in gc.get_objects() if type(value) is nn.Parameter)
    for module in (training.encoder.model, training.objective.modules):
        yield from module.buffers()
    for state in training.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


class _Calls(TorchFunctionMode):
    """What is seen before it becomes an operation: reads of whole tensors, and copies to the device."""

    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options, waits = kwargs or {}, self.waits
        marked = bool(args) and waits.is_marked(args[0])
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.new_tensor) and marked:
            waits.record(func.__name__)
        if func is torch.tensor and options.get("device") is not None:
            waits.record("torch.tensor")
        result = func(*args, **options)
        to_device = func is Tensor.to and any(isinstance(a, torch.device) for a in (*args[1:], options.get("device")))
        if to_device and not marked:
            result = result.clone()  # on the CPU it may be the host's own tensor
            if not options.get("non_blocking"):
                waits.record("to")
        if isinstance(result, Tensor) and (to_device or options.get("device") is not None):
            waits.mark(result)
        return result


class _Operations(TorchDispatchMode):
    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operation, waits = func.overloadpacket, self.waits
        inputs = [value for value in tree_flatten((args, kwargs or {}))[0] if isinstance(value, Tensor)]
        on_device = any(map(waits.is_marked, inputs))
        if on_device and operation in READS:
            waits.record(operation.__name__)
        if on_device and operation is aten.repeat_interleave and (kwargs or {}).get("output_size") is None:
            waits.record("repeat_interleave")
        if on_device and operation in INDEXING:
            for index in args[1]:
                if isinstance(index, Tensor) and (index.dtype == torch.bool or not waits.is_marked(index)):
                    waits.record("an index by a mask" if index.dtype == torch.bool else "an index from the host")
        elif on_device and any(value.ndim and not waits.is_marked(value) for value in inputs):
            waits.record(f"{operation.__name__} of a tensor on the host with one on the device")
        result = func(*args, **(kwargs or {}))
        if on_device:
            for value in tree_flatten(result)[0]:
                if isinstance(value, Tensor):
                    waits.mark(value)
        return result
