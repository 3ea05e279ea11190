from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...types import Scores
from .. import MethodSpec
from .._numerics import full

SPEC = MethodSpec(by_query=True, neutral={"alpha": 0.0}, needs_if={"own": {"negatives": "own"}})


def hardness(
    scores: Scores, keep: Tensor, *, alpha: float = 5.0, negatives: Literal["all", "in_batch", "own"] = "all"
) -> Tensor:
    """Lets hard negatives count more: weight exp(alpha * score) (LLaVE, arXiv 2503.04812; EmbeddingGemma, 2509.20354).

    alpha: log-weight per unit of similarity, not divided by the temperature; 0 is off. LLaVE trains with 9 on in-batch
        negatives (in both directions of the loss), EmbeddingGemma with 5 on the query's own mined negatives.
    negatives: which ones are weighted: all, in_batch (mined for other queries or their positives) or own.

    Not normalised: harder batches weigh more as a whole. Detached, as in both papers. EmbeddingGemma's form is
    second-hand, as sentence-transformers describes it.
    """
    weighted = keep
    if negatives == "own":
        weighted = keep & scores.own if scores.own is not None else torch.zeros_like(keep)
    elif scores.own is not None and negatives == "in_batch":
        weighted = keep & ~scores.own
    return (alpha * full(scores.student.detach())).masked_fill(~weighted, 0.0)
