"""The learning rate as a pure function of the step, so that nothing of it needs saving."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int, *, steps: int, peak: float, warmup: float | int, schedule: Literal["linear", "cosine", "constant"]
) -> float:
    """The rate for `step` (from 0) of `steps`: linear warm-up from 0 to `peak`, then constant, or down to 0.

    warmup: a share of the steps (float) or a number of them (int). Step for step the same as transformers' schedules,
    so that a run can be compared with one of sentence-transformers.
    """
    rising = round(warmup * steps) if isinstance(warmup, float) else warmup
    if step < rising:
        return peak * step / rising
    if schedule == "constant":
        return peak
    left = (steps - step) / max(1, steps - rising)  # 1 just after warm-up, 1/steps at the last step
    return peak * (left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))
