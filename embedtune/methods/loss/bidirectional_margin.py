from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import MEAN_OVER

SPEC = MethodSpec(kind="regulariser", by_query=True, needs_if={"filter": {"soft": "dropped"}, "made": {"soft": "made"}})


def bidirectional_margin(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 0.3,
    soft: Literal["dropped", "made"] = "dropped",
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Holds soft negatives below the positive, but not far below: beta >= s+ - s >= alpha (BML, SNCSE 2201.05979).

    Added to an objective with a small weight: 1e-3 or 5e-4 in SNCSE, 1e-4 with alpha 0.2 and beta 0.5 in ClusterNS
    (2305.09892). loss = mean relu(d + alpha) + relu(-d - beta), d = s - s+, over positives with soft negatives.

    soft: which columns are soft negatives. dropped: candidates that a filter dropped (ClusterNS:
        suspected false negatives); made: synthetic columns (SNCSE: negated texts), which must also be kept out of the
        objective's denominator, or the two losses contradict each other.

    Departures: ClusterNS averages over all pairs of the batch, here over the soft ones only, so weights compare across
    batches. Log-weights are ignored. Without a soft negative the loss is 0.
    """
    if not 0 < alpha < beta:
        raise InputError(f"loss.bidirectional_margin: expected 0 < alpha < beta, got {alpha} and {beta}")
    chosen = scores.candidate & ~keep
    if soft == "made":
        chosen = scores.candidate & scores.made if scores.made is not None else torch.zeros_like(keep)
    student = full(scores.student)
    rows, columns = scores.pairs  # (P,) each
    gap = (student[rows] - student[rows, columns][:, None])[chosen[rows]]  # (pairs,)
    loss = ((gap + alpha).relu() + (-gap - beta).relu()).sum() / max(gap.numel(), 1)
    return loss, {"soft_negatives": gap.numel(), MEAN_OVER: gap.numel()}
