"""Conan's rule: a negative that has become easy gives way to the next of its query's candidates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from embedtune.errors import InputError
from embedtune.recipe import Recipe, Replace, check_recipe
from embedtune.train.negatives import MinedNegatives, Ranked, ReplacedNegatives, became_easy
from embedtune.train.run import train
from embedtune.types import Scores


@pytest.mark.parametrize(
    ("initial", "now", "expected"),
    [
        (0.9, 0.78, True),  # 1.15 * 0.78 = 0.897
        (0.9, 0.79, False),  # 0.9085
        (0.95, 0.81, False),  # fallen, but still hard
        (0.9, float("nan"), False),
    ],
)
def test_the_first_versions_rule(initial: float, now: float, expected: bool) -> None:
    found = became_easy(torch.tensor([initial]), torch.tensor([now]), factor=1.15, below=0.8, easy=None)
    assert found.item() is expected


@pytest.mark.parametrize(
    ("initial", "now", "expected"),
    [(0.9, 0.74, False), (0.9, 0.69, True), (0.35, 0.5, True), (0.35, float("nan"), False)],  # 0.888, but at least 0.7
)
def test_the_second_versions_rule(initial: float, now: float, expected: bool) -> None:
    found = became_easy(torch.tensor([initial]), torch.tensor([now]), factor=1.2, below=0.7, easy=0.4)
    assert found.item() is expected


def recipe_of(model: Path | str, data: Path | str, **replace: object) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data)},
            "negatives": {
                "mining": {"name": "dense", "depth": 20},
                "sampling": {"name": "top", "count": 2},
                "replace": replace,
            },
            "train": {"batch_size": 8, "epochs": 4, "learning_rate": 3e-3, "checkpoint_every": 2},
        }
    )


def seen(scores: dict[str, float]) -> Scores:
    """One query's documents with these scores."""
    student = torch.tensor([list(scores.values())])
    nothing = torch.zeros_like(student, dtype=torch.bool)
    return Scores(student=student, positive=nothing, candidate=~nothing, query_ids=("q",), doc_ids=tuple(scores))


def test_windows_of_candidates_by_hand() -> None:
    ranked = Ranked([f"d{n}" for n in range(9)], torch.linspace(0.9, 0.1, 9))
    rule = Replace(every=1, start=4)
    held = ReplacedNegatives(MinedNegatives(recipe_of("m", "d"), {"q": ranked}), rule)
    assert held.draw(["q", "unknown"], 0) == {"q": ["d0", "d1"]}
    assert held.observe(seen({"d0": 0.9, "d1": 0.8, "p": 0.9}), 0) == {"replaced": 0}  # the scores that they come with
    assert held.observe(seen({"d0": 0.7, "d1": 0.79}), 1) == {"replaced": 1}
    assert held.draw(["q"], 3) == {"q": ["d4", "d1"]}  # the first time, at place 0: candidate 4 + 0
    assert held.observe(seen({"d4": 0.6, "d1": 0.6}), 2) == {"replaced": 1}
    assert held.draw(["q"], 3) == {"q": ["d4", "d7"]}  # the second time, at place 1: 4 + 2 + 1
    assert held.observe(seen({"d4": 0.3, "d7": 0.2}), 3) == {"replaced": 1}
    assert held.draw(["q"], 3) == {"q": ["d8", "d7"]}  # the third time, at place 0: 4 + 4 + 0
    assert held.observe(seen({"d8": 0.5, "d7": 0.1}), 4) == {"replaced": 0}  # there is no candidate 4 + 6 + 1
    assert held.draw(["q"], 3) == {"q": ["d8", "d7"]}


def test_it_waits_between_two_looks() -> None:
    ranked = Ranked([f"d{n}" for n in range(9)], torch.linspace(0.9, 0.1, 9))
    held = ReplacedNegatives(MinedNegatives(recipe_of("m", "d"), {"q": ranked}), Replace(every=10, start=4))
    held.observe(seen({"d0": 0.9, "d1": 0.9}), 0)
    assert held.observe(seen({"d0": 0.1, "d1": 0.1}), 9) == {"replaced": 0}
    assert held.observe(seen({"d0": 0.1, "d1": 0.1}), 10) == {"replaced": 2}


def test_a_run_replaces_and_resumes_exactly(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, every=1, fallen=1.0, start=2)
    whole = train(recipe, tmp_path / "whole")
    events = [json.loads(line) for line in (whole.folder / "log.jsonl").read_text().splitlines()]
    assert sum(event["replaced"] for event in events if event["event"] == "step") > 0
    checkpoints = sorted((whole.folder / "checkpoints").iterdir())
    assert load_file(checkpoints[-1] / "negatives.safetensors")["times"].sum() > 0
    for path in checkpoints[1:]:
        path.rename(tmp_path / path.name)  # as if it had been killed after the checkpoint before
    (whole.folder / "summary.json").unlink()
    expected = load_file(whole.model / "model.safetensors")
    resumed = load_file(train(recipe, whole.folder, resume=True).model / "model.safetensors")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_what_excludes_it_is_said() -> None:
    with pytest.raises(InputError, match=r"negatives.replace: has no effect without negatives.mining"):
        check_recipe({"version": 1, "model": {"name": "m"}, "data": {"train": "d"}, "negatives": {"replace": {}}})
    negatives = {"mining": "dense", "replace": {}, "refresh": {"every": 5}}
    with pytest.raises(
        InputError, match=r"negatives.replace: not with negatives.refresh, which mines its candidates again"
    ):
        check_recipe({"version": 1, "model": {"name": "m"}, "data": {"train": "d"}, "negatives": negatives})
