"""A device that computes on the CPU and refuses what a GPU refuses: operations on tensors of two devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")  # torch checks nothing before it makes tensors there; here they hold numbers


class Moved(Tensor):
    """A tensor that says it is on the device. Its numbers are `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Moved:
        moved = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        moved.held = held
        return moved  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func}: outside of PretendedDevice")


class PretendedDevice(TorchDispatchMode):
    """While it is entered, tensors made on or moved to DEVICE are computed there. operations: how often each ran."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        tensors: list[Tensor] = []
        tree_map(lambda value: tensors.append(value) if isinstance(value, Tensor) else None, [args, options])
        moved = [isinstance(tensor, Moved) for tensor in tensors]
        name = func.__name__.partition(".")[0]
        target = options.get("device")
        on_device = any(moved) if target is None else torch.device(target) == DEVICE
        if name not in ("_to_copy", "copy_") and any(moved):
            strangers = [
                tensor.shape for tensor, there in zip(tensors, moved, strict=True) if not there and tensor.dim()
            ]
            assert not strangers, f"{name}: tensors {strangers} are on the host"
        if target is not None:
            options["device"] = torch.device("cpu")
        args, options = tree_map(lambda value: value.held if isinstance(value, Moved) else value, (args, options))
        result = func(*args, **options)
        if not on_device:
            return result
        self.operations[name] += 1
        return tree_map(lambda value: Moved(value) if isinstance(value, Tensor) else value, result)
