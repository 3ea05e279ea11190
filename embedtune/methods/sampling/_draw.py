"""Drawing without replacement from weights given as logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError


def draw(log_weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of `count` items (or as many as there are), in ascending order.

    The largest of log-weight + Gumbel noise are what drawing one by one without replacement gives, and logarithms do
    not underflow where the weights would.
    """
    if count < 0:
        raise InputError(f"sampling.count: must be 0 or more, got {count}")
    waiting = torch.empty(len(log_weights), dtype=torch.float64).exponential_(generator=generator)
    keys = log_weights.detach().cpu().double() - waiting.log()
    return keys.topk(min(count, len(keys))).indices.sort().values
