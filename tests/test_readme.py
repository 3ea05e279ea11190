"""The README's recipe, commands and Python lines work as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from embedtune.recipe import check_recipe
from embedtune.recipe.strict_yaml import parse
from embedtune_cli.app import app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_its_recipe_is_right() -> None:
    recipe, *additions = (parse(block, "README.md") for block in blocks("yaml"))
    assert check_recipe(recipe).data.train == "my-data"
    checked = [check_recipe(recipe | addition) for addition in additions]  # each replaces a part of the first
    assert checked[0].negatives.mining[1].name == "bm25"
    assert checked[1].evaluate.guard is not None


@pytest.mark.parametrize(
    "line", [line for block in blocks("bash") for line in block.splitlines() if "embedtune " in line]
)
def test_its_commands_parse(line: str) -> None:
    _, *args = shlex.split(line, comments=True)
    command: Any = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[args.pop(0)]
    command.make_context(command.name, args)


def test_it_names_every_command() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"embedtune {name}" in README, name


def test_its_python_lines_run(
    tiny_model: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-data").symlink_to(tiny_dataset)
    (tmp_path / "my-recipe.yaml").write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: my-data}}\n"
        "train: {batch_size: 4, max_steps: 1}\nevaluate: {in_domain: [my-data]}\n"
    )
    (code,) = blocks("python")
    exec(code, {})  # our own lines
    assert "{'nDCG@10': 0." in capsys.readouterr().out
