"""Every verb that writes: its output never damages what stands there, unless it is the same verb's earlier result."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, write_dataset

Run = Callable[..., Result]
Arguments = Callable[[dict[str, Path], Path], list[str | Path]]
Place = Callable[[dict[str, Path], Path], Path]

FOLDER_VERBS: dict[str, Arguments] = {
    "eval": lambda w, t: ["eval", w["model"], "--data", w["data"], "--output", t, "--overwrite"],
    "eval, a label": lambda w, t: [
        *("eval", "--run", w["run"], "--data", named(w, t), "--output", absolute(t).parent, "--overwrite"),
    ],
    "encode": lambda w, t: ["encode", w["data"], "--model", w["model"], "--output", t, "--overwrite"],
    "index": lambda w, t: ["index", w["data"], "--model", w["model"], "--output", t, "--overwrite"],
    "index, added": lambda w, t: ["index", w["data"], "--output", t, "--add", "--replace"],
    "merge": lambda w, t: ["merge", w["model"], w["model"], "--alpha", "0.5", "--output", t, "--overwrite"],
    "export": lambda w, t: ["export", w["model"], "--output", t, "--overwrite"],
    "data convert": lambda w, t: ["data", "convert", w["pairs"], t, "--overwrite"],
    "data split": lambda w, t: ["data", "split", w["data"], "--validation", "0.2", "--output", t, "--overwrite"],
    "train": lambda w, t: ["train", w["recipe"], "--output", t, "--overwrite"],
    "train, resumed": lambda w, t: ["train", w["recipe"], "--output", t, "--resume"],
    "ablate": lambda w, t: ["ablate", w["recipe"], "--grid", w["grid"], "--seeds", "1", "--output", t],
    "quickstart": lambda w, t: ["quickstart", "--output", t, "--overwrite"],
    "methods new": lambda w, t: ["methods", "new", "weighting", "mine", "--output", t],
}
FILE_VERBS: dict[str, Arguments] = {
    "mine": lambda w, t: ["mine", w["data"], "--model", w["model"], "--output", t, "--overwrite"],
    "judge": lambda w, t: ["judge", w["mined"], "--model", w["model"], "--output", t, "--overwrite"],
    "search": lambda w, t: ["search", w["index"], "--queries", w["data"], "--output", t, "--overwrite"],
    "search, a sheet": lambda w, t: ["search", w["index"], "river", "--sheet", t, "--overwrite"],
    "audit, a page": lambda w, t: ["audit", w["mined"], "--html", t, "--overwrite"],
    "audit, a sheet": lambda w, t: ["audit", w["mined"], "--sheet", t, "--overwrite"],
    "audit, relabelled": lambda w, t: ["audit", w["mined"], "--relabel", t, "--above", "0"],
    "report": lambda w, t: ["report", w["trained"], "--output", t, "--overwrite"],
    "report, markdown": lambda w, t: ["report", w["trained"], "--format", "md", "--output", t, "--overwrite"],
    "recipes copy": lambda w, t: ["recipes", "copy", "text/scifact", t],
}


def link_to(w: dict[str, Path], target: Path) -> Path:
    link = w["places"] / "link"
    link.symlink_to(target)
    return link


FOLDERS: dict[str, Place] = {
    "a dataset": lambda w, _: write_dataset(w["places"] / "precious"),
    "a dataset without queries": lambda w, _: corpus_alone(w["places"] / "precious"),
    "a model": lambda w, _: copied(w, "model"),
    "a run": lambda w, _: copied(w, "trained"),
    "an index": lambda w, _: copied(w, "index"),
    "an evaluation": lambda w, _: copied(w, "evaluated"),
    "an export": lambda w, _: copied(w, "exported"),
    "notes": lambda w, _: notes(w["places"] / "notes"),
    "a result with notes in it": lambda w, _: notes(copied(w, "evaluated")),
    "an export with notes in it": lambda w, _: notes(copied(w, "exported")),
    "an export with notes deep in it": lambda w, _: notes(copied(w, "exported") / "1_Pooling" / "mine").parents[1],
    "an index with notes in it": lambda w, _: notes(copied(w, "index")),
    "a run with notes in it": lambda w, _: notes(copied(w, "trained")),
    "the home folder": lambda w, home: home,
    "the current folder": lambda w, _: Path(),
    "a folder above": lambda w, _: Path(".."),
    "a link to a dataset": lambda w, _: link_to(w, write_dataset(w["places"] / "precious")),
    "a link to an evaluation": lambda w, _: link_to(w, copied(w, "evaluated")),
    "a link to nothing": lambda w, _: link_to(w, w["places"] / "nothing"),
    "a file": lambda w, _: notes(w["places"] / "notes") / "thesis.tex",
    "below a file": lambda w, _: notes(w["places"] / "notes") / "thesis.tex" / "x",
    "a read-only place": lambda w, _: Path("/proc/embedtune"),
}
FILES: dict[str, Place] = {
    "a corpus": lambda w, _: write_dataset(w["places"] / "precious") / "corpus.jsonl",
    "beside a corpus": lambda w, _: write_dataset(w["places"] / "precious") / "corpus.run",
    "judgements": lambda w, _: write_dataset(w["places"] / "precious") / "qrels" / "train.tsv",
    "a model's configuration": lambda w, _: copied(w, "model") / "config.json",
    "a picture": lambda w, _: picture(w["places"] / "photo.png"),
    "an empty run of a recipe": lambda w, _: notes(w["places"] / "notes") / "thesis.tex",
    "a dataset folder": lambda w, _: write_dataset(w["places"] / "precious"),
    "the home folder": lambda w, home: home,
    "a link to a run": lambda w, _: link_to(w, copied(w, "run")),
    "a link to nothing": lambda w, _: link_to(w, w["places"] / "nothing"),
    "below a file": lambda w, _: notes(w["places"] / "notes") / "thesis.tex" / "x",
    "a read-only place": lambda w, _: Path("/proc/embedtune.run"),
}
# What a verb may do at a place: its own earlier result, or a folder that it writes results into beside other things.
ALLOWED = {
    ("eval", "the home folder"),
    ("eval", "the current folder"),
    ("eval", "a folder above"),
    ("eval", "notes"),
    ("ablate", "notes"),
    *(("methods new", place) for place in ("the home folder", "the current folder", "a folder above", "notes")),
    ("eval, a label", "an evaluation"),
    ("export", "an export"),
    ("index", "an index"),
    ("index, added", "an index"),
    ("train", "a run"),
    ("train, resumed", "a run"),
    ("train, resumed", "a run with notes in it"),
}


def absolute(target: Path) -> Path:
    return target if target.is_absolute() else target.resolve()


def named(w: dict[str, Path], target: Path) -> Path:
    """A dataset of the target's name, so that its results go there."""
    folder = w["made"] / "named" / absolute(target).name
    if not folder.exists():
        write_dataset(folder)
    return folder


def copied(w: dict[str, Path], name: str) -> Path:
    target = w["places"] / w[name].name
    if w[name].is_dir():
        return Path(shutil.copytree(w[name], target))
    return Path(shutil.copyfile(w[name], target))


def corpus_alone(folder: Path) -> Path:
    shutil.rmtree(write_dataset(folder) / "qrels")
    (folder / "queries.jsonl").unlink()
    return folder


def notes(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "thesis.tex").write_text("years of work")
    return folder


def picture(path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(path)
    return path


def contents(root: Path) -> dict[str, Any]:
    """Every path below the root: a file's bytes, a link's target, None for a folder."""
    return {
        str(path.relative_to(root)): path.readlink()
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in sorted(root.rglob("*"))
    }


def refused(result: Result) -> None:
    """One line at the end, behind what `train` says before it begins."""
    lines = [line for line in result.stderr.splitlines() if not re.match(r" *\w+  \S", line)]
    assert (result.exit_code, len(lines)) == (2, 1), result.stderr
    assert lines[0].startswith("error: ")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """Inputs, and one result of each kind."""
    from embedtune_cli.app import run

    root = tmp_path_factory.mktemp("made")
    data = write_dataset(root / "tiny")
    w = {"made": root, "data": data, "model": tiny_model, "pairs": root / "pairs.jsonl", "grid": root / "grid.yaml"}
    w["pairs"].write_text("".join(json.dumps({"query": f"q {n}", "positive": f"d {n}"}) + "\n" for n in range(9)))
    w["recipe"] = root / "recipe.yaml"
    w["recipe"].write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {data}, validation: 0.25}}\n"
        "train: {batch_size: 8, max_steps: 1, validate_every: 1}\n"
        f"evaluate: {{in_domain: [{data}], measures: [nDCG@10]}}\n"
    )
    w["grid"].write_text("cells: {plain: {}, faster: {train.learning_rate: 1e-3}}\n")
    results = {"mined": "mined.run", "index": "indexed", "run": "found.run", "trained": "trained"}
    w |= {name: root / file for name, file in results.items()}
    w |= {"evaluated": root / "results" / "tiny", "exported": root / "exported"}
    commands: list[list[str | Path]] = [
        ["mine", data, "--model", tiny_model, "--output", w["mined"], "--num-negatives", "2"],
        ["index", data, "--model", tiny_model, "--output", w["index"]],
        ["search", w["index"], "--queries", data, "--output", w["run"]],
        ["train", w["recipe"], "--output", w["trained"]],
        ["eval", "--run", w["run"], "--data", data, "--output", root / "results"],
        ["export", tiny_model, "--output", w["exported"]],
    ]
    for args in commands:
        assert run([str(arg) for arg in args]) == 0, args
    return w


@pytest.fixture
def world(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    places, home = tmp_path / "places", notes(tmp_path / "home")
    places.mkdir()
    notes(notes(tmp_path / "above") / "current")
    monkeypatch.chdir(tmp_path / "above" / "current")
    monkeypatch.setenv("HOME", str(home))
    return {**made, "places": places, "home": home}


@pytest.mark.parametrize("place", FOLDERS)
@pytest.mark.parametrize("verb", FOLDER_VERBS)
def test_a_folder_is_replaced_by_its_own_verb_only(
    world: dict[str, Path], tmp_path: Path, run_cli: Run, verb: str, place: str
) -> None:
    if place == "a read-only place" and not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    if verb == "ablate" and place in ("the home folder", "the current folder", "a folder above"):
        pytest.skip("trains in it, as in `notes`")
    target = FOLDERS[place](world, world["home"])
    args = FOLDER_VERBS[verb](world, target)
    before, made = contents(tmp_path), contents(world["made"])
    result = run_cli(*args)
    if (verb, place) in ALLOWED:
        assert result.exit_code == 0, result.stderr
        if place not in ("an evaluation", "an export", "an index", "a run"):
            after = contents(tmp_path)
            assert {name: after.get(name) for name in before} == before
    else:
        refused(result)
        assert contents(tmp_path) == before
    assert contents(world["made"]) == made


@pytest.mark.parametrize("place", FILES)
@pytest.mark.parametrize("verb", FILE_VERBS)
def test_a_file_is_replaced_by_its_own_verb_only(
    world: dict[str, Path], tmp_path: Path, run_cli: Run, verb: str, place: str
) -> None:
    if place == "a read-only place" and not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    target = FILES[place](world, world["home"])
    before = contents(tmp_path)
    result = run_cli(*FILE_VERBS[verb](world, target))
    after = contents(tmp_path)
    if place == "beside a corpus" and verb != "mine":  # nothing stands there
        assert {name: after.get(name) for name in before} == before
    elif (verb, place) == ("recipes copy", "a dataset folder") or (verb, place) == ("recipes copy", "the home folder"):
        assert {name: after.get(name) for name in before} == before  # it is copied into the folder
    else:
        refused(result)
        assert after == before
