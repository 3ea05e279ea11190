"""A default step waits for the device once: where its loss and norm are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from host_waits import HostWaits, tensors_of
from safetensors.torch import load_file

from embedtune.errors import InputError
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import checkpoint, run
from embedtune.train.run import train

FETCHED = "tolist at train/step.py"


def recipe_of(name: Path, data: Path, /, **parts: Any) -> Recipe:
    settings = {"batch_size": 6, "epochs": 2, "learning_rate": 1e-3, **parts.pop("train", {})}
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(name), **parts.pop("model", {})},
            "data": {"train": str(data)},
            "train": settings,
            **parts,
        }
    )


def waits_of_a_step(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is recorded in the second step, once what is made at a first call is there."""
    trainings: list[checkpoint.Training] = []
    counted: list[HostWaits] = []
    fit = run.fit

    def seen(t: checkpoint.Training, state: checkpoint.State) -> checkpoint.State:
        trainings.append(t)
        return fit(t, state)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 1:
            counted.append(HostWaits(tensors_of(trainings[0])).__enter__())
        elif event["event"] == "step" and event["step"] == 2:
            counted[0].__exit__()

    monkeypatch.setattr(run, "fit", seen)
    train(recipe, folder, on_event=on_event)
    return counted[0].waits


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"train": {"chunk_size": 2, "accumulate": 2}},
        {"model": {"lora": {"rank": 2}}, "loss": {"name": "infonce", "learn_temperature": True}},
        {"loss": {"name": "infonce", "directions": ["query_document", "document_query"]}, "matryoshka": [16]},
        {"negatives": {"mining": {"name": "dense", "depth": 5}, "sampling": {"name": "top", "count": 2}}},
    ],
    ids=["default", "gradient caching", "lora", "both directions", "mined"],
)
def test_a_step_waits_once(
    parts: dict[str, Any], tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedtune.methods.loss._pairs.at_hand", lambda values: False)
    waits = waits_of_a_step(recipe_of(tiny_model, tiny_dataset, **parts), tmp_path / "run", monkeypatch)
    assert len(waits) == 1, "\n".join(waits)
    assert waits[0].startswith(FETCHED)


def test_the_recorder_sees_each_kind_of_wait() -> None:
    weights, host = torch.arange(6.0), torch.tensor([1, 2])
    with HostWaits([weights]) as counted:
        moved = host.to(torch.device("cpu"), non_blocking=True)
        doubled = weights[moved] * 2  # nothing is read
        assert not counted.waits
        for act in (
            doubled.tolist,
            doubled.sum().item,
            lambda: bool((doubled > 0).any()),
            doubled.nonzero,
            lambda: weights[weights > 2],
            lambda: weights[[0, 1]],
            lambda: torch.bincount(moved),
            lambda: torch.equal(doubled, doubled),
            lambda: torch.tensor([1.0], device=torch.device("cpu")),
            lambda: host.to(torch.device("cpu")),
            lambda: weights[:2] + host,
        ):
            before = len(counted.waits)
            act()
            assert len(counted.waits) == before + 1, act
    before = len(counted.waits)
    host.tolist()
    assert len(counted.waits) == before


def test_a_batch_that_only_the_device_knows_to_lack_negatives_is_refused_before_the_weights_change(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedtune.methods.loss._pairs.at_hand", lambda values: False)
    filtering = {"negatives": {"filtering": [{"name": "absolute", "below": -1.5}]}}
    for name, parts in {"whole": {}, "slices": {}, "accumulated": {"train": {"accumulate": 2}}}.items():
        if name == "slices":
            monkeypatch.setattr("embedtune.train.sizes.LARGEST_MATRIX", 20)
        recipe = recipe_of(tiny_model, tiny_dataset, **filtering, **parts)
        with pytest.raises(InputError, match=r"^no query of this batch of 6 has a negative left"):
            train(recipe, tmp_path / name)
        assert not list((tmp_path / name / "checkpoints").glob("step-*"))


def test_what_only_the_device_knows_changes_no_training(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset)
    at_hand = train(recipe, tmp_path / "at hand")
    monkeypatch.setattr("embedtune.methods.loss._pairs.at_hand", lambda values: False)
    not_at_hand = train(recipe, tmp_path / "not at hand")
    one, other = (load_file(trained.model / "model.safetensors") for trained in (at_hand, not_at_hand))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "refused" not in (not_at_hand.folder / "log.jsonl").read_text()
