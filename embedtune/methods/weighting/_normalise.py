"""Weights whose mean over each row's negatives is one."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise(log_weights: Tensor, keep: Tensor) -> Tensor:
    """(Q, D) log-weights shifted so that each row's kept weights average 1; 0 wherever keep is False."""
    # A row without negatives gets its zeros here: a logsumexp over nothing would have no gradient.
    kept = log_weights.masked_fill(~keep & keep.any(dim=1, keepdim=True), -torch.inf)
    log_mean = kept.logsumexp(dim=1, keepdim=True) - keep.sum(dim=1, keepdim=True).clamp(min=1).log()
    return (log_weights - log_mean).masked_fill(~keep, 0.0)
