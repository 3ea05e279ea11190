"""What a method returned, held to its family's contract: at its first call, so that a run stops at its first step.

Broadcasting lets a weighting of another shape train without a word. Every check raises InputError in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError


def checks_first_call(family: str, name: str, method: Any) -> Any:
    """The method, which checks what its first call returns."""
    if isinstance(method, nn.Module):

        def hook(module: nn.Module, arguments: Any, keywords: Any, returned: Any) -> None:
            handle.remove()
            check_returned(family, name, returned, arguments)

        handle = method.register_forward_hook(hook, with_kwargs=True)
        return method
    return _FirstCallChecked(family, name, method)


class _FirstCallChecked:
    def __init__(self, family: str, name: str, method: Callable[..., Any]) -> None:
        self.family, self.name, self.method, self.checked = family, name, method, False

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        returned = self.method(*arguments, **keywords)
        if not self.checked:
            check_returned(self.family, self.name, returned, arguments)
            self.checked = True
        return returned


def check_returned(family: str, name: str, returned: Any, arguments: Sequence[Any]) -> None:
    """Raises InputError where a call with these arguments must not return this."""
    contract = import_module(f"{__package__}.{family}._contract")
    problem: str = contract.problem_of(returned, *arguments)
    if problem:
        raise InputError(f"{family}.{name}: {problem} (the contract: `embedtune methods {family}`)")


def tensor_problem(value: Any, shape: Sequence[int], kind: str) -> str:
    """Why a value is no tensor of this shape and kind: bool, or float for float32 and float64."""
    dtypes = (torch.bool,) if kind == "bool" else (torch.float32, torch.float64)
    if not isinstance(value, Tensor):
        return f"returned {type(value).__name__}, expected a tensor"
    if tuple(value.shape) != tuple(shape):
        return f"returned the shape {tuple(value.shape)}, expected {tuple(shape)}"
    if value.dtype not in dtypes:
        return f"returned {value.dtype}, expected {' or '.join(map(str, dtypes))}"
    return ""
