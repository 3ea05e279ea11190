"""Memory that libraries keep on a CPU for shapes that seldom come again; chunks by length have hundreds of shapes."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

KERNELS = "32"  # some two chunks' worth; the thousand of the library's own bound are 200 MiB
SPARE = (
    2**27
)  # bytes: more than a chunk takes, so that it is not given back after each, which costs 2 to 5% of the time
_STATM = Path("/proc/self/statm")


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


class Spare:
    """Keeps what was freed and not given back within a bound, asked between chunks: most of them need nothing done."""

    def __init__(self) -> None:
        self._least = _held()

    def bound(self) -> None:
        """Gives back where the process has come to hold much more than after the last time."""
        if _held() > self._least + SPARE:
            give_back()
            self._least = _held()


def _held() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
