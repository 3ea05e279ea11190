"""What a launcher (torchrun, accelerate launch) says about the processes that it started; a single process leads.

One answer for the whole package, from the environment, so that it is known before torch is imported. Once training has
an Accelerator, it has checked that both agree. Encoding is shared by the cache (models/store.py): one process of a
launch does the work, and the others encode what it encodes.
"""

from __future__ import annotations

import os


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
