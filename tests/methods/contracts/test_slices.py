"""Methods whose SPEC says by_query: some queries at a time come to the same as all at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from embedtune import methods
from embedtune.methods._trial import QUERIES
from embedtune.train.objective import Objective, loss_in_slices, loss_of
from embedtune.train.step import Batch, EncodedBatch
from embedtune.types import Scores

BY_QUERY = [
    (family, name)
    for family in ("filtering", "weighting", "loss")
    for name in methods.names(family)
    if methods.by_query(family, name, {})
]


class Taught:
    """A teacher that has scored these pairs."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    def matrix(self, query_ids: tuple[str, ...], doc_ids: tuple[str, ...]) -> Tensor:
        assert self.scores.teacher is not None
        rows = [self.scores.query_ids.index(query_id) for query_id in query_ids]
        return self.scores.teacher[rows][:, [self.scores.doc_ids.index(doc_id) for doc_id in doc_ids]]


def objective_with(family: str, method: Any) -> Objective:
    """An objective of the method among simple ones. The filter leaves queries of which one slice has no negative."""
    filters = [methods.bind("filtering", "absolute", {"below": 0.45})] + [method] * (family == "filtering")
    loss = method if family == "loss" else methods.bind("loss", "infonce", {"temperature": 0.2})
    weightings = [method] * (family == "weighting")
    return Objective(filters, [], [], weightings, [("one", 0.7, loss), ("two", 0.3, loss)])


@pytest.mark.parametrize(("family", "name"), BY_QUERY)
@pytest.mark.parametrize("all_have_negatives", [True, False])
def test_what_treats_each_query_by_itself_gives_the_same_in_slices(
    family: str, name: str, all_have_negatives: bool, scores: Scores, bound: Callable[..., Any]
) -> None:
    candidate = scores.candidate.clone()
    candidate[3] &= all_have_negatives
    assert scores.own is not None
    batch = Batch(
        query_ids=scores.query_ids,
        doc_ids=scores.doc_ids,
        positive=scores.positive,
        candidate=candidate,
        own_negatives=scores.own & candidate,
        positive_ids=scores.positive_ids,
        made=(),
        made_queries=torch.zeros(QUERIES, dtype=torch.bool),
    )
    found = []
    for slices in ([range(4)], [range(2), range(2, 3), range(3, 4)]):
        method = bound(family, name)
        objective = dataclasses.replace(objective_with(family, method), teacher=Taught(scores))
        assert scores.queries is not None
        assert scores.documents is not None
        leaves = [scores.queries.clone().requires_grad_(), scores.documents.clone().requires_grad_()]
        given = objective, EncodedBatch(batch, *leaves, "cosine", 0.0), torch.Generator()
        if len(slices) == 1:
            loss, parts = loss_of(*given)
            loss.backward()
        else:
            loss, parts = loss_in_slices(*given, slices, lambda part: part.backward() if part.requires_grad else None)
        learned = list(method.parameters()) if isinstance(method, torch.nn.Module) else []
        gradients = [leaf.grad for leaf in (*leaves, *learned) if leaf.requires_grad]
        found.append((loss.detach(), gradients, parts))
    (loss, gradients, parts), (sliced_loss, sliced_gradients, sliced_parts) = found
    torch.testing.assert_close(sliced_loss, loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sliced_gradients, gradients, atol=1e-6, rtol=1e-6)
    assert parts.keys() == sliced_parts.keys()
    for said, value in parts.items():
        assert float(sliced_parts[said]) == pytest.approx(float(value), abs=1e-6), said
