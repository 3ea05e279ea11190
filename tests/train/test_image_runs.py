"""Training on pictures: every kind of model learns, resumes to the same weights, and chunks give the whole gradient."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator
from pictures import BROKEN, write_pictures
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny_models import QWEN

from embedtune.data.dataset import load_dataset
from embedtune.data.images import open_image
from embedtune.data.relevance import Relevance
from embedtune.errors import InputError, Interrupted
from embedtune.evaluate.retrieval import evaluate
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.prepared import Kept
from embedtune.recipe import Recipe, check_recipe
from embedtune.train.objective import Objective
from embedtune.train.plan import Plan
from embedtune.train.preflight import preflight
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.run import TrainedRun, train
from embedtune.train.step import Tokens, TrainingStep, accumulate_gradients, lay_out, training_mode
from embedtune.train.validation import held_out

LOSS = {"name": "infonce", "temperature": 0.1, "directions": ["query_document", "document_query"]}


@pytest.fixture
def block_of(image_models: dict[str, Path], request: pytest.FixtureRequest) -> Callable[[str], dict[str, Any]]:
    """The recipe's model block of a family."""

    def block(family: str) -> dict[str, Any]:
        if family == "composed":
            return {"compose": {"text": str(image_models["words"]), "image": str(image_models["vit"]), "dimension": 24}}
        if family in QWEN:
            return {"name": str(request.getfixturevalue("vlm_models")[family]), "pooling": "lasttoken"}
        return {"name": str(image_models[family])}

    return block


def recipe_of(model: dict[str, Any], folder: Path, /, **parts: Any) -> Recipe:
    settings = {"epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "precision": "fp32", **parts.pop("train", {})}
    evaluate = {"measures": ["nDCG@10"], **parts.pop("evaluate", {})}
    own = {"train": str(folder), **parts.pop("data", {})}
    values = {"version": 1, "model": model, "data": own, "loss": LOSS, "train": settings, "evaluate": evaluate}
    return check_recipe({**values, **parts})


def losses_of(run: TrainedRun) -> list[float]:
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


def weights_of(run: TrainedRun) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(run.model)} {name}": tensor
        for file in sorted(run.model.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


FAMILIES = ["clip", "siglip", "composed", *QWEN]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_with_lora_and_chunks_learns_and_opens_anywhere(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path, family: str
) -> None:
    model = {**block_of(family), "lora": {"rank": 4}}
    evaluate = {"in_domain": [str(pictures)] if family == "clip" else []}
    settings = {"chunk_size": 3, "epochs": 8 if family == "composed" else 4}
    run = train(recipe_of(model, pictures, train=settings, evaluate=evaluate), tmp_path / "run")
    losses = losses_of(run)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    if family == "clip":
        assert run.tuned["pictures"]["nDCG@10"] > run.base["pictures"]["nDCG@10"]
    saved, dataset = SentenceTransformer(str(run.model), device="cpu"), load_dataset(pictures)
    ours = load_encoder(str(run.model))
    images = [open_image(item.image) for item in dataset.corpus if item.image]
    np.testing.assert_allclose(saved.encode(images), ours.encode(dataset.corpus, "document"), atol=1e-5)
    texts = [item.text for item in dataset.queries]
    np.testing.assert_allclose(saved.encode(texts), ours.encode(dataset.queries, "query"), atol=1e-5)
    adapters = sorted(str(file.relative_to(run.folder)) for file in run.folder.rglob("adapter_model.safetensors"))
    both = ["adapter/image/adapter_model.safetensors", "adapter/text/adapter_model.safetensors"]
    assert adapters == (both if family == "composed" else ["adapter/adapter_model.safetensors"])


def gradient(encoder: Encoder, data: Path, chunk_size: int | None) -> torch.Tensor:
    """The flat gradient of one batch."""
    dataset = load_dataset(data, "train")
    recipe = recipe_of({"name": "x"}, data, train={"batch_size": 16})
    batch = lay_out(Plan(recipe, dataset, list(dataset.qrels)).epoch(0)[0], {}, Relevance(dataset))
    training_mode(encoder.model)
    encoder.model.zero_grad()
    tokens = Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")
    step = TrainingStep(
        encoder=encoder,
        objective=Objective.of(recipe),
        tokens=tokens,
        accelerator=Accelerator(cpu=True),
        chunk_size=chunk_size,
    )
    accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
    return torch.cat([p.grad.flatten() for p in encoder.model.parameters() if p.grad is not None])


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_give_the_gradient_of_one_piece(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, family: str
) -> None:
    encoder = load_encoder(recipe_of(block_of(family), pictures).model)
    switch_off_dropout(encoder.model)
    encoder.tokens_per_chunk = 10**9
    whole = gradient(encoder, pictures, None)
    assert whole.abs().max() > 0
    for chunk_size in (1, 5):
        assert float((gradient(encoder, pictures, chunk_size) - whole).norm() / whole.norm()) < 1e-5


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("clip", {}),
        ("qwen2_5_vl", {}),
        ("composed", {"projections_first": {"epochs": 2, "learning_rate": 1e-2}}),
        ("composed frozen", {}),
    ],
)
def test_stopping_and_resuming_ends_in_the_same_weights(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    model = block_of(family.split()[0])
    if family == "composed frozen":
        model["compose"]["towers"] = "frozen"
    else:
        model = {**model, "lora": {"rank": 4, "dropout": 0.1}, "dropout": "model"}
    recipe = recipe_of(model, pictures, train={"epochs": 2, "checkpoint_every": 2, **settings})
    whole = train(recipe, tmp_path / "whole")
    for step in (3, 11) if settings else (3,):  # in the first stage, and in the second

        def interrupt(event: dict[str, Any], at: int = step) -> None:
            if event["event"] == "step" and event["step"] == at:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted):
            train(recipe, tmp_path / f"at-{step}", on_event=interrupt)
        resumed = train(recipe, tmp_path / f"at-{step}", resume=True)
        expected, found = weights_of(whole), weights_of(resumed)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_first_stage_trains_the_projections_alone(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    base = load_encoder(recipe_of(block_of("composed"), pictures).model)
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}

    def changed(run: TrainedRun) -> set[str]:
        after = SentenceTransformer(str(run.model), device="cpu").state_dict()
        different = (name for name in before if not torch.equal(before[name], after[name]))
        return {"projections" if ".2.linear." in name else "towers" for name in different}

    first = {"epochs": 2, "learning_rate": 1e-2}
    stages = {"projections_first": first, "epochs": 1, "warmup": 0.0}
    events: list[dict[str, Any]] = []
    whole = recipe_of(block_of("composed"), pictures, train={**stages, "learning_rate": 1e-3})
    run = train(whole, tmp_path / "both", on_event=events.append)
    rates = [event["learning_rate"] for event in events if event["event"] == "step"]
    assert run.steps == len(rates) == 12
    np.testing.assert_allclose(rates[:8], [1e-2 * (8 - step) / 8 for step in range(8)])
    np.testing.assert_allclose(rates[8:], [1e-3 * (4 - step) / 4 for step in range(4)])
    assert changed(run) == {"projections", "towers"}
    assert changed(
        train(recipe_of(block_of("composed"), pictures, train={**stages, "max_steps": 8}), tmp_path / "a")
    ) == {"projections"}
    short = recipe_of(block_of("composed"), pictures, train={**stages, "max_steps": 8})
    assert changed(train(short, tmp_path / "first")) == {"projections"}
    frozen = block_of("composed")
    frozen["compose"]["towers"] = "frozen"
    alone = recipe_of(frozen, pictures, train={"epochs": 1})
    assert changed(train(alone, tmp_path / "alone")) == {"projections"}


def test_the_second_stage_is_validated_with_its_own_towers(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    """Also where what is encoded is kept for mining again: what the towers gave in the first stage is out of date."""
    stages = {"projections_first": {"epochs": 1, "learning_rate": 1e-3}, "epochs": 2, "validate_every": 6}
    mined = {"mining": {"name": "dense", "depth": 10}, "sampling": {"name": "top", "count": 1}, "refresh": {"every": 3}}
    recipe = recipe_of(block_of("composed"), pictures, train=stages, data={"validation": 0.25}, negatives=mined)
    run = train(recipe, tmp_path / "run")
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    values = {event["step"]: event["value"] for event in events if event["event"] == "validation"}
    assert run.best_step in (6, 9)  # 3 are the first stage's
    _, held = held_out(load_dataset(pictures, "train"), recipe.data.validation, recipe.train.seed)
    assert held is not None
    found = evaluate(load_encoder(str(run.model)), held, measures="nDCG@10")
    assert found.measures["nDCG@10"] == pytest.approx(values[run.best_step], abs=1e-6)


def test_frozen_towers_are_passed_once(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ViTModel

    passed: list[int] = []
    forward = ViTModel.forward

    def counted(self: Any, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        passed.append(len(pixel_values))
        return forward(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(ViTModel, "forward", counted)
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "cache"))
    model = block_of("composed")
    model["compose"]["towers"] = "frozen"
    mined = {"mining": {"name": "dense", "depth": 10}, "sampling": {"name": "top", "count": 2}, "refresh": {"every": 3}}
    data = {"validation": 0.25}
    measured = {"in_domain": [str(pictures), f"judged:{pictures}"]}
    recipe = recipe_of(model, pictures, data=data, negatives=mined, evaluate=measured)
    run = train(recipe, tmp_path / "run")
    assert sum(passed) == 48  # the pictures of the corpus, whatever the steps, validations, minings and evaluations
    again = load_encoder(str(run.model))
    for name in measured["in_domain"]:
        dataset = load_dataset(name)
        found = evaluate(again, dataset, measures="nDCG@10")  # through the whole model
        assert found.measures["nDCG@10"] == pytest.approx(run.tuned[dataset.label]["nDCG@10"], abs=1e-6)


def test_the_preflight_says_what_is_trained_and_in_which_stages(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    first = {"projections_first": {"epochs": 2.0}, "epochs": 1}
    model = {**block_of("composed"), "lora": {"rank": 4}}
    lines = preflight(recipe_of(model, pictures, train=first), tmp_path)
    assert lines["steps"] == "about 12 (1 epoch(s) of 32 pairs); the first 8 train the projections alone"
    assert lines["text"].endswith(" parameters, LoRA of rank 4, about 4,608 trained, 16 tokens at most")
    assert lines["image"].endswith(" parameters, LoRA of rank 4, about 4,608 trained")
    assert lines["projections"] == "into 24 dimensions, trained"
    assert lines["memory"] == "not estimated for images; train.chunk_size bounds it for any batch"
    frozen = block_of("composed")
    frozen["compose"]["towers"] = "frozen"
    lines = preflight(recipe_of(frozen, pictures), tmp_path)
    assert lines["image"].endswith(" parameters, frozen")


def test_keys_of_composed_models_that_would_have_no_effect() -> None:
    def problems(model: dict[str, Any], **settings: Any) -> str:
        with pytest.raises(InputError) as caught:
            recipe_of(model, Path("data"), train=settings)
        return str(caught.value)

    compose = {"text": "a", "image": "b"}
    frozen = {"compose": {**compose, "towers": "frozen"}, "lora": {"rank": 4}}
    assert "model.lora: has no effect without model.compose.towers: trained" in problems(frozen)
    first = {"projections_first": {"epochs": 1.0}}
    assert "train.projections_first: has no effect without model.compose" in problems({"name": "x"}, **first)
    assert "model: expected either name or compose, and not both" in problems({"name": "x", "compose": compose})
    assert "unknown key 'imagesize': did you mean 'image_size'?" in problems({"compose": {**compose, "imagesize": 3}})


def test_a_few_broken_images_are_left_out_and_listed(
    block_of: Callable[[str], dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    for row in (3, 40):
        (folder / f"images/{row}.png").write_bytes(BROKEN["cut.png"][0]())
    said: list[str] = []
    recipe = recipe_of(block_of("clip"), folder, data={"broken_images": 0.05}, train={"epochs": 1})
    run = train(recipe, tmp_path / "run", on_event=lambda event: said.append(event.get("text", "")))
    listed = (run.folder / "left-out.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in listed] == [str(folder / f"images/{row}.png") for row in (3, 40)]
    assert f"2 items with a broken image are left out: {run.folder}/left-out.txt" in said
    with pytest.raises(
        InputError, match=r"2 of 48 images are broken \(4\.2%\), more than the 1\.0% that broken_images allows"
    ):
        train(recipe_of(block_of("clip"), folder), tmp_path / "refused")


@pytest.mark.slow
def test_memory_stays_flat_over_epochs_on_2000_images(
    block_of: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_pictures(tmp_path / "many", documents=120, test=0)
    lines = (data / "corpus.jsonl").read_text().splitlines()
    corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    for n in range(2000):  # each picture a file of its own, of other bytes
        item = json.loads(lines[n % 120])
        content = (data / item["image"]).read_bytes()
        (data / f"images/copy-{n}.png").write_bytes(content + str(n).encode())
        corpus.append(json.dumps({"_id": f"d{n}", "image": f"images/copy-{n}.png"}))
        queries.append(json.dumps({"_id": f"q{n}", "text": f"a picture of {n}"}))
        qrels.append(f"q{n}\td{n}\t1")
    (data / "corpus.jsonl").write_text("\n".join(corpus) + "\n")
    (data / "queries.jsonl").write_text("\n".join(queries) + "\n")
    (data / "qrels/train.tsv").write_text("\n".join(qrels) + "\n")
    kept = Kept(400 * 3 * 32 * 32 * 4)  # room for 400 of them: the others come and go
    monkeypatch.setattr("embedtune.models.prepare.KEPT", kept)
    resident: list[int] = []

    def measure(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            gc.collect()
            resident.append(psutil.Process().memory_info().rss)

    recipe = recipe_of(block_of("clip"), data, train={"epochs": 6, "batch_size": 64, "chunk_size": 32})
    train(recipe, tmp_path / "run", on_event=measure)
    assert len(resident) == 6
    assert kept.bytes <= kept.most
    assert max(resident[2:]) - resident[1] < 30 * 2**20
