"""What a launcher (torchrun, accelerate launch) says about the processes that it started; a single process leads.

One answer for the whole package, from the environment, so that it is known before torch is imported. Once training has
an Accelerator, it has checked that both agree. Encoding is shared by the cache (models/store.py): one process of a
launch does the work, and the others encode what it encodes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from .errors import InputError


def count() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the process that writes and speaks."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def local_count() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def local_rank() -> int:
    """The number of this process among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def wait_for_first(folder: Path, ready: Callable[[], bool], work: str) -> None:
    """Waits until the first process has done its work, such as a file: a collective would time out meanwhile.

    folder: a folder that the first process holds locked while it lives. Raises InputError where it ends without being
    ready.
    """
    from .files import is_locked  # with safetensors, which `--help` does not need

    while not ready():
        if not is_locked(folder) and not ready():
            raise InputError(f"{folder}: the first process has ended while it was to {work}; see its error")
        time.sleep(0.05)
