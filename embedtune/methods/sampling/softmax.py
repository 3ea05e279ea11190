from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ._draw import draw


def softmax(
    scores: Tensor, positive_score: float, *, count: int = 4, temperature: float = 0.05, generator: torch.Generator
) -> Tensor:
    """Draws candidates with probability softmax(score / temperature): between `top` (0) and uniform (large).

    This is the draw that hard-negative sampling (arXiv 2010.04592) approximates by weights. scores: (K,) one
    query's kept candidates; temperature in their units. Without replacement.
    """
    if not temperature > 0:
        raise InputError(f"sampling.softmax.temperature: must be above 0, got {temperature}")
    return draw(scores / temperature, count, generator)
