from __future__ import annotations

from collections.abc import Sequence

import torch

from embedtune.methods.batching import BatchContext, cut
from embedtune.types import Pair


def skeleton(
    pairs: Sequence[Pair], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Pair]]:
    """Shuffles the pairs of an epoch: say in one line what yours does (and cite its paper).

    Say what each option does and where you depart.
    """
    order = torch.randperm(len(pairs), generator=generator).tolist()
    return cut([pairs[row] for row in order], batch_size)
