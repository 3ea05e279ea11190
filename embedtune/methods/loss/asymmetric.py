from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import row_counts

SPEC = MethodSpec(kind="objective", scheduled=("gamma_negative", "gamma_positive", "shift"), by_query=True)


class Asymmetric(nn.Module):
    """Pairwise sigmoid loss that focuses on, and then discards, negatives (ASL, arXiv 2009.14119).

    p = sigmoid(scale * s + bias); a positive costs -(1 - p)^gamma_positive log p, a kept negative
    -q^gamma_negative log(1 - q) with q = max(p - shift, 0): below the shift it has no gradient at all.

    scale, bias: where the sigmoid starts, as in SigLIP (2303.15343). learn: makes both parameters.
    gamma_negative, gamma_positive, shift: the paper's 4, 0 and 0.05; all 0 is binary cross-entropy.

    Departures: the paper sums over everything; here the sum is divided by the rows, as in SigLIP, so that the batch
    size does not change the learning rate. A log-weight multiplies its negative's cost. Mislabelled hard negatives
    dominate this loss: filter first.
    """

    def __init__(
        self,
        *,
        gamma_negative: float = 4.0,
        gamma_positive: float = 0.0,
        shift: float = 0.05,
        scale: float = 10.0,
        bias: float = -10.0,
        learn: bool = True,
    ) -> None:
        super().__init__()
        if not scale > 0 or not 0 <= shift < 1 or gamma_negative < 0 or gamma_positive < 0:
            raise InputError("loss.asymmetric: expected scale above 0, shift from 0 to below 1, and gammas from 0 up")
        self.gamma_negative, self.gamma_positive, self.shift = gamma_negative, gamma_positive, shift
        self.log_scale = nn.Parameter(torch.tensor(scale).log(), requires_grad=learn)
        self.bias = nn.Parameter(torch.tensor(bias), requires_grad=learn)

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        rows = scores.positive.any(dim=1) & keep.any(dim=1)
        judged = scores.positive.any(dim=1).nonzero().flatten()
        parts = row_counts(judged, keep.any(dim=1)[judged], len(keep))
        logits = full(scores.student)[rows] * self.log_scale.exp() + self.bias  # (R, D)
        chance = logits.sigmoid()
        positive_cost = -F.logsigmoid(logits) * (1 - chance) ** self.gamma_positive
        shifted = (chance - self.shift).clamp(min=0)
        negative_cost = -(1 - shifted).clamp(min=1e-8).log() * shifted**self.gamma_negative
        total = positive_cost[scores.positive[rows]].sum() + (negative_cost * log_weights[rows].exp())[keep[rows]].sum()
        if self.bias.requires_grad:
            parts |= {"scale": self.log_scale.detach().exp(), "bias": self.bias.detach().clone()}
        return total / rows.sum(), parts
