"""What a launcher (torchrun, accelerate launch) says of the processes that it started; one process leads by itself.

Encoding is shared between processes by the cache (encode/shared.py), so a launch of several is one process that does
its work, and others that encode what it encodes (and search where it depends on that what is encoded).
"""

from __future__ import annotations

import os


def count() -> int:
    """How many were started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this is the one that writes and speaks."""
    return count() == 1 or os.environ.get("RANK", "0") == "0"


def place_here() -> int:
    """Its number among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))
