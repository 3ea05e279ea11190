"""Memory that libraries keep on a CPU for shapes that seldom come again; chunks by length have hundreds of shapes."""

from __future__ import annotations

import ctypes
import os
from functools import cache

KERNELS = "32"  # some two chunks' worth; the thousand of the library's own bound are 200 MiB


def bound_kernels() -> None:
    """Has oneDNN, which makes bf16 kernels for each shape, keep the last ones only. Before its first use, or not."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not the GNU C library
        return None


def give_back() -> None:
    """Gives the system back what was freed. Else it stays in pieces, which later tensors of other shapes do not fit."""
    trim = _trim()
    if trim is not None:
        trim(0)
