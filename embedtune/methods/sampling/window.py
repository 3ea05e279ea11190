from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ._draw import draw


def window(
    scores: Tensor,
    positive_score: float,
    *,
    count: int = 4,
    first: int = 1,
    last: int = 100,
    generator: torch.Generator,
) -> Tensor:
    """Draws uniformly from a window of ranks, first to last, as in ANCE (arXiv 2007.00808), which draws from 1 to 200.

    scores: (K,) one query's kept candidates, in rank order; ranks count from 1 among them, after filtering. Returns
    indices, `count` or as many as the window holds.
    """
    if not 1 <= first <= last:
        raise InputError(f"sampling.window: expected 1 <= first <= last, got first {first}, last {last}")
    inside = torch.arange(len(scores))[first - 1 : last]
    return inside[draw(torch.zeros(len(inside)), count, generator)]
