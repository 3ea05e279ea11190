"""Weights shared out over processes (FSDP2): the gradient, the checkpoints and the saved weights of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_process import launch

from embedtune.errors import InputError
from embedtune.models import sharded
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import prepare

SCRIPT = """
import sys
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.models.encoder import load_encoder
from embedtune.models.sharded import ShardedEncoder, clip_gradients, whole_tensors
from embedtune.recipe import check_recipe
from embedtune.train.objective import Objective
from embedtune.train.plan import Plan
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.step import Tokens, TrainingStep, accumulate_gradients, lay_out, training_mode

model, data, output, precision, frozen = sys.argv[1:]
accelerator = Accelerator(cpu=True)
dataset = load_dataset(data, "train")
recipe = check_recipe({"version": 1, "model": {"name": model}, "data": {"train": data},
                       "loss": {"name": "infonce", "directions": ["query_document", "document_query"]},
                       "train": {"batch_size": 13}})
pairs = Plan(recipe, dataset, list(dataset.qrels)).epoch(0)[0]
found = {}
for count, chunk_size in ((13, None), (13, 1), (1, 1)):  # of one query, the second of two processes has none
    encoder = load_encoder(model, precision=precision)
    switch_off_dropout(encoder.model)
    for name, weight in encoder.model.named_parameters():
        weight.requires_grad_(not (frozen and frozen in name))
    if accelerator.num_processes > 1:
        encoder = ShardedEncoder(encoder)
    training_mode(encoder.model)
    batch = lay_out(pairs[:count], {pairs[0].query_id: ["d55", "d56", "d57", "d58"]}, Relevance(dataset))
    tokens = Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")
    step = TrainingStep(encoder=encoder, objective=Objective.of(recipe), tokens=tokens, accelerator=accelerator,
                        chunk_size=chunk_size)
    for _ in range(2):  # as accumulated batches
        accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
    named = {name: p for name, p in encoder.model.named_parameters() if p.grad is not None}
    if accelerator.num_processes > 1:
        assert {p.to_local().numel() < p.numel() for p in named.values()} == {True}  # no process has a whole weight
    norm = clip_gradients(list(named.values()), 0.01)
    gradients = whole_tensors({name: p.grad for name, p in named.items()}, keep=True)
    found |= {f"{count} {chunk_size} {name}": gradient for name, gradient in gradients.items()}
    found[f"{count} {chunk_size} norm"] = norm.reshape(1)
if accelerator.is_main_process:
    save_file(found, output)
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def test_the_gradient_is_that_of_one_process(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "gradient.py"
    script.write_text(SCRIPT)
    for processes in (1, 2):
        launch(processes, script, tiny_model, tiny_dataset, tmp_path / f"{processes}.safetensors", "fp32", "")
    one, two = (load_file(tmp_path / f"{processes}.safetensors") for processes in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) > 3 * 30
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, atol=1e-7, rtol=1e-5, msg=name)


def test_half_precision_with_a_frozen_layer_differs_by_rounding(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    script = tmp_path / "gradient.py"
    script.write_text(SCRIPT)
    for processes in (1, 2):
        output = tmp_path / f"{processes}.safetensors"
        launch(processes, script, tiny_model, tiny_dataset, output, "bf16", "layer.0.")
    one, two = (load_file(tmp_path / f"{processes}.safetensors") for processes in (1, 2))
    assert one.keys() == two.keys()
    assert not any("layer.0." in name for name in one)
    for name, expected in one.items():
        distance = torch.linalg.vector_norm(two[name] - expected)
        assert distance <= 0.05 * torch.linalg.vector_norm(expected) + 1e-6, name


def recipe_of(model: Path | str, data: Path | str, **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "model": {"name": str(model)},
        "data": {"train": str(data), "validation": {"share": 0.3, "documents": 30}},
        "negatives": {
            "mining": {"name": "dense", "depth": 10},
            "sampling": {"name": "top", "count": 2},
            "refresh": {"every": 3},
        },
        "loss": {"name": "infonce", "learn_temperature": True},
        "stay_close": {"pull": 1.0, "freeze_layers": 1},
        "train": {
            "batch_size": 5, "epochs": 2, "learning_rate": 1e-4, "weight_decay": 0.1, "precision": "fp32",
            "chunk_size": 1, "checkpoint_every": 2, "shard": True,
        },
    } | changes  # fmt: skip


def test_a_run_saves_the_weights_of_one_process_and_resumes_to_the_bit(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(tiny_model, tiny_dataset)))
    folders = {processes: tmp_path / f"on-{processes}" for processes in (1, 2)}
    for processes, folder in folders.items():
        launch(processes, "-m", "embedtune_cli", "train", recipe, "--output", folder)
    last = max((folders[2] / "checkpoints").iterdir()).name
    for kind in ("weights", "optimizer"):
        one, two = (load_file(folder / "checkpoints" / last / f"{kind}.safetensors") for folder in folders.values())
        assert one.keys() == two.keys()
        for name, expected in one.items():
            torch.testing.assert_close(two[name], expected, atol=2e-5, rtol=0, msg=name)
    models = [load_file(folder / "model" / "model.safetensors") for folder in folders.values()]
    untouched = load_file(tiny_model / "model.safetensors")
    assert models[0].keys() == models[1].keys() == untouched.keys()
    for name, expected in models[0].items():
        torch.testing.assert_close(models[1][name], expected, atol=2e-5, rtol=0, msg=name)
    weights = load_file(folders[2] / "checkpoints" / last / "weights.safetensors")
    shutil.rmtree(folders[2] / "checkpoints" / last)  # as if killed before it was written
    (folders[2] / "summary.json").unlink()
    launch(2, "-m", "embedtune_cli", "train", recipe, "--output", folders[2], "--resume")
    again = load_file(folders[2] / "checkpoints" / last / "weights.safetensors")
    assert all(torch.equal(again[name], values) for name, values in weights.items())
    saved = load_file(folders[2] / "model" / "model.safetensors")
    assert all(torch.equal(saved[name], values) for name, values in models[1].items())


def with_processes(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", **variables}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model": {"name": "m", "lora": {"rank": 2}}, "stay_close": {}}, "model.lora"),
        ({"model": {"compose": {"text": "t", "image": "i"}}, "stay_close": {}}, "model.compose"),
        ({"negatives": {"live": {"depth": 5}}}, "negatives.live"),
        ({"synthesis": [{"name": "memory_queue", "momentum": 0.9}]}, "synthesis.memory_queue.momentum"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_out_is_refused(
    changes: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_processes(monkeypatch)
    recipe: Recipe = check_recipe(recipe_of("m", "d") | changes)
    with pytest.raises(InputError, match=rf"^train\.shard: .* over processes with {key}; start with torchrun or"):
        prepare.make_accelerator(recipe, tmp_path)


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"FSDP_VERSION": "1"}, "launched as FSDP version 1: only version 2 is supported; set fsdp_version: 2"),
        ({}, "launched as FSDP version 1: only version 2 is supported; set fsdp_version: 2"),
        ({"FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "launched with fsdp_offload_params: true, which is not"),
        ({"FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
         "launched with fsdp_activation_checkpointing: true, which is not supported; set it to false, and set "
         "model.gradient_checkpointing: true"),
    ],
)  # fmt: skip
def test_an_fsdp_of_accelerate_that_is_not_supported_is_refused(
    variables: dict[str, str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_processes(monkeypatch, ACCELERATE_USE_FSDP="true", **variables)
    with pytest.raises(InputError) as refusal:
        prepare.make_accelerator(check_recipe(recipe_of("m", "d")), tmp_path)
    assert str(refusal.value).startswith(line)


def test_accelerates_switch_shares_weights_out(monkeypatch: pytest.MonkeyPatch) -> None:
    values = recipe_of("m", "d")
    values["train"]["shard"] = False
    recipe = check_recipe(values)
    with_processes(monkeypatch)
    assert not prepare.shares_weights(recipe)
    with_processes(monkeypatch, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert prepare.shares_weights(recipe)


def test_a_launch_with_deepspeed_ends_in_one_line(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(recipe_of(tiny_model, tiny_dataset)))
    # what `accelerate launch` sets for a configuration with distributed_type: DEEPSPEED
    environment = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "WORLD_SIZE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "embedtune_cli", "train", str(recipe), "--output", str(tmp_path / "run")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "launched as" in line]
    assert len(errors) == 1
    assert "launched as DeepSpeed: training runs in one process, or in several that each hold the model" in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_model_of_texts_and_images_is_refused(image_models: dict[str, Path]) -> None:
    encoder = load_encoder(str(image_models["clip"]))
    with pytest.raises(InputError, match=r"^train\.shard: .* cannot be shared out: it reads texts and images, and "):
        sharded.refuse_model(encoder)


def test_the_layers_are_those_of_the_outermost_lists(tiny_model: Path) -> None:
    layers = sharded.layers_of(load_encoder(str(tiny_model)).model)
    assert [type(layer).__name__ for layer in layers] == ["BertLayer", "BertLayer"]


def test_a_filler_is_passed_where_others_have_more_chunks(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = sharded.ShardedEncoder.__new__(sharded.ShardedEncoder)
    encoder.device = torch.device("cpu")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda most, operation: most.fill_(3))
    assert encoder.in_step([[1, 0]]) == [[1, 0], [], []]
    assert encoder.in_step([]) == [[], [], []]
