from __future__ import annotations

import torch
from torch import Tensor

from embedtune.methods import MethodSpec
from embedtune.methods.loss import MEAN_OVER, WithoutNegatives
from embedtune.types import Scores

SPEC = MethodSpec(kind="objective", by_query=True, neutral={})


def skeleton(
    scores: Scores, keep: Tensor, log_weights: Tensor, *, temperature: float = 0.05
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Cross-entropy of each positive against the kept negatives: say in one line what yours does (cite its paper).

    temperature: divides the scores. Say what each option does and where you depart.
    """
    logits = scores.student.to(torch.promote_types(scores.student.dtype, torch.float32)) / temperature + log_weights
    negatives = logits.masked_fill(~keep, -torch.inf)  # (Q, D)
    has_both = scores.positive.any(dim=1) & keep.any(dim=1)  # (Q,)
    if not bool(has_both.any()):
        raise WithoutNegatives(len(keep))
    rows, columns = (scores.positive & has_both[:, None]).nonzero(as_tuple=True)  # (P,) each
    positive = (scores.student[rows, columns].to(logits.dtype) / temperature)[:, None]
    losses = -torch.cat([positive, negatives[rows]], dim=1).log_softmax(dim=1)[:, 0]  # (P,)
    of_query = torch.zeros_like(logits[:, 0]).index_add(0, rows, losses) / scores.positive.sum(dim=1).clamp(min=1)
    counted = has_both.sum()
    without = scores.positive.any(dim=1).sum() - counted
    return of_query.sum() / counted, {"rows_without_negatives": without, MEAN_OVER: counted}
