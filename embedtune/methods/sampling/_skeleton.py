from __future__ import annotations

import torch
from torch import Tensor


def skeleton(scores: Tensor, positive_score: float, *, count: int = 4, generator: torch.Generator) -> Tensor:
    """Draws uniformly from the kept candidates: say in one line what yours does (and cite its paper).

    scores: (K,) one query's kept candidates, best first. Returns rows, `count` or all there are. Say what each option
    does and where you depart.
    """
    return torch.randperm(len(scores), generator=generator)[:count]
