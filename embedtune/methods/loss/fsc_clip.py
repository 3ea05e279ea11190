from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import MEAN_OVER, mean_by_group, own_negatives

SPEC = MethodSpec(kind="regulariser", needs=("own",), by_query=True)


def fsc_clip(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    *,
    temperature: float = 0.01,
    focus: float = 2.0,
    smoothing: float = 0.02,
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Focal, smoothed cross-entropy of a positive against its own hard negatives (FSC-CLIP, arXiv 2410.05210).

    Added to infonce in both directions with weight 0.5 (COCO captions) or 1 (web data). Among a positive and the K - 1
    kept hard negatives made or mined for its query, with shares p = softmax(s / temperature) and targets
    y = 1 - smoothing + smoothing / K for the positive, smoothing / K for the others: - sum y (1 - p)^focus log p.

    focus: how strongly pairs that are right already are discounted; 0 is plain cross-entropy. smoothing: the share of
    the target that the hard negatives get, because they are near the truth. temperature: 0.01 is CLIP's trained scale.

    This is the paper's global term. Its local one scores image patches against text tokens, which the embeddings here
    do not hold. Log-weights are added to the negatives' logits. Pairs without an own hard negative are left out; a
    batch without any costs 0.
    """
    if not temperature > 0 or focus < 0 or not 0 <= smoothing < 1:
        raise InputError("loss.fsc_clip: expected temperature above 0, focus from 0 up and smoothing from 0 to below 1")
    rows, columns = scores.pairs  # (P,) each
    mined = own_negatives(scores, keep)
    hard = mined[rows]  # (P, D)
    logits = full(scores.student)[rows] / temperature
    negatives = (logits + log_weights[rows]).masked_fill(~hard, -torch.inf)
    log_share = torch.cat([logits.gather(1, columns[:, None]), negatives], dim=1).log_softmax(dim=1)  # (P, 1 + D)
    target = torch.cat([torch.zeros_like(hard[:, :1]), hard], dim=1).to(log_share.dtype)
    target *= smoothing / (1 + hard.sum(dim=1, keepdim=True))
    target[:, 0] = 1 - target[:, 1:].sum(dim=1)
    log_share = log_share.masked_fill(target == 0, 0.0)  # a dropped one would be 0 times infinity
    values = -(target * (1 - log_share.exp()).clamp(min=1e-12) ** focus * log_share).sum(dim=1)
    counted = (mined.any(dim=1) & scores.positive.any(dim=1)).sum()
    return mean_by_group(values, rows, hard.any(dim=1), len(keep)), {"hard_negatives": hard.sum(), MEAN_OVER: counted}
