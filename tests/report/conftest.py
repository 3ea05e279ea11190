"""A finished run on the tiny model, shared and never written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset

from embedtune.recipe import Recipe, check_recipe
from embedtune.train.run import train


def recipe_for(model: Path, data: Path, other: Path, *, at_most: float = 0.99, **train_settings: Any) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data), "validation": 0.25},
            "negatives": {
                "mining": [{"name": "dense", "depth": 10}],
                "filtering": [{"name": "positive_ratio", "at_most": at_most}],
                "refresh": {"every": 4},
            },
            "train": {"batch_size": 8, "epochs": 4, "learning_rate": 3e-3, "validate_every": 2, **train_settings},
            "evaluate": {"in_domain": [str(data)], "out_of_domain": [str(other)], "measures": ["nDCG@10", "RR@10"]},
        }
    )


@pytest.fixture(scope="session")
def other_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "other", seed=7)


@pytest.fixture(scope="session")
def finished_run(
    tiny_model: Path, tiny_dataset: Path, other_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    recipe = recipe_for(tiny_model, tiny_dataset, other_dataset)
    return train(recipe, tmp_path_factory.mktemp("runs") / "hard").folder
