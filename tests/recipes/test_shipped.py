from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedtune import methods
from embedtune.errors import InputError
from embedtune.recipe import Recipe, dump, load_recipe, shipped
from embedtune.train.ablate import load_grid


def test_every_recipe_is_valid_and_opens_with_what_it_does() -> None:
    assert shipped.names()
    for name in shipped.names():
        load_recipe(shipped.folder() / f"{name}.yaml")
        assert shipped.summary(name), f"{name} needs a first comment line"


def grid_cells() -> Iterator[tuple[Path, str, Recipe]]:
    """Every cell of every grid, as the recipe it makes."""
    for grid in sorted(shipped.folder().rglob(f"*{shipped.GRID}")):
        recipe = grid.with_name(grid.name.removesuffix(shipped.GRID) + ".yaml")
        for cell, changes in load_grid(grid).cells.items():
            yield grid, cell, load_recipe(recipe, [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def test_every_cell_of_a_grid_is_a_recipe_of_its_own() -> None:
    found: dict[Path, list[str]] = {}
    for grid, _, recipe in grid_cells():
        found.setdefault(grid, []).append(dump(recipe))
    assert len(found) >= 3
    assert all(len(set(cells)) == len(cells) > 1 for cells in found.values())


def test_every_method_stands_in_a_recipe_or_a_grid() -> None:
    recipes = [load_recipe(shipped.path(name)) for name in shipped.names()] + [recipe for *_, recipe in grid_cells()]
    # The files' own text as well: one method is shown in a comment, since it needs another trainer's file.
    shown = "\n".join([*map(dump, recipes), *map(shipped.read, shipped.names())])
    for family in methods.FAMILIES:
        for name in methods.names(family):
            assert re.search(rf"name: {name}\b", shown), f"no recipe shows {family} {name}"


def test_copy_is_the_recipe_and_overwrites_nothing(tmp_path: Path) -> None:
    name = shipped.names()[0]
    assert shipped.copy(name, tmp_path / "mine.yaml").read_text() == shipped.read(name)
    into = shipped.copy(f"{name}.yaml", tmp_path)
    assert into == tmp_path / f"{name.rpartition('/')[2]}.yaml"
    with pytest.raises(InputError, match=r"mine\.yaml: exists already"):
        shipped.copy(name, tmp_path / "mine.yaml")


def test_scripts_and_grids_are_listed_and_copied_and_those_of_the_checkout_are_not(tmp_path: Path) -> None:
    others = shipped.others()
    assert {"ci/train-and-guard.sh", "ci/github-actions.yaml", "methods/ablation.grid.yaml"} < set(others)
    for name in others:
        assert shipped.summary(name), f"{name} needs a first comment line"
        assert not shipped.is_recipe(name)
    workflow = tmp_path / ".github" / "workflows" / "retrieval.yaml"
    assert shipped.copy("ci/github-actions", workflow) == workflow
    assert workflow.read_text() == (shipped.folder() / "ci" / "github-actions.yaml").read_text()
    assert shipped.copy("ci/train-and-guard.sh", tmp_path).name == "train-and-guard.sh"
    with pytest.raises(InputError, match=r"unknown recipe 'ci/quickstart\.sh'"):
        shipped.copy("ci/quickstart.sh", tmp_path)  # it installs the checkout that it stands in


def test_an_unknown_recipe_names_the_nearest() -> None:
    name = shipped.names()[0]
    with pytest.raises(InputError, match=f"unknown recipe '{name}x': did you mean '{name}'"):
        shipped.read(f"{name}x")
