from __future__ import annotations

from collections.abc import Sequence

import torch

from ...types import Turn
from . import BatchContext, cut


def shuffle(
    turns: Sequence[Turn], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Turn]]:
    """Cuts a plain random order into batches; the baseline that every other method is compared with.

    Every turn is used once. Turns of one query may meet in a batch: their positives are masked by id, at the price of
    fewer negatives for them (`unique` avoids it).
    """
    order = torch.randperm(len(turns), generator=generator).tolist()
    return cut([turns[index] for index in order], batch_size)
