"""Exact search on a device: where its tensors are, the precision of its products, parts of the documents."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pretended_device import DEVICE, PretendedDevice

from embedtune import methods
from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.evaluate.retrieval import evaluate
from embedtune.methods.batching.neighbours import _nearest
from embedtune.models.encoder import load_encoder
from embedtune.models.scorers import EncoderScores
from embedtune.recipe import Distill
from embedtune.search import exact
from embedtune.search.exact import Searcher, exact_search
from embedtune.train.live import FrozenDocuments, LiveNegatives
from embedtune.train.stay_close import stream_of

RANDOM = np.random.default_rng(0)
QUERIES = RANDOM.integers(-3, 4, (37, 6)).astype(np.float32)  # whole numbers: products are exact on every device
DOCUMENTS = RANDOM.integers(-3, 4, (500, 6)).astype(np.float32)
PASSAGES = np.repeat(np.arange(120), RANDOM.integers(1, 8, 120))[:500]  # each row's document


def in_small_blocks(monkeypatch: pytest.MonkeyPatch, documents: int = 64) -> None:
    monkeypatch.setattr(exact, "QUERIES", 16)
    monkeypatch.setattr(exact, "_DOCUMENTS", documents)
    monkeypatch.setattr(exact, "_SORTED", 8)


@pytest.mark.parametrize("order", [None, PASSAGES])
def test_all_is_computed_on_the_device_and_results_alone_come_back(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks(monkeypatch)
    documents = DOCUMENTS[: len(PASSAGES)]
    expected = exact_search(QUERIES, documents, 9, tie_order=order)
    moved: list[int] = []
    whole = torch.Tensor.cpu

    def noted(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tensor.numel())
        return whole(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", noted)
    with PretendedDevice() as device:
        searcher = Searcher(documents, tie_order=order, device=DEVICE)
        scores, rows = searcher.search(QUERIES, 9)
        assert device.operations["mm"] == 3 * len(list(searcher._spans((0, 1))))
        assert {"ge", "topk", "nonzero"} <= device.operations.keys()
        before = device.operations.copy()
        searcher.search(QUERIES, 9)
    assert moved == [len(QUERIES) * 9] * 2
    assert (scores == expected[0]).all()
    assert (rows == expected[1]).all()
    copies = device.operations["_to_copy"] - before["_to_copy"]
    assert copies < before["_to_copy"]  # documents stay on the device between searches


def test_products_are_float32_under_autocast_and_lower_settings() -> None:
    queries, documents = (RANDOM.standard_normal((count, 64)).astype(np.float32) for count in (40, 3000))
    expected, rows = exact_search(queries, documents, 10)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # TF32 on a GPU, bf16 on a CPU
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores, others = exact_search(queries, documents, 10)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert (scores == expected).all()
    assert (others == rows).all()


@pytest.mark.parametrize("direction", [1, -1])
def test_documents_in_the_order_of_their_scores_are_found_alike(
    direction: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ascending, every block beats all before it; descending, nothing does after the first."""
    in_small_blocks(monkeypatch)
    documents = np.linspace(-1, 1, 1000, dtype=np.float32)[::direction, None] * np.ones((1, 3), np.float32)
    scores, rows = exact_search(np.ones((20, 3), np.float32), documents, 12)
    expected = np.arange(999, 987, -1) if direction == 1 else np.arange(12)
    assert (rows == expected).all()
    assert (np.diff(scores, axis=1) < 0).all()


@pytest.mark.parametrize(("parts", "k"), [(2, 5), (3, 40), (9, 500)])
def test_the_parts_of_the_documents_together_are_the_whole(parts: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks(monkeypatch)
    searcher = Searcher(DOCUMENTS)
    of_parts = torch.cat([searcher.keys(QUERIES, k, (number, parts)) for number in range(parts)], dim=1)
    together = of_parts.topk(k, dim=1).values
    assert torch.equal(together, searcher.keys(QUERIES, k))


@pytest.mark.parametrize("room", [0, 3 * 200 * (8 * 6 + 16 * 16), 2**40])
def test_parts_are_cut_alike_whatever_memory_a_gpu_has(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks(monkeypatch)
    searcher = Searcher(DOCUMENTS)
    on_cpu = [searcher._spans((number, 3)) for number in range(3)]
    searcher.device, searcher._room = torch.device("cuda"), room
    for number, spans in enumerate(on_cpu):
        on_gpu = searcher._spans((number, 3))
        assert (on_gpu[0][0], on_gpu[-1][1]) == (spans[0][0], spans[-1][1])
        assert len(on_gpu) == {0: len(spans), 2**40: 1}.get(room, 1)
        assert all(stop == start for (_, stop), (start, _) in pairwise(on_gpu))


def test_documents_that_do_not_fit_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks(monkeypatch)
    expected = exact_search(QUERIES, DOCUMENTS, 9)
    with PretendedDevice():
        searcher = Searcher(DOCUMENTS, device=DEVICE)
        searcher._room = 12 * 3 * 64 * 6  # three blocks
        for _ in range(2):
            scores, rows = searcher.search(QUERIES, 9)
            assert (rows == expected[1]).all()
            assert (scores == expected[0]).all()
        assert len(searcher._kept) == 3


def test_every_search_of_a_model_is_on_its_device(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    encoder.device = torch.device("cpu", 0)  # the same processor by another name
    devices: list[torch.device] = []
    made = Searcher.__init__

    def noted(self: Searcher, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        devices.append(self.device)

    monkeypatch.setattr(Searcher, "__init__", noted)
    methods.bind("mining", "dense", {"depth": 5})(data, encoder)
    evaluate(encoder, data)
    frozen = FrozenDocuments(encoder, data.corpus, encoder.encode(data.corpus, "document"))
    frozen.device = encoder.device
    LiveNegatives(frozen, data, Relevance(data), 5, Accelerator(cpu=True))
    stream_of(Distill(data=str(tiny_dataset), candidates=3, batch_size=2), encoder, steps=1, seed=0)
    assert devices == [encoder.device] * 4


def test_matrices_of_scores_and_neighbours_are_computed_where_the_model_is(
    tiny_model: Path, tiny_dataset: Path
) -> None:
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    scores = EncoderScores(encoder, data)
    query_ids, doc_ids = list(data.qrels)[:5], list(data.corpus.ids)[:9]
    expected = [scores.matrix(query_ids, doc_ids), *scores.same_role(query_ids, doc_ids)]
    near = _nearest(*(scores.on_device(rows) for rows in (scores.queries(query_ids), scores.documents(doc_ids))), 4)
    encoder.device = DEVICE
    with PretendedDevice() as device:
        matrices = [scores.matrix(query_ids, doc_ids), *scores.same_role(query_ids, doc_ids)]
        rows = (scores.queries(query_ids), scores.documents(doc_ids))
        there = _nearest(*(scores.on_device(of_role) for of_role in rows), 4)
    assert device.operations["mm"] == 4
    for matrix, whole in zip(matrices, expected, strict=True):
        assert matrix.device == DEVICE
        torch.testing.assert_close(matrix.held, whole)
    assert torch.equal(there, near)
