"""`--overwrite`: the earlier run is removed once a step is done, never before, and nothing but a run is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.errors import InputError
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import earlier
from embedtune.train import folder as run_folder
from embedtune.train.run import train


def recipe_of(model: Path | str, data: Path | str, **parts: Any) -> Recipe:
    settings = {"batch_size": 8, "max_steps": 1, **parts.pop("train", {})}
    block = {"name": str(model), **parts.pop("model", {})}
    return check_recipe(
        {
            "version": 1,
            "model": block,
            "data": {"train": str(data), **parts.pop("data", {})},
            "train": settings,
            **parts,
        }
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a run with its bytes, the lock's apart."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def run(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> Path:
    return train(recipe_of(tiny_model, tiny_dataset), tmp_path / "run").folder


def test_a_run_is_not_replaced_by_what_it_is_made_from(run: Path, tiny_model: Path, tiny_dataset: Path) -> None:
    before, data = content(run), run / "negatives"
    inputs = {
        "model.name": recipe_of(run / "model", tiny_dataset),
        "data.train": recipe_of(tiny_model, f"reversed:{data}"),
        "evaluate.out_of_domain": recipe_of(
            tiny_model, tiny_dataset, evaluate={"out_of_domain": [f"judged:{data}:test"]}
        ),
        "negatives.teacher": recipe_of(
            tiny_model, tiny_dataset, negatives={"mining": "dense", "teacher": f"cross-encoder:{run / 'model'}"}
        ),
        "stay_close.distill.data": recipe_of(tiny_model, tiny_dataset, stay_close={"distill": {"data": str(data)}}),
        "mining.run.path": recipe_of(
            tiny_model, tiny_dataset, negatives={"mining": {"name": "run", "path": str(run / "recipe.yaml")}}
        ),
    }
    data.mkdir()
    for key, recipe in inputs.items():
        with pytest.raises(InputError, match=f"run: --overwrite would remove .*, which {key} names; choose another"):
            train(recipe, run, overwrite=True)
        assert content(run) == before


def test_a_refused_run_leaves_the_earlier_one_whole(run: Path, tiny_model: Path, tiny_dataset: Path) -> None:
    before = content(run)
    mining = {"mining": {"name": "dense", "depth": 20}}
    wrong = [
        recipe_of("no-such-model-folder/x/y", tiny_dataset),
        recipe_of(tiny_model, tiny_dataset, matryoshka=[4096]),
        recipe_of(tiny_model, tiny_dataset, stay_close={"freeze_layers": 99}, negatives=mining),
        recipe_of(tiny_model, tiny_dataset, evaluate={"in_domain": [str(tiny_dataset)] * 2}),
        recipe_of(tiny_model, tiny_dataset / "absent"),
    ]
    for recipe in wrong:
        with pytest.raises(InputError):
            train(recipe, run, overwrite=True)
        assert content(run) == before
        assert not [path.name for path in run.iterdir() if path.name.startswith(".earlier")]


def test_the_earlier_run_is_there_until_a_step_is_done(run: Path, tiny_model: Path, tiny_dataset: Path) -> None:
    at: dict[str, bool] = {}

    def note(event: dict[str, Any]) -> None:
        at.setdefault(
            event["name"] if event["event"] == "phase" else event["event"],
            (run / earlier.EARLIER / "summary.json").exists(),
        )

    recipe = recipe_of(tiny_model, tiny_dataset, evaluate={"in_domain": [str(tiny_dataset)]})
    train(recipe, run, overwrite=True, on_event=note)
    assert at.pop("train")
    assert at.pop("step")
    assert not list(at.values())[-1], at
    assert not (run / earlier.EARLIER).exists()
    assert (run / "summary.json").exists()


def killed_before_training(run: Path, recipe: Recipe) -> None:
    run_folder.claim(run, recipe, resume=False, overwrite=True)
    (run / "log.jsonl").write_text("of the new run\n")


def test_after_a_kill_the_next_start_puts_the_earlier_run_back(run: Path, tiny_model: Path, tiny_dataset: Path) -> None:
    before, recipe = content(run), recipe_of(tiny_model, tiny_dataset, train={"seed": 1})
    killed_before_training(run, recipe)
    with pytest.raises(InputError, match="exists already"):
        train(recipe, run)
    assert content(run) == before
    killed_before_training(run, recipe)
    with pytest.raises(InputError):
        train(recipe_of("no-such-model-folder/x/y", tiny_dataset), run, overwrite=True)
    assert content(run) == before
    killed_before_training(run, recipe)
    assert not train(recipe, run, resume=True).already_finished  # it goes on with the new run
    assert not (run / earlier.EARLIER).exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renames", range(4))
@pytest.mark.parametrize("move", [earlier.set_aside, earlier.put_back])
def test_a_kill_while_it_is_moved_loses_nothing(
    move: Callable[[Path], None], renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("recipe.yaml", "summary.json", "model/weights"):
        (tmp_path / name).write_text(name)
    before = content(tmp_path)
    if move is earlier.put_back:
        earlier.set_aside(tmp_path)
        for name in ("recipe.yaml", "log.jsonl"):
            (tmp_path / name).write_text("new")
    done: list[Path] = []
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(Killed):
            move(tmp_path)
    earlier.put_back(tmp_path)
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "recipe.yaml", "summary.json"]


@pytest.mark.parametrize("names", [["model"], [".lock", "model"], []])
def test_a_project_with_a_recipe_is_no_run(
    names: list[str], tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "recipe.yaml").write_text("version: 1\n")
    for name in names:
        (project / name).mkdir()
    for overwrite in (True, False):
        with pytest.raises(InputError, match=r"holds a recipe\.yaml and no environment\.json, so it is no run; choose"):
            train(recipe_of(tiny_model, tiny_dataset), project, overwrite=overwrite)
        assert sorted(path.name for path in project.iterdir()) == sorted([*names, "recipe.yaml"])


def test_a_run_that_was_killed_early_is_one(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "log.jsonl", ".lock"):
        (tmp_path / name).write_text("version: 1\n")
    (tmp_path / "negatives").mkdir()
    assert train(recipe_of(tiny_model, tiny_dataset), tmp_path, overwrite=True).steps == 1
