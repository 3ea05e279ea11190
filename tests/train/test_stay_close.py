"""What keeps the tuned model near the base model while it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_dataset
from safetensors.torch import load_file

from embedtune.data.dataset import load_texts
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Distill, Model, Recipe, check_recipe
from embedtune.train.run import train
from embedtune.train.stay_close import freeze, layers_of, layers_of_model, rate_scales, stream_of


def recipe_of(path: Path, data: Path, *, close: dict[str, Any], lora: int | None = None, **train: Any) -> Recipe:
    values: dict[str, Any] = {
        "version": 1,
        "model": {"name": str(path), "lora": {"rank": lora} if lora else None},
        "data": {"train": str(data)},
        "train": {"batch_size": 6, "max_steps": 4, "learning_rate": 1e-2, "precision": "fp32", "warmup": 0},
        "stay_close": close,
    }
    values["train"] |= train
    return check_recipe(values)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def distance(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    return float(torch.cat([(a[name] - b[name]).flatten() for name in a]).norm())


NAMES = [
    "0.model.embeddings.word_embeddings.weight",
    "0.model.encoder.layer.0.x.weight",
    "0.model.encoder.layer.11.x.weight",
    "0.model.pooler.weight",
    "0.model.layers.3.x",
    "0.blocks.2.x",
]


def test_layers_by_name() -> None:
    assert list(layers_of(NAMES).values()) == [-1, 0, 11, None, 3, 2]
    scales = rate_scales(layers_of(NAMES[:4]), 0.5)
    assert list(scales.values()) == [0.5**12, 0.5**11, 1.0, 1.0]
    with pytest.raises(InputError, match=r"^stay_close.layer_decay: the weights' names show no layers here"):
        rate_scales(layers_of(["0.linear.weight"]), 0.5)


def test_frozen_layers_stay_as_they_were(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    run = train(recipe_of(tiny_model, tiny_dataset, close={"freeze_layers": 1}), tmp_path / "run")
    before, after = weights(tiny_model), weights(run.model)
    moved = {layers_of([f".{name}"])[f".{name}"] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {1}  # layer 0 and the embeddings stand still, and the pooler is not used
    with pytest.raises(InputError, match=r"^stay_close.freeze_layers: 3 is more than the model's 2 layers$"):
        train(recipe_of(tiny_model, tiny_dataset, close={"freeze_layers": 3}), tmp_path / "more")
    with pytest.raises(InputError, match=r"^stay_close.freeze_layers: nothing is left to train"):
        train(recipe_of(tiny_model, tiny_dataset, close={"freeze_layers": 2}, lora=2), tmp_path / "none")


def test_lower_layers_move_less(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    run = train(recipe_of(tiny_model, tiny_dataset, close={"layer_decay": 0.1}), tmp_path / "run")
    before, after = weights(tiny_model), weights(run.model)
    key = "encoder.layer.{}.attention.self.value.weight"
    low, high = (float((after[key.format(n)] - before[key.format(n)]).abs().mean()) for n in (0, 1))
    assert 0 < low < 0.2 * high  # Adam's steps are of the size of the rate, whatever the gradient


def test_the_pull_ends_nearer_to_the_base(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    free, held = (
        train(recipe_of(tiny_model, tiny_dataset, close={"pull": pull}, max_steps=8), tmp_path / f"{pull}")
        for pull in (0.0, 50.0)
    )
    assert distance(tiny_model, held.model) < 0.8 * distance(tiny_model, free.model)
    with pytest.raises(InputError, match=r"stay_close.pull: has no effect without full fine-tuning"):
        recipe_of(tiny_model, tiny_dataset, close={"pull": 1.0}, lora=2)


def test_the_base_models_best_documents_are_the_lists(tiny_model: Path, tmp_path: Path) -> None:
    texts = write_dataset(tmp_path / "texts", documents=20, queries=8)
    base = load_encoder(str(tiny_model))
    stream = stream_of(Distill(data=str(texts), batch_size=3, candidates=4), base, steps=2, seed=0)
    corpus, queries = load_texts(texts)
    scores = torch.tensor(base.encode(queries, "query") @ base.encode(corpus, "document").T)
    for query_id, listed in stream.lists.items():
        best = scores[queries.row(query_id)].topk(4).indices.tolist()
        assert listed == [corpus.ids[row] for row in best]
    assert len(stream.lists) == 6  # no more queries than the steps can use
    assert stream.batch(0).query_ids == stream.batch(0).query_ids != stream.batch(1).query_ids
    (texts / "queries.jsonl").unlink()
    alone = stream_of(Distill(data=str(texts), batch_size=3, candidates=4), base, steps=10, seed=0)
    assert len(alone.lists) == 20  # documents stand for queries
    assert all(query_id not in listed for query_id, listed in alone.lists.items())
    with pytest.raises(InputError, match=r"has 20 documents; 20 candidates need more$"):
        stream_of(Distill(data=str(texts), candidates=20), base, steps=1, seed=0)


def test_distillation_holds_the_base_models_scores_and_resumes(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    texts = write_dataset(tmp_path / "texts", documents=40, queries=20, seed=5)
    distill = {"data": str(texts), "weight": 5.0, "batch_size": 8}
    recipe = recipe_of(tiny_model, tiny_dataset, close={"distill": distill}, max_steps=10)
    held = train(recipe, tmp_path / "held")
    free = train(recipe_of(tiny_model, tiny_dataset, close={}, max_steps=10), tmp_path / "free")
    corpus, queries = load_texts(texts)

    def scores(model: Path) -> torch.Tensor:
        encoder = load_encoder(str(model))
        return torch.tensor(encoder.encode(queries, "query") @ encoder.encode(corpus, "document").T)

    change_held, change_free = ((scores(run.model) - scores(tiny_model)).abs().mean() for run in (held, free))
    assert change_held < 0.8 * change_free
    steps = [json.loads(line) for line in (held.folder / "log.jsonl").read_text().splitlines()]
    assert all(event["distill"] >= 0 for event in steps if event["event"] == "step")
    assert next(event["distill"] for event in steps if event["event"] == "step") < 1e-6  # it starts as the base model


def test_t5s_shared_token_embeddings_belong_to_the_lowest_layer(tmp_path: Path, bare_checkpoint: Path) -> None:
    from transformers import AutoTokenizer, T5Config, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(bare_checkpoint)
    tokenizer.save_pretrained(tmp_path)
    T5EncoderModel(T5Config(vocab_size=100, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)).save_pretrained(
        tmp_path
    )
    model = load_encoder(Model(name=str(tmp_path), pooling="mean")).model
    shared = next(name for name, _ in model.named_parameters() if "shared" in name)
    assert layers_of_model(model)[shared] == -1
    freeze(model, 1)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert shared in frozen
    assert all("block.0." in name for name in frozen - {shared})
