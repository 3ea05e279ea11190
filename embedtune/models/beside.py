"""What is done beside computing: the next values are made on a thread, and copies to and from a GPU are not awaited."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import distributed

T = TypeVar("T")
Rows = Callable[[], npt.NDArray[np.float32]]
"""Waits for rows (n, H) that a device computes."""
ENOUGH_CORES = 4  # with fewer and no GPU, computing needs them all
_END = object()


def has_room() -> bool:
    """Whether a thread beside computing takes no core from it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.cuda.is_available() or cores // distributed.local_count() >= ENOUGH_CORES


def ahead(values: Generator[T, None, None], early: Callable[[T], bool] = lambda _: True) -> Generator[T, None, None]:
    """The values in order; the next one is made on a thread while the caller works with the one before.

    early: whether the value after this one may be made at once; otherwise the caller's own thread makes it when it is
    asked for. An error is raised where its value would be given. Close it (`contextlib.closing`), so that its thread
    ends.
    """
    if not has_room():
        yield from values
        return
    # the current device is a thread's own
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    thread = ThreadPoolExecutor(1, "ahead", None if device is None else partial(torch.cuda.set_device, device))
    try:
        value: Any = next(values, _END)
        while value is not _END:
            coming = thread.submit(next, values, _END) if early(value) else None
            yield value
            value = coming.result() if coming is not None else next(values, _END)
    finally:
        thread.shutdown(cancel_futures=True)
        values.close()


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The values on a device; on a GPU from pinned memory, so that the host does not wait for the copy."""
    pinned = values.pin_memory() if device.type == "cuda" and values.device.type == "cpu" else values
    return pinned.to(device, non_blocking=True)


def row_index(rows: Iterable[int], device: torch.device) -> Tensor:
    """(n,) row numbers on a device, as `moved`: indexing by a list waits."""
    return moved(torch.tensor([*rows], dtype=torch.int64), device)


def brought(values: Tensor) -> Rows:
    """Starts to copy (n, H) to the host; the function that it returns waits for them, on any thread."""
    values = values.detach().float()
    if values.device.type != "cuda":
        rows: npt.NDArray[np.float32] = values.cpu().numpy()
        return lambda: rows
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(values.device))

    def wait() -> npt.NDArray[np.float32]:
        copied.synchronize()
        return host.numpy()

    return wait
