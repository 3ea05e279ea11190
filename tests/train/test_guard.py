"""The guard: its budget, its choice among mixtures, and that what chooses never reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, write_dataset
from sentence_transformers import SentenceTransformer

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.evaluate.guarded import Point
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Guard, Recipe, check_recipe, dump
from embedtune.train.guard import choose, curve, fits, over_budget, refuse_overlap, watch
from embedtune.train.run import train

BASE = {"set": {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.5}}
RunCli = Callable[..., Result]


def point(alpha: float, validation: float | None, fit: bool = True) -> Point:
    return Point(alpha=alpha, validation=validation, sets={}, fits=fit)


def test_a_drop_up_to_the_budget_fits() -> None:
    dropped = {"set": {"a": 0.9, "b": 0.9, "c": 0.2, "d": 0.46}}  # the mean falls by 0.01
    assert fits(Guard(largest_drop=0.01), BASE, dropped)
    assert not fits(Guard(largest_drop=0.009), BASE, dropped)


def test_flips_have_a_budget_of_their_own() -> None:
    flipped = {
        "set": {"a": 0.4, "b": 1.0, "c": 1.0, "d": 0.9}
    }  # better in the mean, and one of four is no longer right
    assert fits(Guard(), BASE, flipped)
    assert not fits(Guard(largest_flips=0.2), BASE, flipped)
    assert not over_budget(Guard(largest_flips=0.25), 0.0, 0.25)


def test_the_choice_is_the_best_validated_within_the_budget() -> None:
    points = [point(0.0, 0.5), point(0.5, 0.8), point(0.7, 0.9, fit=False), point(1.0, 0.7, fit=False)]
    assert choose(points).alpha == 0.5
    assert choose([point(0.2, 0.8), point(0.6, 0.8)]).alpha == 0.6  # of equal ones the larger
    assert choose([point(0.2, None), point(0.6, None), point(1.0, None, fit=False)]).alpha == 0.6
    assert choose([point(0.2, None, fit=False), point(0.6, None, fit=False)]).alpha == 0.2


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "foreign", documents=70, queries=33, seed=7)


def test_what_chooses_does_not_report(foreign: Path) -> None:
    dataset = load_dataset(foreign)
    watched = watch(dataset, Guard(interpolate=True))
    assert watched.choosing is not None
    assert not set(watched.choosing.qrels) & set(watched.reporting.qrels)
    assert set(watched.choosing.qrels) | set(watched.reporting.qrels) == set(dataset.qrels)
    assert watched.chosen_on == "half of its queries"
    assert watch(dataset, Guard()).reporting is dataset  # nothing is chosen, everything reports
    (foreign / "qrels" / "dev.tsv").write_text((foreign / "qrels" / "train.tsv").read_text())
    own = watch(dataset, Guard(interpolate=True))
    assert own.choosing is not None
    assert (own.choosing.split, own.chosen_on, own.reporting) == ("dev", "its split dev", dataset)


def test_a_guard_set_that_was_trained_on_is_refused(tiny_dataset: Path, foreign: Path) -> None:
    training = load_dataset(tiny_dataset, "train")
    refuse_overlap(training, [load_dataset(foreign)])
    query = training.queries[next(iter(training.qrels))].text
    lines = (foreign / "queries.jsonl").read_text().splitlines()
    lines[0] = json.dumps({"_id": "q0", "text": query.upper()})  # the same but for case
    (foreign / "queries.jsonl").write_text("\n".join(lines) + "\n")
    expected = r"overlaps with the training data: 1 of its queries and positives were trained on, first its query 'q0'"
    with pytest.raises(InputError, match=expected):
        refuse_overlap(training, [load_dataset(foreign)])
    with pytest.raises(InputError, match=r"overlaps with the training data"):
        refuse_overlap(training, [load_dataset(tiny_dataset, "train")])


def test_a_guard_sets_queries_are_not_distilled_on_and_nothing_is_left_of_what_was_refused(
    tiny_model: Path, tiny_dataset: Path, foreign: Path, tmp_path: Path
) -> None:
    values = {
        "version": 1,
        "model": {"name": str(tiny_model)},
        "data": {"train": str(tiny_dataset)},
        "stay_close": {"distill": {"data": str(foreign)}},
        "evaluate": {"out_of_domain": [str(foreign)], "guard": {}},
        "train": {"batch_size": 6, "max_steps": 1},
    }
    with pytest.raises(InputError, match=r"11 queries of .*foreign \(split test\) are in stay_close\.distill\.data"):
        train(check_recipe(values), tmp_path / "run")
    assert all(path.name.startswith(".lock") for path in (tmp_path / "run").iterdir())
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "corpus.jsonl").write_bytes((foreign / "corpus.jsonl").read_bytes())  # but no queries
    values["stay_close"] = {"distill": {"data": str(tmp_path / "texts"), "batch_size": 2}}
    assert train(check_recipe(values), tmp_path / "run").steps == 1


def test_the_curve_starts_at_the_base_and_marks_what_fits(foreign: Path) -> None:
    guard = Guard(interpolate=True, alphas=[1.0, 0.5], largest_drop=0.1)
    watched = [watch(load_dataset(foreign), guard)]
    points = curve(
        guard, watched, lambda alpha, dataset: dict.fromkeys(dataset.qrels, 1 - 0.3 * alpha**2), lambda _: None
    )
    assert [(p.alpha, p.fits, p.sets) for p in points] == [
        (0.5, True, {"foreign": pytest.approx(0.925)}),
        (1.0, False, {"foreign": pytest.approx(0.7)}),
    ]


def recipe_of(
    path: Path, data: Path, foreign: Path, guard: dict[str, Any], model: dict[str, Any] | None = None
) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(path)} | (model or {}),
            "data": {"train": str(data), "validation": {"share": 0.3}},
            "train": {"batch_size": 6, "epochs": 3, "learning_rate": 5e-2, "precision": "fp32"},
            "evaluate": {"in_domain": [str(data)], "out_of_domain": [str(foreign)], "guard": guard},
        }
    )


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
@pytest.mark.parametrize("weights", ["linear", "fisher"])
def test_a_run_is_mixed_until_it_keeps_the_budget(
    tiny_model: Path, tiny_dataset: Path, foreign: Path, tmp_path: Path, lora: dict[str, int] | None, weights: str
) -> None:
    guard = {"largest_drop": 0.02, "interpolate": True, "alphas": [0, 0.25, 0.5, 1], "weights": weights}
    recipe = recipe_of(tiny_model, tiny_dataset, foreign, guard, model={"lora": lora})
    run = train(recipe, tmp_path / "run")
    found = json.loads((run.folder / "guard.json").read_text())
    assert [p["alpha"] for p in found["curve"]] == [0, 0.25, 0.5, 1]
    chosen = next(p for p in found["curve"] if p["alpha"] == found["chosen"])
    assert chosen["fits"]
    assert chosen["validation"] == max(p["validation"] for p in found["curve"] if p["fits"])
    (one,) = found["sets"]
    assert (one["label"], one["queries"], one["chosen_on"]) == ("foreign", 6, "half of its queries")
    measured = json.loads((run.folder / "evaluation" / "foreign" / "measures.json").read_text())
    assert (measured["queries"], measured["measures"]["nDCG@10"]) == (6, one["tuned"])
    models = [
        SentenceTransformer(str(path), device="cpu") for path in (tiny_model, run.model, run.folder / "model-unmixed")
    ]
    base, mixed, tuned = (np.asarray(m[0].model.embeddings.word_embeddings.weight.detach()) for m in models)
    if weights == "linear":
        np.testing.assert_allclose(mixed, base + found["chosen"] * (tuned - base), atol=1e-6)
    if lora and weights == "linear":
        adapted = load_encoder(str(run.folder / "adapter")).model
        key = "encoder.layer.0.attention.self.query.weight"
        wanted, given = (dict(m[0].model.named_parameters())[key] for m in (models[1], adapted))
        np.testing.assert_allclose(given.detach(), wanted.detach(), atol=1e-6)


def test_over_budget_the_command_line_says_which_set_and_exits_1(
    tiny_model: Path, tiny_dataset: Path, foreign: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, foreign, {"largest_drop": 0.0, "largest_flips": 0.0})
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(recipe))
    harmful = ("--set", "train.learning_rate=0.5", "--set", "data.validation=null")
    result = run_cli("train", path, *harmful, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert "missed: foreign: nDCG@10 0." in result.stderr
    assert "; the budget is a drop of 0 and 0.0% of the queries" in result.stderr
    again = run_cli("train", path, *harmful, "--output", tmp_path / "run", "--resume")
    assert again.exit_code == 1  # a finished run is as good as it was


def test_a_guard_without_sets_has_no_effect(tiny_model: Path, tiny_dataset: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate.guard: has no effect without evaluate.out_of_domain"):
        check_recipe({"version": 1, "model": {"name": "m"}, "data": {"train": "d"}, "evaluate": {"guard": {}}})
