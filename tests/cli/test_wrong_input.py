"""Wrong input of each kind, through every verb that reads it: one plain line, exit code 2, and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedtune_cli.app import run as run_app

RunCli = Callable[..., Any]

RECIPE = """version: 1
model: {{name: {model}}}
data: {{train: {data}, split: train}}
negatives:
  mining: [{{name: dense, depth: 10}}]
  filtering: [{{name: positive_ratio, at_most: 0.95}}]
  sampling: {{name: top, count: 2}}
train: {{max_steps: 1, batch_size: 8}}
evaluate: {{in_domain: [{data}]}}
"""
BINARY = bytes(range(256)) * 4
DAMAGE = {
    "absent": None,
    "empty": b"",
    "binary": BINARY,
    "cut short": b'{"a": ',
    "a list": b"[]\n",
    "an object": b"{}\n",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_dataset: Path) -> Path:
    """A folder with data, a model, a recipe, a mining, an index, a run and results, none of them ever written to."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_dataset, folder / "data")
    shutil.copytree(tiny_model, folder / "model")
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "model", data=folder / "data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "mine recipe.yaml --output mined.run",
            "index data --model model --output index",
            "train recipe.yaml --output run",
            "eval model --data data --output results",
        ):
            assert run_app(line.split()) == 0, line
    return folder


@pytest.fixture
def wrong(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: links to what was made, and inputs of each wrong kind. Nothing in it may change."""
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for suffix in ("", ".yaml", ".jsonl", ".csv", ".parquet", ".run", ".json"):
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        (tmp_path / f"binary{suffix}").write_bytes(BINARY)
    for name in ("folder", "folder.yaml", "folder.jsonl", "folder.run"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    yield tmp_path
    assert sorted(tmp_path.iterdir()) == before


def refuse(run_cli: RunCli, line: str, *more: str | Path) -> str:
    """Runs a command line that must be refused in one plain line; returns that line."""
    result = run_cli(*line.split(" "), *more)
    shown = f"embedtune {line} {' '.join(map(str, more))}\n{result.stderr}"
    assert result.exit_code == 2, shown
    assert result.stdout == "", shown
    assert len(result.stderr.splitlines()) == 1, shown
    assert result.stderr.startswith("error: "), shown
    for sign in ("Errno", "Error:", "Traceback", "object has no attribute"):
        assert sign not in result.stderr, shown
    return str(result.stderr)


DATASETS = [
    "absent",
    "folder",
    "empty",
    "binary",
    "empty.jsonl",
    "binary.jsonl",
    "binary.csv",
    "binary.parquet",
    "model",
    "data:absent",
    "data:",
    "recipe.yaml",
]
OF_DATASETS = [
    "data split {} --test 0.2 --output out",
    "encode {} --model model --output out",
    "index {} --model model --output out",
    "eval model --data {}",
    "eval --run mined.run --data {}",
    "mine {} --model model --output out.run",
    "search index --output out.run --queries {}",
    "merge model run --output out --choose-on {}",
    "audit mined.run --data {}",
    "judge mined.run --model model --output out.run --data {}",
    "compare mined.run mined.run --data {}",
    "train recipe.yaml --output out --set data.train={}",
]


@pytest.mark.parametrize("line", OF_DATASETS)
@pytest.mark.usefixtures("wrong")
def test_a_dataset_that_is_none(line: str, run_cli: RunCli) -> None:
    for name in DATASETS:
        if line.startswith("train") and name in ("absent", "data:"):
            continue
        if line.startswith("mine") and name == "recipe.yaml":
            continue  # a recipe is what it takes too
        refuse(run_cli, line.format(name))


MODELS = [
    "absent",
    "",
    "folder",
    "empty",
    "binary",
    "data",
    "index",
    "a/b/c/d",
    "package:absent_package/model",
    "package:",
]
OF_MODELS = [
    "encode data --output out --model {}",
    "eval {} --data data",
    "eval model --data data --baseline {}",
    "index data --output out --model {}",
    "search index river --model {}",
    "export {} --output out",
    "merge {} run --alpha 0.5 --output out",
    "merge model {} --alpha 0.5 --output out",
    "mine data --output out.run --model {}",
    "judge mined.run --output out.run --model {}",
    "judge mined.run --output out.run --model cross-encoder:{}",
]


@pytest.mark.parametrize("line", OF_MODELS)
@pytest.mark.usefixtures("wrong")
def test_a_model_that_is_none(line: str, run_cli: RunCli) -> None:
    for name in MODELS:
        refuse(run_cli, line.format(name))


RECIPES = [
    "absent.yaml",
    "folder.yaml",
    "empty.yaml",
    "binary.yaml",
    "data",
    "model",
    "control.yaml",
    "list.yaml",
    "scalar.yaml",
    "cut.yaml",
    "deep.yaml",
    "date.yaml",
]
OF_RECIPES = [
    "train {} --output out",
    "recipes check {}",
    "ablate {} --grid grid.yaml --output out",
    "ablate recipe.yaml --output out --grid {}",
]


@pytest.mark.parametrize("line", OF_RECIPES)
def test_a_recipe_that_is_none(
    line: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: RunCli
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for name, text in {
        "grid": "base: {train.epochs: 1}\ncells: {plain: {}}\n",
        "control": "version: 1\nmodel: {name: \x01}\n",
        "list": "- 1\n",
        "scalar": "5\n",
        "cut": "model: {name: \n",
        "deep": "[" * 5000,
        "date": "version: 2020-99-99\n",
        "empty": "",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "binary.yaml").write_bytes(BINARY)
    (tmp_path / "folder.yaml").mkdir()
    for name in RECIPES:
        refuse(run_cli, line.format(name))
    assert not (tmp_path / "out").exists()


RUNS = [
    "absent",
    "folder",
    "empty",
    "binary",
    "absent.run",
    "folder.run",
    "empty.run",
    "binary.run",
    "data",
    "recipe.yaml",
]
OF_RUNS = [
    "audit {}",
    "judge {} --model model --output out.run",
    "audit {} --relabel out.tsv --above 0.1",
    "audit {} --threshold positive_ratio=0.9",
    "compare results {}",
    "compare {} mined.run --data data",
    "audit mined.run --relabel out.tsv --above 0.1 --judge {}",
    "report {} --output out.html",
    "search {} river",
    "eval --data data --run {}",
]


@pytest.mark.parametrize("line", OF_RUNS)
@pytest.mark.usefixtures("wrong")
def test_a_run_or_an_index_that_is_none(line: str, run_cli: RunCli) -> None:
    for name in RUNS:
        if name == "empty.run" and ("--run" in line or "compare" in line or "--judge" in line):
            continue  # a run of no results is a run
        refuse(run_cli, line.format(name))


@pytest.mark.parametrize("line", ["data check {}", "data convert {} --output out"])
@pytest.mark.usefixtures("wrong")
def test_a_source_of_data_that_is_none(line: str, run_cli: RunCli) -> None:
    names = ["absent", "empty", "binary", "binary.parquet", "hf://a/b", "hf://"]
    for name in names if "check" not in line else ["absent", "empty", "recipe.yaml", "data:test"]:
        refuse(run_cli, line.format(name))


def damaged(whole: Path, file: str, content: bytes | None, folder: Path) -> Path:
    """A copy of a folder with one file replaced by other content, or without it."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    target = copy / file
    target.unlink()
    if content is not None:
        target.write_bytes(content)
    return copy


@pytest.mark.parametrize("file", ["manifest.json", "ids.json", "offsets.npy", "index.faiss", "documents.jsonl"])
def test_a_damaged_index(file: str, made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for content in DAMAGE.values():
        refuse(run_cli, "search", damaged(made / "index", file, content, tmp_path), "river")


MODEL_DAMAGE = [
    (file, name)
    for file in (
        "config.json",
        "modules.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
        "tokenizer.json",
    )
    for name in DAMAGE
]
READABLE = {  # these files may be absent or lack every key: sentence-transformers has defaults
    ("config_sentence_transformers.json", "absent"),
    ("config_sentence_transformers.json", "an object"),
    ("modules.json", "absent"),
}


@pytest.mark.parametrize(("file", "damage"), [pair for pair in MODEL_DAMAGE if pair not in READABLE])
def test_a_damaged_model(file: str, damage: str, made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    model = damaged(made / "model", file, DAMAGE[damage], tmp_path)
    assert str(model) in refuse(run_cli, "encode", made / "data", "--model", model, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_plan_for_a_damaged_model(file: str, made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name in ("binary", "cut short", "a list"):
        model = damaged(made / "model", file, DAMAGE[name], tmp_path)
        refuse(run_cli, "train", made / "recipe.yaml", "--dry-run", "--set", f"model.name={model}")


def test_a_run_with_a_damaged_environment_is_not_resumed(made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name in ("empty", "binary", "cut short", "a list"):
        folder = damaged(made / "run", "environment.json", DAMAGE[name], tmp_path)
        (folder / "summary.json").unlink()
        result = run_cli("train", made / "recipe.yaml", "--output", folder, "--resume")
        assert result.exit_code == 2, result.stderr
        assert f"error: {folder / 'environment.json'}" in result.stderr
        assert "unexpected" not in result.stderr


@pytest.mark.parametrize("file", ["mined.json", "mined.jsonl", "mined.run"])
def test_a_damaged_mining(file: str, made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name, content in DAMAGE.items():
        if (file, name) in {("mined.json", "absent"), ("mined.json", "an object")}:
            continue  # then --data names the dataset
        folder = tmp_path / name
        folder.mkdir()
        for path in made.glob("mined.*"):
            shutil.copy(path, folder)
        (folder / file).unlink()
        if content is not None:
            (folder / file).write_bytes(content)
        run = folder / "mined.run"
        lines = (
            [("compare", run, made / "mined.run", "--data", made / "data")]
            if file == "mined.run"
            else [("audit", run), ("judge", run, "--model", made / "model", "--output", tmp_path / "out.run")]
        )
        for verb, *more in lines:
            if (file, name) != ("mined.run", "empty"):
                refuse(run_cli, verb, *more)


@pytest.mark.parametrize("file", ["recipe.yaml", "log.jsonl", "environment.json", "evaluation/data/measures.json"])
def test_a_damaged_run_folder(file: str, made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    pytest.importorskip("matplotlib")
    for name, content in DAMAGE.items():
        if (file, name) in {
            ("log.jsonl", "absent"),
            ("log.jsonl", "empty"),
            ("log.jsonl", "cut short"),
            ("environment.json", "absent"),
            ("environment.json", "an object"),
            ("evaluation/data/measures.json", "absent"),
        }:
            continue  # as a killed run leaves it: the report shows what is there
        folder = damaged(made / "run", file, content, tmp_path)
        refuse(run_cli, "report", folder, "--output", tmp_path / "out.html")
        assert not (tmp_path / "out.html").exists()


NUMBERS = [
    "data split data --output out --test {}",
    "merge model run --output out --alpha {}",
    "mine data --model model --output out.run --max-score {}",
    "mine data --model model --output out.run --relative-margin {}",
    "mine data --model model --output out.run --absolute-margin {}",
    "audit mined.run --threshold positive_ratio={}",
    "audit mined.run --relabel out.tsv --above {}",
    "compare results results --fail-if nDCG@10<baseline-{}",
    "merge model run --output out --choose-on data --largest-drop {}",
    "train recipe.yaml --dry-run --set train.epochs={}",
    "eval model --data data --broken-images {}",
]


@pytest.mark.parametrize("line", NUMBERS)
@pytest.mark.usefixtures("wrong")
def test_a_number_that_is_none_or_not_finite(line: str, run_cli: RunCli) -> None:
    for number in ("nan", "inf", "1e400", "x", ""):
        result = run_cli(*line.format(number).split(" "))
        assert result.exit_code == 2, (line, number, result.stderr)
        assert "error: " in result.stderr, (line, number, result.stderr)


@pytest.mark.parametrize("line", ["encode data --model model --output out --device {}", "search index x --device {}"])
@pytest.mark.usefixtures("wrong")
def test_a_device_that_is_none(line: str, run_cli: RunCli) -> None:
    for device in ("gpu", "cuda", "cuda:9", "cpu:x", "cuda:", "meta", ""):
        refuse(run_cli, line.format(device))


def test_evidence_without_candidates_gives_no_judgements(made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for path in made.glob("mined.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "mined.jsonl").write_bytes(b"")
    line = refuse(run_cli, "audit", tmp_path / "mined.run", "--relabel", tmp_path / "out.tsv", "--above", "0.1")
    assert "the evidence is empty" in line
    assert not (tmp_path / "out.tsv").exists()


def test_a_resumption_of_no_run_is_said(made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    plan = ("train", made / "recipe.yaml", "--dry-run", "--resume", "--output")
    assert f"resume  {tmp_path} holds no run yet" in run_cli(*plan, tmp_path).stderr
    assert "holds no run yet" not in run_cli(*plan, made / "run").stderr


@pytest.mark.usefixtures("wrong")
def test_a_program_that_is_no_judge(run_cli: RunCli) -> None:
    for command in ("", "'", "false", "echo", "absent-program"):
        refuse(run_cli, "judge mined.run --output out.run --command", command)


def test_a_finished_command_says_so(wrong: Path, run_cli: RunCli) -> None:
    """The commands above are right but for the one wrong input."""
    assert json.loads(run_cli("search", "index", "river", "--json").stdout)
    assert run_cli("compare", "results", "results").exit_code == 0
    assert run_cli("audit", "mined.run", "--threshold", "positive_ratio=0.9").exit_code == 0
    assert run_cli("recipes", "check", "recipe.yaml").exit_code == 0


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("search index river --json --overwrite", "--overwrite"),
        ("search index river --image-folder data", "--image-folder"),
        ("search index --queries data --output out.run --json", "--json"),
        ("search index river --output out.run", "--output"),
        ("audit mined.run --overwrite", "--overwrite"),
        ("audit mined.run --relabel out.tsv --above 1 --threshold positive_ratio=0.9", "--threshold"),
        ("audit mined.run --relabel out.tsv --above 1 --per-query", "--per-query"),
        ("audit mined.run --relabel out.tsv --above 1 --json", "--json"),
        ("audit mined.run --judge mined.run", "--judge"),
        ("audit mined.run --sheet out.png --suspects 0", "--sheet"),
        ("merge model run --output out --alpha 1 --measure RR@10", "--measure"),
        ("merge model run --output out --alpha 1 --alphas 0.5", "--alphas"),
        ("merge model run --output out --alpha 1 --precision bf16", "--precision"),
        ("judge mined.run --output out.run --command cat --trust-remote-code", "--trust-remote-code"),
        ("index data --output index --add --overwrite", "--overwrite"),
        ("index data --output out --model model --replace", "--replace"),
        ("mine recipe.yaml --output out.run --model model", "--model"),
        ("mine recipe.yaml --output out.run --trust-remote-code", "--trust-remote-code"),
        ("mine data --model model --output out.run --set train.epochs=2", "--set"),
        ("eval model --data data --overwrite", "--overwrite"),
        ("eval --run mined.run --data data --max-length 8", "--max-length"),
        ("eval model --mteb SciFact --output out --keep-identical-ids", "--keep-identical-ids"),
        ("train recipe.yaml --dry-run --json", "--json"),
        ("train recipe.yaml --resume --overwrite", "--resume"),
        ("doctor --clean --json", "--json"),
    ],
)
@pytest.mark.usefixtures("wrong")
def test_a_flag_without_effect_is_refused_by_its_name(line: str, flag: str, run_cli: RunCli) -> None:
    assert flag in refuse(run_cli, line)


@pytest.mark.parametrize("flags", ["", " --model model", " --output out.run"])
@pytest.mark.parametrize("source", ["absent", "absent:train", "judged:absent", "absent/deep"])
@pytest.mark.usefixtures("wrong")
def test_mining_an_absent_dataset_says_so_whatever_else_is_missing(source: str, flags: str, run_cli: RunCli) -> None:
    assert refuse(run_cli, f"mine {source}{flags}").startswith(
        f"error: {source}: no such dataset folder; a recipe's name"
    )


def test_a_run_folder_stands_for_its_model(made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    values = [run_cli("eval", model, "--data", made / "data", "--json") for model in (made / "run", made / "run/model")]
    assert values[0].exit_code == 0, values[0].stderr
    assert values[0].stdout == values[1].stdout
    built = run_cli("index", made / "data", "--model", made / "run", "--output", tmp_path / "index")
    assert built.exit_code == 0, built.stderr
    found = [run_cli("search", tmp_path / "index", "old river", "--json", *m) for m in ((), ("-m", made / "run/model"))]
    assert json.loads(found[0].stdout) == json.loads(found[1].stdout)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(made / "recipe.yaml", unfinished)
    assert "has no model yet" in refuse(run_cli, "eval", unfinished, "--data", made / "data")


def test_queries_are_those_of_a_file_a_folder_or_a_split(made: Path, tmp_path: Path, run_cli: RunCli) -> None:
    searched = {}
    for name in ("data", "data/queries.jsonl", "data:test", "data:train"):
        output = tmp_path / f"{len(searched)}.run"
        done = run_cli("search", made / "index", "--queries", f"{made}/{name}", "--output", output, "-k", "1")
        assert done.exit_code == 0, done.stderr
        searched[name] = {line.split()[0] for line in output.read_text().splitlines()}
    judged = {
        split: {line.split("\t")[0] for line in (made / f"data/qrels/{split}.tsv").read_text().splitlines()[1:]}
        for split in ("test", "train")
    }
    assert (searched["data:test"], searched["data:train"]) == (judged["test"], judged["train"])
    assert searched["data"] == searched["data/queries.jsonl"] == judged["test"] | judged["train"]


def test_every_verb_that_loads_a_model_can_trust_its_code(run_cli: RunCli) -> None:
    for verb in ("eval", "encode", "index", "search", "mine", "merge", "export", "judge"):
        assert "--trust-remote-code" in run_cli(verb, "--help").stdout, verb


def test_eval_ignores_or_keeps_identical_ids(run_cli: RunCli) -> None:
    refused = run_cli("eval", "model", "--data", "data", "--ignore-identical-ids", "--keep-identical-ids")
    assert refused.exit_code == 2
    assert "exclude each other; give one of them" in refused.stderr
