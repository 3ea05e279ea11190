from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..similarities import full
from ..types import Scores
from ._pairs import count_without_negatives, mean_by_group

KIND = "objective"
NEUTRAL = {"positive_rate": 0.0, "beta": 0.0}


def debiased(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    *,
    temperature: float = 0.5,
    positive_rate: float = 0.1,
    beta: float = 1.0,
    detach_importance: bool = False,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Corrects for positives among the negatives (DCL, arXiv 2007.00224) and stresses hard ones (HCL, 2010.04592).

    With N kept negatives n_j = exp(s_j / temperature) of weight w_j, importances m_j = n_j^beta, and the positive e:
    R = sum_j m_j w_j n_j / mean(m), G = max((R - positive_rate N e) / (1 - positive_rate), N exp(-1 / temperature)),
    loss = log(1 + G / e).

    positive_rate: the share of unlabelled positives among the negatives. The maximum is a clamp that takes the
        gradient from the negatives; below a temperature of 0.2 it nearly always holds, so there use 0 (no clamp then).
        `clamped_share` is logged.
    beta: 0 is plain debiasing. detach_importance: the released code lets gradients flow through m, as here by default.

    With positive_rate 0 and beta 0 it is InfoNCE. All in log space. Several positives: the mean over them.
    """
    if not temperature > 0 or not 0 <= positive_rate < 1:
        raise InputError(
            "loss.debiased: expected temperature above 0 and positive_rate from 0 to below 1, "
            f"got {temperature} and {positive_rate}"
        )
    rows, columns = scores.positive.nonzero(as_tuple=True)  # (P,) each
    valid = keep.any(dim=1)[rows]
    without = count_without_negatives(rows, valid)
    rows, columns = rows[valid], columns[valid]
    logits = full(scores.student) / temperature  # (Q, D)
    importance = beta * (logits.detach() if detach_importance else logits)
    kept = keep[rows]
    importance = importance[rows].masked_fill(~kept, -torch.inf)
    log_n = kept.sum(dim=1).log()
    log_r = (importance + (logits + log_weights)[rows]).logsumexp(dim=1) - importance.logsumexp(dim=1) + log_n
    positive = logits[rows, columns]
    clamped = torch.zeros_like(valid[valid])
    log_g = log_r
    if positive_rate > 0:
        floor = log_n - 1 / temperature
        excess = math.log(positive_rate) + log_n + positive - log_r  # log of the share of R that is taken away
        left = (-excess.clamp(max=-1e-6).exp()).log1p()  # the clamp only where the floor is taken anyway
        log_g = log_r + left - math.log1p(-positive_rate)
        clamped = (excess >= -1e-6) | (log_g < floor)
        log_g = torch.where(clamped, floor, log_g)
    loss = mean_by_group(F.softplus(log_g - positive), rows, torch.ones_like(rows, dtype=torch.bool))
    return loss, {"rows_without_negatives": without, "clamped_share": clamped.float().mean()}
