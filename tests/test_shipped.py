from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedtune import shipped
from embedtune.ablate import load_grid
from embedtune.errors import InputError
from embedtune.recipe import load_recipe


def test_every_recipe_is_valid_and_opens_with_what_it_does() -> None:
    assert shipped.names()
    for name in shipped.names():
        load_recipe(shipped.folder() / f"{name}.yaml")
        assert shipped.summary(name), f"{name} needs a first comment line"


def test_every_grid_changes_the_recipe_beside_it() -> None:
    grids = sorted(shipped.folder().rglob(f"*{shipped.GRID}"))
    assert grids
    for grid in grids:
        recipe = grid.with_name(grid.name.removesuffix(shipped.GRID) + ".yaml")
        for cell, changes in load_grid(grid).cells.items():
            load_recipe(recipe, [f"{key}={json.dumps(value)}" for key, value in changes.items()])
            assert cell


def test_copy_is_the_recipe_and_overwrites_nothing(tmp_path: Path) -> None:
    name = shipped.names()[0]
    assert shipped.copy(name, tmp_path / "mine.yaml").read_text() == shipped.read(name)
    into = shipped.copy(f"{name}.yaml", tmp_path)
    assert into == tmp_path / f"{name.rpartition('/')[2]}.yaml"
    with pytest.raises(InputError, match=r"mine\.yaml: exists already"):
        shipped.copy(name, tmp_path / "mine.yaml")


def test_an_unknown_recipe_names_the_nearest() -> None:
    name = shipped.names()[0]
    with pytest.raises(InputError, match=f"unknown recipe '{name}x': did you mean '{name}'"):
        shipped.read(f"{name}x")
