"""A memory queue whose documents a slow copy of the weights encodes (MoCo)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError, Interrupted
from embedtune.methods.synthesis.memory_queue import MemoryQueue
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import checkpoint
from embedtune.train.run import train


def recipe_of(model: Path, data: Path, momentum: float | None, **model_keys: Any) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model), **model_keys},
            "data": {"train": str(data)},
            "synthesis": {"name": "memory_queue", "size": 12, "momentum": momentum},
            "train": {"batch_size": 5, "epochs": 2, "max_steps": 6, "learning_rate": 1e-2, "precision": "fp32",
                      "warmup": 0, "checkpoint_every": 3},
        }
    )  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def difference(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_the_slow_weights_by_hand() -> None:
    three, queue = nn.Parameter(torch.tensor([1.0])), MemoryQueue(momentum=0.999)
    queue.start([three])
    with torch.no_grad():
        three.fill_(3.0)
    queue.follow([three])
    assert queue.slow[0].item() == pytest.approx(1.002)
    with queue.slow_weights([three]):
        assert three.item() == pytest.approx(1.002)
    assert three.item() == 3.0
    with pytest.raises(InputError, match=r"momentum: expected 0 to below 1, got 1\.0"):
        MemoryQueue(momentum=1.0)


def test_without_memory_it_is_the_student_and_with_it_another(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    for name, momentum in (("own", None), ("none", 0.0), ("slow", 0.9)):
        train(recipe_of(tiny_model, tiny_dataset, momentum), tmp_path / name)
    assert difference(tmp_path / "own", tmp_path / "none") < 1e-6
    assert difference(tmp_path / "own", tmp_path / "slow") > 1e-5


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_the_queue_holds_what_the_slow_weights_say(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, lora: dict[str, int] | None
) -> None:
    untouched = load_encoder(str(tiny_model)).encode(load_dataset(tiny_dataset).corpus, "document")
    known = F.normalize(torch.tensor(untouched), dim=1)
    furthest = {}
    for momentum in (1 - 1e-7, 0.0):  # which all but stays where it was; which is the student
        folder = tmp_path / str(momentum)
        train(recipe_of(tiny_model, tiny_dataset, momentum, lora=lora), folder)
        tensors, _ = checkpoint.load(folder / "checkpoints" / "step-000006")
        slow = [name for name in tensors["objective"] if ".slow_" in name]
        assert len(slow) == len(tensors["weights"])  # of an adapter: it alone
        (held,) = (rows for name, rows in tensors["objective"].items() if name.endswith("embeddings"))
        furthest[momentum] = float((1 - (held @ known.T).amax(dim=1)).max())
    assert furthest[1 - 1e-7] < 1e-5 < furthest[0.0]


def test_a_stopped_run_goes_on_with_its_slow_weights(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, 0.9)
    train(recipe, tmp_path / "whole")

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] == 3:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "stopped", on_event=stop)
    steps = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    assert max(event.get("step", 0) for event in steps) == 3
    train(recipe, tmp_path / "stopped", resume=True)
    assert difference(tmp_path / "whole", tmp_path / "stopped") == 0.0
