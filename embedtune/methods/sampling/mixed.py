from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ._draw import draw


def mixed(
    scores: Tensor,
    positive_score: float,
    *,
    count: int = 4,
    hard: int = 1,
    depth: int = 200,
    generator: torch.Generator,
) -> Tensor:
    """Mixes hard candidates, drawn from the first `depth`, with random ones (STAR, arXiv 2104.08051).

    hard: how many of the `count` come from the first `depth` kept candidates; the rest comes from all others.
    STAR draws one hard negative from a fixed top-200 list and takes the other documents of the batch as random ones;
    here the random ones are drawn from the remaining candidates, so it works best on a union with a random source.
    scores: (K,) one query's kept candidates, in rank order. Without replacement.
    """
    if hard < 0 or depth < 1:
        raise InputError(f"sampling.mixed: expected hard of at least 0 and depth of at least 1, got {hard} and {depth}")
    chosen = draw(torch.zeros(min(depth, len(scores))), min(hard, count), generator)
    rest = torch.ones(len(scores), dtype=torch.bool)
    rest[chosen] = False
    others = rest.nonzero().flatten()
    return torch.cat([chosen, others[draw(torch.zeros(len(others)), count - len(chosen), generator)]]).sort().values
