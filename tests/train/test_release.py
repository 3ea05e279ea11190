"""What training held has left the device when the run's models are loaded, one at a time, to be evaluated."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_dataset

from embedtune.models.encoder import Encoder
from embedtune.recipe import check_recipe
from embedtune.train import mix, run
from embedtune.train.checkpoint import Training


@pytest.mark.parametrize("guard", [None, {"alphas": [0.0, 0.5, 1.0]}, {"alphas": [0.5], "weights": "fisher"}])
def test_no_weights_of_training_remain_when_a_model_is_loaded_to_be_evaluated(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guard: dict[str, Any] | None
) -> None:
    started: list[Training] = []
    loaded: list[weakref.ref[torch.nn.Module]] = []
    fit, suite_encoder, load_encoder = run.fit, run.suite_encoder, mix.load_encoder

    def fitted(training: Training, *rest: Any) -> Any:
        started.append(training)
        return fit(training, *rest)

    def checked(encoder: Encoder) -> Encoder:
        (training,) = started
        assert not training.optimizer.state
        left = [*training.encoder.model.parameters(), *training.objective.modules.buffers(), *training.encoder_weights]
        assert left
        assert all(tensor.numel() == 0 and tensor.grad is None for tensor in left)
        assert not any(earlier() is not None for earlier in loaded)
        loaded.append(weakref.ref(encoder.model))
        return encoder

    monkeypatch.setattr(run, "fit", fitted)
    monkeypatch.setattr(run, "suite_encoder", lambda *given: checked(suite_encoder(*given)))
    monkeypatch.setattr(mix, "load_encoder", lambda *given, **options: checked(load_encoder(*given, **options)))
    recipe: dict[str, Any] = {
        "version": 1,
        "model": {"name": str(tiny_model)},
        "data": {"train": str(tiny_dataset)},
        "train": {"max_steps": 2, "batch_size": 4},
        "evaluate": {"in_domain": [str(tiny_dataset)], "bm25": False},
    }
    if guard is not None:
        recipe["data"]["validation"] = {"share": 0.3}
        foreign = write_dataset(tmp_path / "foreign", documents=70, queries=33, seed=7)
        recipe["evaluate"] |= {"out_of_domain": [str(foreign)], "guard": {"interpolate": True, **guard}}
    result = run.train(check_recipe(recipe), tmp_path / "run")
    assert result.tuned
    assert len(loaded) == (2 if guard is None else 4)
