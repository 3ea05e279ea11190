from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import InputError
from ...types import Pair
from .. import MethodSpec
from . import BatchContext, cut

SPEC = MethodSpec(needs=("lengths",))


def length(
    pairs: Sequence[Pair], batch_size: int, context: BatchContext, *, window: int = 50, generator: torch.Generator
) -> list[list[Pair]]:
    """Puts pairs of similar length together, to save padding; a baseline of the transformers library.

    A random order is cut into windows of `window` batches, each window is sorted by tokens (longest first) and cut
    into batches, and the batches are shuffled. A larger window saves more padding and makes batches less random. Every
    pair is used once. Raises InputError where context.lengths is missing.
    """
    if context.lengths is None:
        raise InputError("batching.length: needs the pairs' lengths in tokens")
    if window < 1:
        raise InputError(f"batching.length.window: must be at least 1, got {window}")
    order = torch.randperm(len(pairs), generator=generator).tolist()
    by_length = []
    for start in range(0, len(order), window * batch_size):
        by_length += sorted(order[start : start + window * batch_size], key=context.lengths.__getitem__, reverse=True)
    batches = cut([pairs[index] for index in by_length], batch_size)
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]
