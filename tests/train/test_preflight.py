"""What preflight says is what runs: steps, pairs, negatives and memory come from one place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import preflight as module
from embedtune.train import sizes
from embedtune.train.plan import Plan
from embedtune.train.preflight import preflight
from embedtune.train.validation import held_out


def recipe_of(model: Path | str, data: Path, /, **parts: Any) -> Recipe:
    train = {"batch_size": 5, **parts.pop("train", {})}
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model), **parts.pop("model", {})},
            "data": {"train": str(data), **parts.pop("data", {})},
            "batching": "shuffle",
            "train": train,
            **parts,
        }
    )


@pytest.mark.parametrize(
    "parts",
    [
        {},  # 24 pairs in batches of 5
        {"train": {"epochs": 1.3}},
        {"train": {"epochs": 0.1}},
        {"train": {"epochs": 2.5, "accumulate": 2}},
        {"train": {"epochs": 3, "accumulate": 4, "batch_size": 23}},  # a left-over pair joins the batch before it
        {"train": {"epochs": 3, "max_steps": 4}},
        {"data": {"positives": "all"}, "train": {"epochs": 1.5}},
        {"data": {"validation": 0.3}, "train": {"epochs": 2}},  # queries that share a positive stay on one side
    ],
)
def test_preflight_counts_the_steps_of_the_run(tiny_model: Path, tiny_dataset: Path, parts: dict[str, Any]) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, **parts)
    dataset = load_dataset(tiny_dataset, "train")
    query_ids, _ = held_out(dataset, recipe.data.validation, recipe.train.seed)
    plan = Plan(recipe, dataset, query_ids)
    line = preflight(recipe, Path("run"))["steps"]
    assert line == f"about {plan.steps:,} ({recipe.train.epochs:g} epoch(s) of {plan.pairs:,} pairs)"
    assert sizes.batch_count(plan.pairs, recipe.train.batch_size) == plan.batches_per_epoch


def test_preflight_counts_the_negatives_that_the_sampling_draws(tiny_model: Path, tiny_dataset: Path) -> None:
    def line(**sampling: Any) -> str:
        recipe = recipe_of(tiny_model, tiny_dataset, negatives={"mining": "dense", "sampling": sampling})
        return preflight(recipe, Path("run"))["negatives"]

    assert line(name="top") == "about 24 a query: those of the batch, 4 of them its own"
    assert line(name="top", count=7) == "about 39 a query: those of the batch, 7 of them its own"
    assert line(name="window", count=1) == "about 9 a query: those of the batch, 1 of them its own"
    without = recipe_of(tiny_model, tiny_dataset)
    assert preflight(without, Path("run"))["negatives"] == "about 4 a query: those of the batch"


def test_preflight_knows_how_many_tokens_a_chunk_holds_on_the_device(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, train={"chunk_size": 4096}, model={"max_length": 64})
    size = module.model_size(tiny_model, 64)
    gib = {}
    for kind in ("cpu", "cuda"):
        monkeypatch.setattr(module, "device_kind", lambda kind=kind: kind)
        gib[kind] = module._memory(recipe, dataclasses.replace(size, hidden=2**14))
    assert (gib["cpu"].split()[3], gib["cuda"].split()[3]) == ("5.0", "80.0")  # 80 bytes x 2 layers x 2,048 or 32,768


def test_preflight_refuses_a_set_that_is_evaluated_twice(tiny_model: Path, tiny_dataset: Path) -> None:
    names = {"in_domain": [str(tiny_dataset)], "out_of_domain": [f"{tiny_dataset}:test"]}
    with pytest.raises(InputError, match=r"dataset .*tiny \(split test\) is given twice"):
        preflight(recipe_of(tiny_model, tiny_dataset, evaluate=names), Path("run"))
