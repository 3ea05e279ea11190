"""The student mines again while it trains, and a stopped run goes on with the negatives that were in force."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from embedtune.errors import Interrupted
from embedtune.recipe import Recipe, check_recipe
from embedtune.train.run import train


def recipe_of(model: Path, data: Path, every: int | str) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data)},
            "negatives": {
                "mining": {"name": "dense", "depth": 10},
                "sampling": {"name": "top", "count": 2},
                "refresh": {"every": every},
            },
            "train": {"batch_size": 8, "epochs": 3, "learning_rate": 3e-3, "checkpoint_every": 2},
        }
    )


def test_mined_again_every_so_many_steps(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, 4)
    whole = train(recipe, tmp_path / "whole")
    runs = sorted(path.name for path in (whole.folder / "negatives").glob("*.run"))
    assert runs == ["mined.run", "step-000004.run", "step-000008.run"]
    first, later = ((whole.folder / "negatives" / name).read_text() for name in runs[:2])
    assert first != later  # the student has moved
    state = json.loads((whole.folder / "checkpoints" / "step-000008" / "state.json").read_text())
    assert state["negatives"] == "step-000008"

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "stopped", on_event=interrupt)
    resumed = train(recipe, tmp_path / "stopped", resume=True)
    expected, found = (load_file(run.model / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_mined_again_every_epoch(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    run = train(recipe_of(tiny_model, tiny_dataset, "epoch"), tmp_path / "run")
    assert len(list((run.folder / "negatives").glob("step-*.run"))) == 2  # not after the last epoch
