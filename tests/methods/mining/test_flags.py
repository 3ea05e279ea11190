"""sentence-transformers' flags, as options of a recipe."""

from __future__ import annotations

from typing import Any

import pytest

from embedtune.errors import InputError
from embedtune.recipe import Recipe, check_recipe, plain
from embedtune.recipe.mining_flags import Flags, adjusted


def recipe(**negatives: Any) -> Recipe:
    return check_recipe({"version": 1, "model": {"name": "x"}, "data": {"train": "x"}, "negatives": negatives})


def changed(start: Recipe, **flags: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(adjusted(start, Flags(**flags)).negatives)
    return found


def test_every_flag_has_its_option() -> None:
    found = changed(
        recipe(), num_negatives=5, range_min=10, range_max=50, max_score=0.8, relative_margin=0.05,
        absolute_margin=0.1, sampling_strategy="random", teacher="t",
    )  # fmt: skip
    assert found["mining"] == [{"name": "dense", "depth": 50}]
    assert found["filtering"] == [
        {"name": "positive_ratio", "at_most": 0.95},
        {"name": "positive_margin", "margin": 0.1},
        {"name": "absolute", "below": 0.8},
    ]
    assert found["sampling"] == {"name": "window", "count": 5, "first": 11, "last": 50}
    assert found["teacher"] == "t"


def test_a_flag_replaces_the_recipes_own_option() -> None:
    start = recipe(
        mining=[{"name": "bm25", "depth": 7}],
        filtering=[{"name": "positive_ratio", "at_most": 0.5}, {"name": "whisker"}],
        sampling={"name": "simans", "sharpness": 9.0},
    )
    assert adjusted(start, Flags()) == start
    found = changed(start, relative_margin=0.1, range_max=20, num_negatives=3)
    assert found["mining"] == [{"name": "bm25", "depth": 20}]
    assert found["filtering"] == [{"name": "positive_ratio", "at_most": 0.9}, {"name": "whisker"}]
    assert found["sampling"] == {"name": "simans", "sharpness": 9.0, "count": 3}
    assert changed(start, num_negatives=3, range_min=2)["sampling"] == {
        "name": "window", "count": 3, "first": 3, "last": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_negatives": 0}, r"^--num-negatives: must be at least 1, got 0$"),
        ({"num_negatives": 3, "range_min": -1}, r"^--range-min: must be 0 or more, got -1$"),
        (
            {"num_negatives": 5, "range_min": 8, "range_max": 12},
            r"^--range-max 12: leaves fewer than 5 after the first 8",
        ),
        ({"sampling_strategy": "random"}, r"choose among --num-negatives; give that too$"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        adjusted(recipe(), Flags(**flags))


def test_a_miner_without_a_depth_has_no_range() -> None:
    with pytest.raises(InputError, match=r"^--range-max: mining\.run has no depth; leave the flag out$"):
        adjusted(recipe(mining=[{"name": "run", "path": "x"}]), Flags(range_max=9))
