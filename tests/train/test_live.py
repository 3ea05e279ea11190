"""ADORE: the query side learns against what it finds at each step; documents stay as the base model embeds them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.errors import InputError
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.recipe import Recipe, check_recipe
from embedtune.train.live import FrozenDocuments, LiveNegatives, two_towers
from embedtune.train.preflight import preflight
from embedtune.train.run import train
from embedtune.types import Role

LOSS = {"name": "lambda_rank", "negatives": "own"}


def recipe_of(name: Path, folder: Path, **parts: Any) -> Recipe:
    values: dict[str, Any] = {
        "version": 1,
        "model": {"name": str(name)},
        "data": {"train": str(folder)},
        "negatives": {"live": {"depth": 10}},
        "loss": LOSS,
        "train": {"batch_size": 8, "epochs": 4, "learning_rate": 3e-3},
        "evaluate": {"in_domain": [f"{folder}:train"], "measure": "RR@10", "measures": ["RR@10"]},
    }
    return check_recipe(values | parts)


def test_what_a_query_finds_is_what_exact_search_finds(tiny_model: Path, tiny_dataset: Path) -> None:
    dataset, encoder = load_dataset(tiny_dataset, "train"), load_encoder(str(tiny_model))
    documents = encoder.encode(dataset.corpus, "document")
    alone: Any = SimpleNamespace(is_main_process=True, num_processes=1)
    live = LiveNegatives(FrozenDocuments(encoder, dataset.corpus, documents), dataset, Relevance(dataset), 5, alone)
    drawn = live.draw(["q1", "q2", "q1"], 0)
    assert list(drawn) == ["q1", "q2"]
    for query_id, found in drawn.items():
        query = encoder.encode([dataset.queries[query_id]], "query")[0]
        order = [dataset.corpus.ids[row] for row in np.argsort(-(documents @ query), kind="stable")[:5]]
        assert found == [doc_id for doc_id in order if doc_id not in dataset.qrels[query_id]]
    assert encoder.model.training


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_only_queries_learn_and_the_model_has_two_towers(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, chunk_size: int | None, lora: dict[str, int] | None
) -> None:
    model = {"name": str(tiny_model)} | ({"lora": lora} if lora else {})
    settings = {"batch_size": 8, "epochs": 8, "learning_rate": 1e-2 if lora else 1e-3, "chunk_size": chunk_size}
    run = train(recipe_of(tiny_model, tiny_dataset, model=model, train=settings), tmp_path / "run")
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert sum(losses[-3:]) < sum(losses[:3]) / 2
    opened, base = SentenceTransformer(str(run.model), device="cpu"), SentenceTransformer(str(tiny_model), device="cpu")
    texts = ["the old river is new", "what engine"]
    np.testing.assert_array_equal(opened.encode_document(texts), base.encode_document(texts))
    np.testing.assert_array_equal(opened.encode(texts), base.encode(texts))  # without a task: a document
    assert not np.allclose(opened.encode_query(texts), base.encode_query(texts), atol=1e-3)
    assert (run.folder / "adapter").exists() == (lora is not None)


def test_chunks_change_nothing_and_a_resumed_run_is_the_same(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    settings = {"batch_size": 8, "epochs": 4, "learning_rate": 3e-3, "precision": "fp32"}
    data = {"train": str(tiny_dataset), "validation": 0.2}
    recipe = recipe_of(tiny_model, tiny_dataset, train=settings, data=data)
    whole = train(recipe, tmp_path / "whole")
    expected = load_file(whole.model / "query_0_Transformer" / "model.safetensors")
    chunked = recipe_of(tiny_model, tiny_dataset, train=settings | {"chunk_size": 3}, data=data)
    found = load_file(train(chunked, tmp_path / "chunked").model / "query_0_Transformer" / "model.safetensors")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4)
    checkpoints = sorted((whole.folder / "checkpoints").iterdir())
    for path in checkpoints[1:]:
        path.rename(tmp_path / path.name)  # as if it had been killed
    (whole.folder / "summary.json").unlink()
    resumed = load_file(train(recipe, whole.folder, resume=True).model / "query_0_Transformer" / "model.safetensors")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_the_preflight_says_so(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    lines = preflight(recipe_of(tiny_model, tiny_dataset), tmp_path)
    assert lines["negatives"].startswith("about 10 that each query finds at that moment, and those of the batch; ")


def test_two_towers_of_two_towers_are_refused(tiny_model: Path) -> None:
    one, other = (SentenceTransformer(str(tiny_model), device="cpu") for _ in range(2))
    with pytest.raises(InputError, match=r"^negatives.live: a model with several towers already cannot get another"):
        two_towers(two_towers(one, other), one)


def test_two_towers_keep_the_length_of_the_embeddings(tiny_model: Path) -> None:
    towers = [SentenceTransformer(str(tiny_model), device="cpu", truncate_dim=8) for _ in range(2)]
    assert two_towers(*towers).encode(["a text"]).shape == (1, 8)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"negatives": {"live": {}, "mining": "dense"}}, r"negatives.live: not with negatives.mining: its documents"),
        ({"negatives": {"live": {}, "sampling": "simans"}}, r"negatives.live: not with negatives.sampling: its docum"),
        ({"negatives": {"live": {}, "teacher": "m"}}, r"negatives.live: not with negatives.teacher: its documents"),
        ({"synthesis": "word_swap"}, r"negatives.live: not with synthesis: its documents are what each query retri"),
    ],
)
def test_what_excludes_it_is_said(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipe_of(Path("m"), Path("d"), **parts)


def test_documents_are_not_encoded_again_where_only_the_query_tower_changed(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = two_towers(*(load_encoder(str(tiny_model)).model for _ in range(2)))
    encoder, dataset = Encoder(model, "two", "fp32"), load_dataset(tiny_dataset)
    documents, queries = encoder.encode(dataset.corpus, "document"), encoder.encode(dataset.queries, "query")
    with torch.no_grad():
        for parameter in model[0].sub_modules["query"].parameters():
            parameter.add_(0.01)
    encoded: list[str] = []
    forward = Encoder.forward

    def noted(self: Encoder, chunk: Any, role: Role) -> torch.Tensor:
        encoded.append(role)
        return forward(self, chunk, role)

    monkeypatch.setattr(Encoder, "forward", noted)
    np.testing.assert_array_equal(encoder.encode(dataset.corpus, "document"), documents)
    assert not encoded
    assert not np.array_equal(encoder.encode(dataset.queries, "query"), queries)
    assert set(encoded) == {"query"}
