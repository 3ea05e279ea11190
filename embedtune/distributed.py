"""What a launcher (torchrun, accelerate launch) says about the processes that it started; a single process leads.

One answer for the whole package, from the environment, so that it is known before torch is imported. Once training has
an Accelerator, it has checked that both agree. Encoding is shared by the cache (models/store.py): one process of a
launch does the work, and the others encode what it encodes.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributed.distributed_c10d import Store

Decision = TypeVar("Decision")
_exchanges = itertools.count()  # every process makes the same exchanges in the same order


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
    """Waits until the first process has done its work, such as a file, where the processes are no group (any more).

    folder: a folder that the first process holds locked while it lives. Raises InputError where it ends without being
    ready.
    """
    from .files import is_locked  # with safetensors, which `--help` does not need

    while not ready():
        if not is_locked(folder) and not ready():
            raise InputError(f"{folder}: the first process has ended while it was to {work}; see its error")
        time.sleep(0.05)


def from_first(decide: Callable[[], Decision]) -> Decision:
    """What the first process decides, on every process: a value that JSON gives back as it was.

    The others look into the group's store until it is there, however long the first one works: in a collective they
    would time out. Where it raises InputError or OSError, every process ends with that line.
    """
    if count() == 1:
        return decide()
    with _exchange() as (store, key):
        if not leads():
            _until(lambda: bool(store.check([key])))
            outcome: dict[str, Any] = json.loads(store.get(key))
            if "error" in outcome:
                raise InputError(outcome["error"])
            decision: Decision = outcome["decision"]
            return decision
        try:
            decision = decide()
        except (InputError, OSError) as error:
            store.set(key, json.dumps({"error": str(error)}))
            raise
        store.set(key, json.dumps({"decision": decision}))
        return decision


def meet() -> None:
    """Waits for every process, however long one of them works."""
    if count() > 1:
        with _exchange() as (store, key):
            store.add(key, 1)
            _until(lambda: store.add(key, 0) >= count())


def refuse_together(problem: str | None) -> None:
    """Raises InputError on every process where one of them has a problem, with the problem of the lowest rank."""
    if count() == 1:
        problems = [problem]
    else:
        with _exchange() as (store, key):
            names = [f"{key}-{rank}" for rank in range(count())]
            store.set(names[int(os.environ["RANK"])], json.dumps(problem))
            _until(lambda: bool(store.check(names)))
            problems = [json.loads(store.get(name)) for name in names]
    for known in filter(None, problems):
        raise InputError(known)


def host() -> str:
    """This process by its rank and its machine's name, for a message."""
    return f"process {os.environ.get('RANK', '0')} on {socket.gethostname()}"


@contextmanager
def _exchange() -> Iterator[tuple[Store, str]]:
    """The group's store and the key of this exchange. Raises InputError where the store is gone."""
    import torch.distributed as group
    from torch.distributed.distributed_c10d import _get_default_store

    try:
        yield _get_default_store(), f"embedtune-{next(_exchanges)}"
    except (group.DistStoreError, group.DistNetworkError) as error:
        raise InputError(f"another process of this run has ended ({error}); see its error") from None


def _until(ready: Callable[[], bool]) -> None:
    """Looks less and less often: what takes long may be seen a little late."""
    pause = 0.001
    while not ready():
        time.sleep(pause)
        pause = min(1.5 * pause, 0.25)
