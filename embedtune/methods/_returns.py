"""What a method returned, held to its family's contract: at its first call, so that a run stops at its first step.

Broadcasting lets a weighting of another shape train without a word. Every check raises InputError in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ._reading import Method


def checks_first_call(method: Method, bound: Any) -> Any:
    """The bound method, which checks what its first call returns."""
    if isinstance(bound, nn.Module):

        def hook(module: nn.Module, arguments: Any, keywords: Any, returned: Any) -> None:
            handle.remove()
            check_returned(method.family, method.name, returned, arguments)

        handle = bound.register_forward_hook(hook, with_kwargs=True)
        return bound
    return _FirstCallChecked(method, bound)


class _FirstCallChecked:
    def __init__(self, method: Method, bound: Callable[..., Any]) -> None:
        self.method, self.bound, self.checked = method, bound, False

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        with names_file(self.method):
            returned = self.bound(*arguments, **keywords)
        if not self.checked:
            check_returned(self.method.family, self.method.name, returned, arguments)
            self.checked = True
        return returned


@contextmanager
def names_file(method: Method) -> Iterator[None]:
    """Turns an error of a method from outside this package into one line that names its file."""
    try:
        yield
    except (InputError, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if not method.source.outside:
            raise
        kind = f"{method.family}.{method.name}"
        raise InputError(f"{kind}: {method.file} raised {type(error).__name__}: {error}") from error


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
