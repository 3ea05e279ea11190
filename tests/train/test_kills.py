"""Killed with SIGKILL at any moment, a run resumes to exactly the weights of one that was never killed."""

from __future__ import annotations

import multiprocessing
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from embedtune.recipe import Recipe, check_recipe
from embedtune.report.record import SUMMARY

CONTEXT = multiprocessing.get_context("forkserver")


def work(recipe: Recipe, output: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    from embedtune.train.run import train

    train(recipe, output, resume=True)


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


def kill_and_resume(model: Path, data: Path, folder: Path, kind: str, kills: int, seed: int) -> None:
    CONTEXT.set_forkserver_preload(["embedtune.train.run", "sentence_transformers", "peft"])
    recipe = recipe_of(model, data, kind, epochs=4 * kills)
    whole = start(recipe, folder / "whole")
    whole.join()
    assert whole.exitcode == 0
    moments, killed = random.Random(seed), 0
    while not (folder / "killed" / SUMMARY).exists():
        process = start(recipe, folder / "killed")
        process.join(timeout=moments.uniform(0.3, 2.0) if killed < kills else None)
        if process.is_alive():
            process.kill()
            process.join()
            killed += 1
        else:
            assert process.exitcode == 0
    assert killed == kills  # the run was long enough for all of them
    expected, found = (load_file(folder / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_three_kills(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    kill_and_resume(tiny_model, tiny_dataset, tmp_path, "lora", kills=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_twenty_kills(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, kind: str) -> None:
    kill_and_resume(tiny_model, tiny_dataset, tmp_path, kind, kills=20, seed=1)
