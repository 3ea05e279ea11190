"""Killed with SIGKILL at any moment, a run resumes to exactly the weights of one that was never killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_process import work

from embedtune.recipe import Recipe, check_recipe

CONTEXT = multiprocessing.get_context("forkserver")


def recipe_of(model: Path, data: Path, kind: str, epochs: int) -> Recipe:
    block: dict[str, Any] = {"name": str(model), "dropout": "model"}
    if kind == "lora":
        block["lora"] = {"rank": 4, "dropout": 0.1}
    return check_recipe(
        {
            "version": 1,
            "model": block,
            "data": {"train": str(data), "validation": {"share": 0.3, "documents": 30}},
            "train": {"epochs": epochs, "batch_size": 4, "chunk_size": 3, "checkpoint_every": 2, "validate_every": 5,
                      "learning_rate": 1e-3},
            "loss": {"name": "infonce", "learn_temperature": True},
        }
    )  # fmt: skip


def start(recipe: Recipe, output: Path) -> Any:
    environment = {key: os.environ[key] for key in ("EMBEDTUNE_CACHE", "HF_HUB_OFFLINE")}
    process = CONTEXT.Process(target=work, args=(recipe, output, environment))
    process.start()
    return process


def steps_in(log: Path) -> int:
    """The last step that a log holds."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    steps = [line for line in lines if line.endswith(b"\n") and b'"event": "step"' in line]
    return int(json.loads(steps[-1])["step"]) if steps else 0


def kill_and_resume(model: Path, data: Path, folder: Path, kind: str, kills: int, seed: int) -> None:
    CONTEXT.set_forkserver_preload(["embedtune.train.run", "sentence_transformers", "peft"])
    recipe = recipe_of(model, data, kind, epochs=4 * kills)
    whole = start(recipe, folder / "whole")
    whole.join()
    assert whole.exitcode == 0
    log = folder / "killed" / "log.jsonl"
    moments, last = random.Random(seed), steps_in(folder / "whole" / "log.jsonl")
    for step in sorted(moments.sample(range(1, last - last // 10), kills)):
        process = start(recipe, folder / "killed")
        patience = moments.choice([0.5, 60])  # some are killed while they load
        deadline = time.monotonic() + moments.uniform(0, patience)
        while process.is_alive() and time.monotonic() < deadline and steps_in(log) < step:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))  # somewhere within a step, or within a checkpoint
        assert process.is_alive()  # not finished: there is something to kill
        process.kill()
        process.join()
    process = start(recipe, folder / "killed")
    process.join()
    assert process.exitcode == 0
    expected, found = (load_file(folder / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_three_kills(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    kill_and_resume(tiny_model, tiny_dataset, tmp_path, "lora", kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_twenty_kills(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    kill_and_resume(tiny_model, tiny_dataset, tmp_path, kind, kills=20, seed=1)
