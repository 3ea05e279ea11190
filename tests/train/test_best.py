"""Which weights a run ends with, what its log and its listener are told, and what may change once it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_dataset
from safetensors.torch import load_file
from torch import nn

from embedtune.errors import InputError, Interrupted
from embedtune.recipe import Recipe, check_recipe
from embedtune.report.write import report
from embedtune.train.objective import mean_parts
from embedtune.train.run import train
from embedtune.train.stay_close import freeze, layers_of_model
from embedtune_cli.train import show_result


def recipe_of(model: Path, data: Path, /, **parts: Any) -> Recipe:
    settings = {"batch_size": 4, "epochs": 1, "precision": "fp32", **parts.pop("train", {})}
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data), **parts.pop("data", {})},
            "train": settings,
            **parts,
        }
    )


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == kind]


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


def test_a_run_that_only_gets_worse_ends_with_the_untouched_model(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2", reason="pip install 'embedtune[plots]'")
    harmful = {"learning_rate": 0.5, "validate_every": 1, "max_steps": 3, "warmup": 0}
    recipe = recipe_of(tiny_model, tiny_dataset, train=harmful, data={"validation": 0.3})
    run = train(recipe, tmp_path / "run")
    validations = events_of(run.folder, "validation")
    assert [event["step"] for event in validations] == [0, 1, 2, 3]
    assert all(event["value"] < validations[0]["value"] for event in validations[1:])  # the test could have failed
    assert [event["best"] for event in validations] == [True, False, False, False]
    assert run.best_step == 0
    before, after = weights_of(tiny_model), weights_of(run.model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    why = f"no step validated above the untouched model (nDCG@10 {validations[0]['value']:.4f} on held-out queries)"
    assert run.untouched == json.loads((run.folder / "summary.json").read_text())["untouched"] == why
    advice = f"Tuning brought no gain: {why}. Use tiny as it is; this folder has its weights."
    assert advice in (run.model / "README.md").read_text()
    assert advice in report([run.folder], form="md").text
    show_result(run, as_json=False)
    assert advice in capsys.readouterr().err


def test_a_guard_that_allows_no_tuned_weight_says_what_to_use(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path / "other", seed=7)
    guard = {"interpolate": True, "alphas": [0.0, 1.0], "largest_drop": 0.0}
    harmful = {"learning_rate": 0.5, "max_steps": 3, "warmup": 0}
    recipe = recipe_of(
        tiny_model, tiny_dataset, train=harmful, evaluate={"out_of_domain": [str(other)], "guard": guard}
    )
    run = train(recipe, tmp_path / "run")
    assert run.untouched is not None
    assert run.untouched.startswith("the guard chose alpha 0")


def test_a_trained_model_that_equals_the_untouched_one_is_better(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    level = {"learning_rate": 1e-9, "validate_every": 1, "max_steps": 2}
    run = train(recipe_of(tiny_model, tiny_dataset, train=level, data={"validation": 0.3}), tmp_path / "run")
    validations = events_of(run.folder, "validation")
    assert len({event["value"] for event in validations}) == 1
    assert [event["best"] for event in validations] == [True, True, False]
    assert run.best_step == 1


def test_a_run_killed_before_its_first_step_keeps_its_first_validation(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, train={"max_steps": 2}, data={"validation": 0.3})
    whole = train(recipe, tmp_path / "whole")

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint" and event["step"] == 0:
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "killed", on_event=stop)
    resumed = train(recipe, tmp_path / "killed", resume=True)
    expected, found = events_of(whole.folder, "validation"), events_of(resumed.folder, "validation")
    assert found == expected
    assert [event["step"] for event in found] == [0, 2]
    assert all(torch.equal(weights_of(whole.model)[name], value) for name, value in weights_of(resumed.model).items())


def test_the_log_holds_the_mean_over_accumulated_batches(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    negatives = {"mining": "dense", "filtering": {"name": "positive_ratio", "at_most": 0.9}}
    losses = [{"name": "infonce"}, {"name": "variance", "weight": 0.5}]
    level = {"learning_rate": 1e-12, "batch_size": 6, "warmup": 0, "max_steps": 4}
    single = train(
        recipe_of(tiny_model, tiny_dataset, train=level, negatives=negatives, loss=losses), tmp_path / "single"
    )
    level |= {"accumulate": 2, "max_steps": 2}
    double = train(
        recipe_of(tiny_model, tiny_dataset, train=level, negatives=negatives, loss=losses), tmp_path / "double"
    )
    batches, steps = events_of(single.folder, "step"), events_of(double.folder, "step")
    for number, step in enumerate(steps):
        pair = batches[2 * number : 2 * number + 2]
        for name in ("loss", "dropped", "infonce", "variance"):
            assert step[name] == pytest.approx(sum(batch[name] for batch in pair) / 2, abs=1e-5), name
        assert step["documents"] == sum(batch["documents"] for batch in pair)
    assert any(batches[0][name] != batches[1][name] for name in ("dropped", "variance"))


def test_a_count_that_a_batch_does_not_name_is_zero_there() -> None:
    parts = mean_parts([{"made": torch.tensor(4), "gap": 1.0}, {"gap": 2.0}, {"margin": torch.tensor(3.0)}])
    assert float(parts["made"]) == pytest.approx(4 / 3)
    assert (parts["gap"], float(parts["margin"])) == (1.5, 3.0)


def test_evaluate_may_change_once_training_is_done(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", seed=7)
    first = {"in_domain": [str(tiny_dataset)], "measures": ["nDCG@10"]}
    run = train(recipe_of(tiny_model, tiny_dataset, evaluate=first), tmp_path / "run")
    weights = weights_of(run.model)
    changed = {"in_domain": [str(tiny_dataset)], "out_of_domain": [str(other)], "measures": ["nDCG@10", "R@5"]}
    again = train(recipe_of(tiny_model, tiny_dataset, evaluate=changed), run.folder, resume=True)
    absent = {"in_domain": [str(tmp_path / "absent")]}
    with pytest.raises(InputError, match=r"absent"):  # and the run stays as it is
        train(recipe_of(tiny_model, tiny_dataset, evaluate=absent), run.folder, resume=True)
    assert train(recipe_of(tiny_model, tiny_dataset, evaluate=changed), run.folder, resume=True).already_finished
    assert not again.already_finished
    assert set(again.tuned) == {"tiny", "other"}
    assert set(again.tuned["other"]) == {"nDCG@10", "R@5"}
    assert again.tuned["tiny"]["nDCG@10"] == run.tuned["tiny"]["nDCG@10"]
    assert all(torch.equal(weights[name], value) for name, value in weights_of(again.model).items())
    with pytest.raises(InputError, match=r"--resume with a changed recipe \(train\.batch_size: 4 -> 6\)"):
        train(recipe_of(tiny_model, tiny_dataset, evaluate=changed, train={"batch_size": 6}), run.folder, resume=True)


def test_evaluate_may_not_change_before_training_is_done(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            raise Interrupted("here")

    with pytest.raises(Interrupted):
        train(recipe_of(tiny_model, tiny_dataset, train={"checkpoint_every": 1}), tmp_path / "run", on_event=stop)
    changed = recipe_of(tiny_model, tiny_dataset, train={"checkpoint_every": 1}, evaluate={"measure": "RR@10"})
    with pytest.raises(InputError, match=r"--resume with a changed recipe \(evaluate\.measure: 'nDCG@10' -> 'RR@10'\)"):
        train(changed, tmp_path / "run", resume=True)


def test_mixing_tells_how_far_it_is(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", seed=7)
    guard = {"interpolate": True, "alphas": [0.0, 0.5, 1.0], "largest_drop": 1.0}
    evaluate = {"out_of_domain": [str(other)], "guard": guard}
    told: list[dict[str, Any]] = []
    recipe = recipe_of(tiny_model, tiny_dataset, evaluate=evaluate, data={"validation": 0.3})
    train(recipe, tmp_path / "run", on_event=told.append)
    start = next(i for i, event in enumerate(told) if event.get("name") == "mix base and tuned weights")
    end = next(i for i, event in enumerate(told) if i > start and event["event"] == "phase")
    progress = [(e["done"], e["total"], e["detail"]) for e in told[start:end] if e["event"] == "progress"]
    assert progress == [
        (0, 6, "alpha 1 of 3, set 1 of 2"),
        (1, 6, "alpha 1 of 3, set 2 of 2"),
        (2, 6, "alpha 2 of 3, set 1 of 2"),
        (3, 6, "alpha 2 of 3, set 2 of 2"),
        (4, 6, "alpha 3 of 3, set 1 of 2"),
        (5, 6, "alpha 3 of 3, set 2 of 2"),
    ]
    plan = next(event["phases"] for event in told if event["event"] == "plan")
    kinds = [event["kind"] for event in told if event["event"] == "phase" and "kind" in event]
    assert [phase.kind for phase in plan] == ["validation", "training", "mixing", "evaluation", "bm25"]
    assert {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)} == {
        "training": 1,
        "validation": 2,  # the untouched model's, and the last step's
        "mixing": 1,
        "evaluation": 3,
        "bm25": 1,
    }
    counts = {phase.kind: len(phase.parts) for phase in plan}
    assert counts == {"validation": 2, "training": 1, "mixing": 1, "evaluation": 3, "bm25": 1}


def test_t5_calls_its_embeddings_shared_and_they_are_frozen_all_the_same() -> None:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    model = nn.Sequential(T5EncoderModel(config))
    layers = layers_of_model(model)
    assert layers["0.shared.weight"] == -1
    assert {layer for name, layer in layers.items() if ".block.1." in name} == {1}
    freeze(model, 1)
    trained = {layers[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {1, None}  # the final norm stands above all layers
