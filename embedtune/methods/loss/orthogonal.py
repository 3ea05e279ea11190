from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full

SPEC = MethodSpec(kind="regulariser")


def orthogonal(scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Spreads embeddings out: mean squared dot product of different queries, and of different positives (GOR).

    Global orthogonal regulariser, as EmbeddingGemma (arXiv 2509.20354, second-hand) adds it to its objective. Queries
    that share a positive, and positives of one query, are left out: they are meant to be near each other. Raises
    InputError where the scores come without embeddings. Log-weights are ignored.
    """
    if scores.queries is None or scores.documents is None:
        raise InputError("loss.orthogonal: needs embeddings, and here are scores only")
    positive = scores.positive.float()
    of_queries = _mean_square(scores.queries, positive @ positive.T > 0)
    used = scores.positive.any(dim=0)
    of_documents = _mean_square(scores.documents[used], (positive.T @ positive > 0)[used][:, used])
    return of_queries + of_documents, {"queries": of_queries.detach(), "documents": of_documents.detach()}


def _mean_square(embeddings: Tensor, related: Tensor) -> Tensor:
    apart = ~related & ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    products = (full(embeddings) @ full(embeddings).T)[apart]
    return (products**2).sum() / max(products.numel(), 1)
