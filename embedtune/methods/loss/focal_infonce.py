from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import cross_entropy, mean_by_group, row_counts

SPEC = MethodSpec(kind="objective", by_query=True)


def focal_infonce(
    scores: Scores, keep: Tensor, log_weights: Tensor, *, temperature: float = 0.05, margin: float = 0.3
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """InfoNCE whose logits are s^2 for positives and s (s + margin) for negatives (Focal-InfoNCE, 2310.06918).

    A negative's pull grows with its similarity. Below s = -margin / 2 a negative is pushed towards that point instead
    of away; the method is meant for encoders whose cosines are mostly positive. No margin makes it InfoNCE.

    Departure: a positive with s < 0 would be pushed away by s^2; its logit is s |s|, so that it is always pulled.
    Several positives: the mean over them, the others masked out.
    """
    if not temperature > 0:
        raise InputError(f"loss.focal_infonce.temperature: must be above 0, got {temperature}")
    rows, columns = scores.pairs  # (P,) each
    student = full(scores.student)
    negatives = student * (student + margin) / temperature + log_weights
    negatives = negatives.masked_fill(~keep, -torch.inf)[rows]  # (P, D)
    positive = student[rows, columns]
    valid = keep.any(dim=1)[rows]
    parts = row_counts(rows, valid, len(keep))
    loss = mean_by_group(cross_entropy(positive * positive.abs() / temperature, negatives), rows, valid, len(keep))
    return loss, parts
