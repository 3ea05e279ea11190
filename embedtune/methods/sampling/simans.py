from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import InputError
from ._draw import draw


def simans(
    scores: Tensor,
    positive_score: float,
    *,
    count: int = 4,
    sharpness: float = 1.0,
    center_offset: float = 0.0,
    generator: torch.Generator,
) -> Tensor:
    """Draws ambiguous candidates, scored near the positive: p ~ exp(-a (s - s+ - b)^2) (SimANS, arXiv 2210.11773).

    sharpness: a, in 1/score^2; 0 is uniform. The paper's 0.5 and 1 are for dot products that differ by ones; for
    cosines multiply by the squared ratio of the scales (some 100 to 1000).
    center_offset: b; the most likely score is s+ + center_offset. The paper writes this sign; its released code has
    the other one, so the code's b = 1 is center_offset -1.

    Raises InputError where the positive has no score.

    Departures: drawn without replacement; the code draws with replacement and removes duplicates. Weights are kept as
    logarithms, so that none underflows.
    """
    if not math.isfinite(positive_score):
        raise InputError("sampling.simans: needs the positive's score, in the units of the candidates' scores")
    return draw(log_preference(scores, positive_score, sharpness, center_offset), count, generator)


def log_preference(scores: Tensor, positive_score: float | Tensor, sharpness: float, center_offset: float) -> Tensor:
    """The logarithm of SimANS's unnormalised weights."""
    return -sharpness * (scores - positive_score - center_offset) ** 2
