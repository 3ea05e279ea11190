from __future__ import annotations

import dataclasses

import pytest
import torch
from fixture_f import fixture

from embedtune.errors import InputError
from embedtune.methods.filtering.cluster import Cluster
from embedtune.types import Scores

# Two directions; documents 0 and 2 lie along one, 1 and 3 along the other. Queries 0 and 1 own documents 0 and 1.
DOCUMENTS = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]]), dim=1)


def scores() -> Scores:
    return fixture(torch.zeros(2, 4), documents=DOCUMENTS)


def test_candidates_of_the_positives_cluster_are_dropped() -> None:
    keep = Cluster(clusters=2, start_at=1.0)(scores())
    assert keep.tolist() == [[False, True, False, True], [True, False, True, False]]


def test_one_global_cluster_drops_everything() -> None:
    assert not Cluster(clusters=1, start_at=1.0)(scores()).any()


def test_as_many_clusters_as_documents_drop_nothing() -> None:
    assert torch.equal(Cluster(clusters=4, start_at=1.0)(scores()), scores().candidate)


def test_nothing_is_dropped_until_the_batch_has_spread() -> None:
    products = DOCUMENTS @ DOCUMENTS.T
    mean = float((products.sum() - 4) / 12)
    early = Cluster(clusters=2, start_at=mean - 0.01)
    assert torch.equal(early(scores()), scores().candidate)
    assert early.centroids.shape == (0, 0)
    assert not torch.equal(Cluster(clusters=2, start_at=mean + 0.01)(scores()), scores().candidate)


def test_centroids_move_in_training_only() -> None:
    method = Cluster(clusters=2, start_at=1.0, rate=0.25)
    method.eval()
    method(scores())
    assert torch.equal(method.centroids, DOCUMENTS[[0, 1]])
    method.train()
    method(scores())
    torch.testing.assert_close(method.centroids[0], 0.25 * (DOCUMENTS[0] + DOCUMENTS[2]) + 0.75 * DOCUMENTS[0])


def test_centroids_are_state() -> None:
    trained = Cluster(clusters=2, start_at=1.0, rate=0.5)
    trained(scores())
    restored = Cluster(clusters=2, start_at=1.0, rate=0.5)
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(restored.centroids, trained.centroids)
    Cluster().load_state_dict(Cluster().state_dict())  # before there are any


def test_several_positives_stand_for_their_clusters_together() -> None:
    both = dataclasses.replace(
        scores(), positive=torch.tensor([[True, True, False, False], [False, True, False, False]])
    )
    both = dataclasses.replace(both, candidate=~both.positive)
    assert Cluster(clusters=2, start_at=1.0)(both).tolist() == [[False] * 4, [True, False, True, False]]


def test_too_few_documents_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"^filtering.cluster.clusters: 128 centroids cannot be chosen from 4 documents"
    ):
        Cluster(start_at=1.0)(scores())


def test_without_embeddings_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^filtering.cluster: needs the documents' embeddings$"):
        Cluster()(fixture())
