"""Measuring: retrieval, runs, and the files that keep what was found.

`from embedtune import evaluate` gives a function, but once any module in here has been imported Python binds that name
to this package. So the package can be called, too, and does the same.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .retrieval import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
