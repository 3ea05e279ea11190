"""Chunks that the device's memory does not hold: they are halved, the user is told, and the work goes on."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from ..errors import InputError
from . import cpu
from .prepared import Prepared

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
# How errors begin that torch raises as plain RuntimeError where memory ran out.
_MESSAGES = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(message in str(error) for message in _MESSAGES)


def attempt(call: Callable[[], Result], device: torch.device) -> Result | None:
    """The call's result; None where memory ran out, after what the call held has been freed."""
    try:
        return call()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Here the error is gone, and with its traceback the tensors of the frames that it came through.
    give_back(device)
    return None


def give_back(device: torch.device) -> None:
    """Makes the memory of tensors that are no longer held available to others."""
    gc.collect()
    if device.type == "cpu":
        cpu.give_back()
    else:
        torch.get_device_module(device).empty_cache()


@dataclass
class ChunkTokens:
    """How many tokens a chunk holds at most: those asked for, and those that the device's memory was found to hold.
    Both are None as long as the device's own number holds. whole_graphs: whether the memory holds the graph of a batch
    that is trained on without gradient caching, as far as is known."""

    asked: int | None = None
    bound: int | None = None
    whole_graphs: bool = True

    @property
    def most(self) -> int | None:
        return self.asked if self.bound is None else self.bound

    def halve(self, items: Sequence[Prepared], where: str) -> None:
        """Sets the most tokens to half of these items', which the memory did not hold, and says so.

        where: the model and its device. Raises InputError for a single item, which cannot be taken apart.
        """
        longest = max(item.length for item in items)
        if len(items) == 1:
            raise InputError(
                f"{where}: its memory does not hold a single item of {longest:,} tokens; lower model.max_length "
                "(--max-length; for images model.max_pixels), and to train also: model.lora, "
                "model.gradient_checkpointing: true, train.precision: bf16"
            )
        half = max(1, len(items) * longest // 2)
        if self.most is not None and self.most <= half:
            return  # said before
        self.bound = half
        _log.warning(
            "%s: out of memory with %s tokens at once; at most %s from here on (model.chunk_tokens, --chunk-tokens)",
            where,
            f"{len(items) * longest:,}",
            f"{self.bound:,}",
        )
