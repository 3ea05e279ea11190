from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError


def top(scores: Tensor, positive_score: float, *, count: int = 4, generator: torch.Generator) -> Tensor:
    """Takes the first candidates in rank order: the hardest ones that the filters kept (as in DPR, arXiv 2004.04906).

    scores: (K,) one query's kept candidates, in rank order. Returns their indices, `count` or as many as there are.
    """
    if count < 0:
        raise InputError(f"sampling.count: must be 0 or more, got {count}")
    return torch.arange(min(count, len(scores)))
