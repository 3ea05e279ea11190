"""Batches that are made beside the step before give the run that they give in turn, to the bit."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from embedtune.errors import InputError, Interrupted
from embedtune.models import beside
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import loop
from embedtune.train.run import TrainedRun, train

MINED = {"mining": {"name": "dense", "depth": 10}, "sampling": {"name": "mixed", "count": 2}}
CASES: dict[str, dict[str, Any]] = {
    "mined again by steps": {"negatives": {**MINED, "refresh": {"every": 2}}},
    "mined again by epochs": {"negatives": {**MINED, "refresh": {"every": "epoch"}}, "train": {"accumulate": 2}},
    "replaced": {"negatives": {**MINED, "replace": {"start": 2, "every": 1}}},
    "made, with a slow copy": {"synthesis": ["word_swap", {"name": "memory_queue", "size": 8, "momentum": 0.9}]},
}


def recipe_of(model: Path, data: Path, **parts: Any) -> Recipe:
    settings = {"batch_size": 6, "epochs": 2, "learning_rate": 3e-3, "checkpoint_every": 2, **parts.pop("train", {})}
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model), "dropout": "model"},
            "data": {"train": str(data)},
            "train": settings,
            **parts,
        }
    )


def weights_of(run: TrainedRun) -> dict[str, torch.Tensor]:
    return load_file(run.model / "model.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_a_run_with_batches_made_early_is_the_run_with_batches_made_in_turn(
    case: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, **CASES[case])
    monkeypatch.setattr(beside, "has_room", lambda: False)
    expected = weights_of(train(recipe, tmp_path / "in turn"))
    monkeypatch.setattr(beside, "has_room", lambda: True)
    on_threads: list[str] = []
    batch_at = loop.batch_at

    def noted(*arguments: Any) -> Any:
        on_threads.append(threading.current_thread().name.partition("_")[0])
        return batch_at(*arguments)

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "batch_at", noted)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "beside", on_event=interrupt)
    assert set(on_threads) == ({"MainThread"} if case == "replaced" else {"MainThread", "ahead"})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    found = weights_of(train(recipe, tmp_path / "beside", resume=True))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_fault_in_a_later_batch_is_told_as_one_in_the_first(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "has_room", lambda: True)
    prepared, asked = loop.prepared, []

    def broken(*arguments: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 3:
            raise InputError("d7.png: damaged image")
        return prepared(*arguments)

    monkeypatch.setattr(loop, "prepared", broken)
    steps: list[int] = []
    with pytest.raises(InputError, match=r"^d7\.png: damaged image$"):
        train(
            recipe_of(tiny_model, tiny_dataset),
            tmp_path / "run",
            on_event=lambda event: steps.append(event["step"]) if event["event"] == "step" else None,
        )
    assert steps == [1, 2]
