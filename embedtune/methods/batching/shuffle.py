from __future__ import annotations

from collections.abc import Sequence

import torch

from ...types import Pair
from . import BatchContext, cut


def shuffle(
    pairs: Sequence[Pair], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Pair]]:
    """Cuts a plain random order into batches; the baseline that every other method is compared with.

    Every pair is used once. Pairs of one query may meet in a batch: their positives are masked by id, at the price of
    fewer negatives for them (`unique` avoids it).
    """
    order = torch.randperm(len(pairs), generator=generator).tolist()
    return cut([pairs[index] for index in order], batch_size)
