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
from tiny_models import write_cross_encoder

from embedtune.errors import Interrupted
from embedtune.recipe import Recipe, check_recipe
from embedtune.train.run import train


def recipe_of(model: Path, data: Path, every: int | str, **changes: Any) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data)},
            "negatives": {
                "mining": {"name": "dense", "depth": 10},
                "sampling": {"name": "top", "count": 2},
                "refresh": {"every": every},
                **changes.pop("negatives", {}),
            },
            "train": {"batch_size": 8, "epochs": 3, "learning_rate": 3e-3, "checkpoint_every": 2},
            **changes,
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


def test_a_cross_encoder_teaches_what_was_mined_last(
    tiny_model: Path, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    write_cross_encoder(tmp_path / "cross", bare_checkpoint)
    block = {"teacher": f"cross-encoder:{tmp_path}/cross", "mining": {"name": "dense", "depth": 3}}
    steps = {"batch_size": 8, "epochs": 2, "learning_rate": 3e-2}
    recipe = recipe_of(tiny_model, tiny_dataset, 1, negatives=block, train=steps, loss="listwise_kl")
    run = train(recipe, tmp_path / "run")
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    found = [event["rows_without_negatives"] for event in events if event["event"] == "step"]
    assert found == [0.0] * run.steps  # had the first mining's pairs alone been known, later ones would have no teacher


def test_filters_mine_again_as_they_have_become(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    moving = {"name": "positive_ratio", "at_most": {"from": 2.0, "to": 1.0}}
    learning = {"name": "cluster", "clusters": 4, "start_at": 1.0}
    recipe = recipe_of(tiny_model, tiny_dataset, 4, negatives={"filtering": [moving, learning]})
    folder = train(recipe, tmp_path / "run").folder / "negatives"
    said = {}
    for name in ("mined", "step-000004"):
        first = json.loads((folder / f"{name}.jsonl").read_text().splitlines()[0])
        said[name] = {verdict["name"]: verdict for verdict in first["filters"]}
        limit = said[name]["positive_ratio"]["limit"] / first["positive_score"]
        assert limit == pytest.approx({"mined": 2.0, "step-000004": 1 + 5 / 9}[name], abs=1e-5)
    assert [sorted(verdicts) for verdicts in said.values()] == [["positive_ratio"], ["cluster", "positive_ratio"]]
