from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.methods.values import value_problems
from embedtune.recipe import load_recipe, shipped

RunCli = Callable[..., Any]


def test_a_shipped_recipe_is_listed_shown_copied_and_right(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "text/quickstart\t" in run_cli("recipes", "list").stdout
    shown = run_cli("recipes", "show", "text/quickstart").stdout
    copied = run_cli("recipes", "copy", "text/quickstart")
    assert copied.stderr == "written: quickstart.yaml; change it, then: embedtune train quickstart.yaml --dry-run\n"
    assert (tmp_path / "quickstart.yaml").read_text() == shown
    absent = run_cli("recipes", "check", "quickstart.yaml")
    assert absent.exit_code == 2
    assert absent.stderr.splitlines() == [
        "error: quickstart.yaml: names what is not there",
        "  data.train: quickstart/data/functions: no such file or folder",
        "  evaluate.in_domain: quickstart/data/functions: no such file or folder",
        "  evaluate.out_of_domain: quickstart/data/prose: no such file or folder",
    ]
    again = run_cli("recipes", "copy", "text/quickstart")
    assert (again.exit_code, again.stderr) == (2, "error: quickstart.yaml: exists already; choose another file\n")


def test_check_names_all_problems_of_a_recipe_at_once(run_cli: RunCli, tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(
        "version: 1\n"
        "model: {nam: x}\n"
        "data: {train: data, validation: 2.0}\n"
        "loss: {name: infonec}\n"
        "train: {epochs: many, batch_sizes: 4}\n"
    )
    result = run_cli("recipes", "check", recipe)
    assert result.exit_code == 2
    problems = result.stderr.splitlines()[1:]
    assert len(problems) == 5
    for start in ("model.nam: ", "data.validation.share: ", "train.epochs: "):
        assert any(problem.strip().startswith(start) for problem in problems), start
    for nearest in ("'name'", "'infonce'", "'batch_size'"):
        assert any(f"did you mean {nearest}?" in problem for problem in problems), nearest


def test_check_takes_overrides(run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("functions", "prose"):
        (tmp_path / "quickstart/data" / name).mkdir(parents=True)
    run_cli("recipes", "copy", "text/quickstart", tmp_path / "r.yaml")
    assert run_cli("recipes", "check", tmp_path / "r.yaml", "--set", "train.epochs=3").exit_code == 0
    assert run_cli("recipes", "check", tmp_path / "r.yaml", "--set", "train.epochs=0").exit_code == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("loss={name: infonce, temperature: -1}", "loss.infonce.temperature: must be above 0, got -1"),
        ("weighting={name: hcl, temperature: 0.0}", "weighting.hcl.temperature: must be above 0, got 0.0"),
        ("batching={name: length, window: 0}", "batching.length.window: must be at least 1, got 0"),
        ("loss={name: infonce, label_smoothing: 1.0}", "loss.infonce.label_smoothing: expected 0 to below 1, got 1.0"),
    ],
)
def test_check_tries_the_values_inside_a_method(
    change: str, problem: str, run_cli: RunCli, tmp_path: Path, tiny_dataset: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"version: 1\nmodel: {{name: some/model}}\ndata: {{train: {tiny_dataset}}}\n")
    assert run_cli("recipes", "check", recipe).exit_code == 0
    result = run_cli("recipes", "check", recipe, "--set", change)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [f"error: {recipe}: values that a method refuses", f"  {problem}"]


@pytest.mark.parametrize("name", shipped.names())
def test_no_value_of_a_shipped_recipe_is_refused(name: str) -> None:
    recipe = load_recipe(shipped.path(name))
    chosen = [(family, one) for family, one in recipe.chosen() if "path" not in one.options]
    assert value_problems(chosen, recipe.train.batch_size) == []
