"""Memory that libraries keep on a CPU for shapes that seldom come again; chunks by length have hundreds of shapes."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

KERNELS = "32"  # some two chunks' worth; the thousand of the library's own bound are 200 MiB
GROWTH = 64 * 2**20  # bytes
_PAGES = Path("/proc/self/statm")


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


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say it this way."""
    try:
        return int(_PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@dataclass
class Steady:
    """Gives back what was freed where memory has grown since the first chunk after the last time. Not at every chunk:
    what is given back has to be fetched again, a page at a time, which can take a seventh of a training step."""

    level: int | None = None  # bytes

    def look(self) -> None:
        now = resident()
        if self.level is None:
            self.level = now
        elif now > self.level + GROWTH:
            give_back()
            self.level = None


_steady = Steady()  # memory is the whole process's


def between_chunks(device: torch.device) -> None:
    """Keeps the memory of many chunks steady."""
    if device.type == "cpu":  # a GPU's memory is not the C library's
        _steady.look()
