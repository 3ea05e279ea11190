from __future__ import annotations

import dataclasses

import pytest
import torch
from fixture_f import fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.orthogonal import orthogonal

TWO = torch.tensor([[1.0, 0.0], [0.6, 0.8]])


def test_two_vectors_by_hand() -> None:
    scores = fixture(TWO @ TWO.T, queries=TWO, documents=torch.eye(2))
    value, parts = orthogonal(scores, scores.candidate, no_weights(scores))
    assert float(value) == pytest.approx(0.36)
    assert (float(parts["queries"]), float(parts["documents"])) == (pytest.approx(0.36), 0.0)


def test_documents_that_are_nobodys_positive_do_not_count() -> None:
    documents = torch.cat([torch.eye(2), TWO])
    scores = fixture(torch.eye(2) @ documents.T, queries=torch.eye(2), documents=documents)
    assert float(orthogonal(scores, scores.candidate, no_weights(scores))[0]) == 0


def test_positives_of_one_query_and_queries_of_one_positive_may_be_near() -> None:
    scores = fixture(TWO @ TWO.T, queries=TWO, documents=TWO)
    shared = dataclasses.replace(scores, positive=torch.tensor([[True, True], [False, True]]))
    assert float(orthogonal(shared, ~shared.positive, no_weights(shared))[0]) == 0


def test_without_embeddings_it_is_refused() -> None:
    with pytest.raises(InputError, match="needs embeddings"):
        orthogonal(fixture(), fixture().candidate, no_weights(fixture()))
