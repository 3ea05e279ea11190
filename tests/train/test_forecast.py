"""What --dry-run foretells: the arithmetic, against counts by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset

from embedtune.data.dataset import load_dataset, load_training
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import forecast as module
from embedtune.train.forecast import Paces, forecast, tokens_of_item, validations, work_of
from embedtune.train.preflight import load_suites, size_of_model
from embedtune.types import Item


def recipe_of(model: Path | str, data: Path, /, **parts: Any) -> Recipe:
    train = {"batch_size": 5, **parts.pop("train", {})}
    block = {"train": str(data), **parts.pop("data", {})}
    return check_recipe({"version": 1, "model": {"name": str(model)}, "data": block, "train": train, **parts})


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "other", documents=48, queries=24, seed=4)


def tokens(items: Any, ids: Any) -> float:
    return sum(len(items[item_id].content) / 4.5 + 2 for item_id in ids)


def test_the_work_of_each_phase_is_what_the_run_encodes(tiny_model: Path, tiny_dataset: Path, other: Path) -> None:
    pytest.importorskip("bm25s", reason="pip install 'embedtune[bm25]'")
    recipe = recipe_of(
        tiny_model,
        tiny_dataset,
        negatives={
            "mining": [{"name": "dense", "depth": 10}],
            "sampling": {"name": "top", "count": 2},
            "filtering": "guide",
            "teacher": str(tiny_model),
            "refresh": {"every": "epoch"},
        },
        train={"epochs": 3, "batch_size": 5},
        evaluate={
            "in_domain": [str(tiny_dataset)],
            "out_of_domain": [str(other)],
            "guard": {"interpolate": True, "alphas": [0.0, 0.5, 1.0]},
        },
    )
    dataset = load_training(recipe.data)
    work = {phase.kind: phase for phase in work_of(recipe, dataset, load_suites(recipe))}
    corpus, asked = tokens(dataset.corpus, dataset.corpus.ids), tokens(dataset.queries, dataset.qrels)
    assert work["mining"].parts == pytest.approx((2 * (corpus + asked), corpus + asked, corpus + asked))
    steps = 3 * 5  # 24 pairs in batches of 5
    pair = asked / 20 + 3 * corpus / 60
    assert work["training"].parts == pytest.approx((3 * steps * 5 * pair,))
    tested = [load_dataset(tiny_dataset), load_dataset(other)]
    sets = [tokens(one.corpus, one.corpus.ids) + tokens(one.queries, one.qrels) for one in tested]
    assert work["mixing"].parts == pytest.approx((3 * sets[1],))
    assert work["evaluation"].parts == pytest.approx((*sets, *sets, *sets))
    assert "validation" not in work
    assert work["bm25"].parts == pytest.approx([module.BM25_WORK * one for one in sets])


def test_seconds_are_work_by_pace_and_unknown_without_a_model(tiny_model: Path, tiny_dataset: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, evaluate={"in_domain": [str(tiny_dataset)]})
    dataset, suites = load_training(recipe.data), load_suites(recipe)
    work = {phase.kind: phase.tokens for phase in work_of(recipe, dataset, suites)}
    phases = {phase.kind: phase for phase in forecast(recipe, dataset, suites, Paces(encoding=2.0, training=0.5))}
    assert phases["training"].seconds == pytest.approx(0.5 * work["training"])
    assert phases["evaluation"].seconds == pytest.approx(2.0 * work["evaluation"])
    size = size_of_model(recipe)
    assert size is not None
    weights = 4 * size.parameters
    assert phases["training"].disk == 9 * weights + weights
    assert phases["evaluation"].disk == 2 * (10 * 60 * 60 + 4 * 60 * 32)
    absent = recipe_of("some/model", tiny_dataset, evaluate={"in_domain": [str(tiny_dataset)]})
    assert {(p.seconds, p.memory, p.disk) for p in forecast(absent, dataset, suites, None)} == {(None, None, None)}


def test_gradient_caching_encodes_once_more(tiny_model: Path, tiny_dataset: Path) -> None:
    plain, cached = (
        next(p for p in work_of(recipe, load_training(recipe.data), []) if p.kind == "training").tokens
        for recipe in (
            recipe_of(tiny_model, tiny_dataset),
            recipe_of(tiny_model, tiny_dataset, train={"chunk_size": 2}),
        )
    )
    assert cached == pytest.approx(plain * 4 / 3)


def test_an_items_tokens_are_those_of_its_text_and_its_image() -> None:
    assert tokens_of_item(Item(id="a", text="x" * 45), 64) == 12
    assert tokens_of_item(Item(id="a", text="x" * 4500), 64) == 64
    assert tokens_of_item(Item(id="a", image=Path("a.png")), 64) == 200


def test_validations_are_counted_with_the_last_steps(tiny_model: Path, tiny_dataset: Path) -> None:
    def count(**train: Any) -> int:
        return validations(recipe_of(tiny_model, tiny_dataset, data={"validation": 0.3}, train=train), 10, 4)

    assert count(validate_every=3) == 4  # after steps 3, 6, 9 and 10
    assert count(epochs=2.5) == 3  # after steps 4, 8 and 10
    assert count(epochs=9, max_steps=10) == 3


def test_the_dry_run_times_the_model_and_says_that_it_is_an_estimate(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMED_SECONDS", 0.1)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}, validation: 0.3}}\n"
        f"train: {{batch_size: 4}}\nevaluate: {{in_domain: [{tiny_dataset}]}}\n"
    )
    lines = run_cli("train", recipe, "--dry-run").stderr.splitlines()
    facts = {line[:10].strip(): line[12:] for line in lines}
    assert facts["validate"].startswith("2 x, about 5 s, ")
    assert "GiB of memory" in facts["train"]
    assert facts["time"].endswith("an estimate by a short timing of the model; less where it is cached")
    assert "GiB, checkpoints and cached embeddings included" in facts["disk"]
    elsewhere = run_cli("train", recipe, "--dry-run", "--set", "model.name=some/model").stderr
    assert "      time  known once the model is here\n" in elsewhere
