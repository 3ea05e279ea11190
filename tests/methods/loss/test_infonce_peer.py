"""infonce and hardness against sentence-transformers' own loss on the same embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.weighting.hardness import hardness
from embedtune.types import Scores

PEER = {
    "query_document": "query_to_doc",
    "document_query": "doc_to_query",
    "query_query": "query_to_query",
    "document_document": "doc_to_doc",
}


def columns() -> list[Tensor]:
    """Queries, positives and one hard negative each, as sentence-transformers takes them."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=1) for _ in range(3)]


def scores_of(queries: Tensor, positives: Tensor, negatives: Tensor) -> Scores:
    documents = torch.cat([positives, negatives])
    positive, own = torch.zeros(5, 10, dtype=torch.bool), torch.zeros(5, 10, dtype=torch.bool)
    positive[range(5), range(5)] = True
    own[range(5), range(5, 10)] = True
    student = queries @ documents.T
    return Scores(
        student=student, positive=positive, candidate=~positive, own=own, queries=queries, documents=documents
    )


@pytest.mark.parametrize(
    ("directions", "denominator", "mode"),
    [
        (["query_document"], "separate", None),
        (["query_document"], "separate", "in_batch"),
        (["query_document"], "separate", "own"),
        (["query_document"], "separate", "all"),
        (["query_document", "document_query"], "separate", None),
        (["query_document", "query_query", "document_document"], "joint", None),
    ],
)
def test_the_same_value_and_gradient(directions: Any, denominator: Any, mode: Any) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    modes = {"in_batch": "in_batch_negatives", "own": "hard_negatives", "all": "all_negatives", None: None}
    peer = losses.MultipleNegativesRankingLoss(
        torch.nn.Identity(),
        scale=20.0,
        similarity_fct=lambda a, b: a @ b.T,  # the columns are unit vectors: no second normalisation
        directions=tuple(PEER[direction] for direction in directions),
        partition_mode="joint" if denominator == "joint" else "per_direction",
        hardness_mode=modes[mode],
        hardness_strength=3.0 if mode else 0.0,
    )
    theirs = [column.requires_grad_() for column in columns()]
    expected = peer.compute_loss_from_embeddings(theirs, None)
    expected.backward()

    ours = [column.requires_grad_() for column in columns()]
    scores = scores_of(*ours)
    weights = hardness(scores, scores.candidate, alpha=3.0 if mode else 0.0, negatives=mode or "all")
    loss = Infonce(temperature=0.05, directions=directions, denominator=denominator)
    value, _ = loss(scores, scores.candidate, weights)
    value.backward()
    torch.testing.assert_close(value, expected)
    for our_column, their_column in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our_column.grad, their_column.grad, rtol=1e-4, atol=1e-6)
