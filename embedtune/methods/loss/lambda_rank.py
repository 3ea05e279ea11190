from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import own_negatives, row_counts

SPEC = MethodSpec(kind="objective", by_query=True)


def lambda_rank(
    scores: Scores,
    keep: Tensor,
    log_weights: Tensor,
    *,
    temperature: float = 0.05,
    cut: int = 200,
    negatives: Literal["all", "own"] = "all",
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Weighs each pair by how swapping it changes the reciprocal rank (LambdaLoss in ADORE, arXiv 2104.08051).

    For a query's positives i and kept negatives j, ranked together by their scores: the mean over pairs of
    |1 / rank_i - 1 / rank_j| log(1 + exp((s_j - s_i) / temperature)), where 1 / rank is 0 beyond `cut`. Ranks are
    constants. A negative's log-weight multiplies its pairs.

    temperature: the paper's 1 is for dot products; the default is for cosines.
    negatives: own leaves each query only the negatives retrieved or made for it. ADORE itself is own with the recipe's
        `negatives.live`: each query against what it retrieves at that step, among documents that do not change.
    """
    if not temperature > 0 or cut < 1:
        raise InputError(f"loss.lambda_rank: expected temperature above 0 and cut at least 1, got {temperature}, {cut}")
    keep = own_negatives(scores, keep) if negatives == "own" else keep
    judged = scores.positive.any(dim=1)
    rows = judged & keep.any(dim=1)
    parts = row_counts(judged.nonzero().flatten(), rows[judged], len(keep))
    positive, negative = scores.positive[rows], keep[rows]  # (R, D)
    student = full(scores.student)[rows] / temperature
    listed = student.detach().masked_fill(~(positive | negative), -torch.inf)
    order = listed.argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, positions)
    gain = (1 / rank.to(student.dtype)).masked_fill(rank > cut, 0.0)
    of_row, i = positive.nonzero(as_tuple=True)  # (P,)
    weight = (gain[of_row, i][:, None] - gain[of_row]).abs() * log_weights[rows][of_row].exp()  # (P, D)
    costs = weight * F.softplus(student[of_row] - student[of_row, i][:, None])
    costs = costs.masked_fill(~negative[of_row], 0.0).sum(dim=1)
    totals = torch.zeros_like(student[:, 0]).index_add(0, of_row, costs)
    return (totals / (positive.sum(dim=1) * negative.sum(dim=1))).mean(), parts
