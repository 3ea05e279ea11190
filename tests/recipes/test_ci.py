"""The shell recipes for CI, on the tiny model: exit codes as their heads document them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from embedtune.evaluate.compare import parse_bar
from embedtune.recipe import shipped
from embedtune_cli.app import app

SCRIPTS = Path(__file__).resolve().parents[2] / "recipes" / "ci"
NAMES = ["train-and-guard.sh", "nightly-regression.sh", "compare-two-models.sh"]


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """`embedtune` of this environment."""
    path = tmp_path / "embedtune"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m embedtune_cli "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def run(name: str, *args: str | Path, command: Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        ["sh", str(SCRIPTS / name), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "EMBEDTUNE": str(command), "PYTHONPATH": path, **environment},
    )


def recipe_file(folder: Path, model: Path, data: Path, evaluate: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name: {model}}}\ndata: {{train: {data}}}\n"
        f"train: {{batch_size: 8, learning_rate: 1e-4}}\nevaluate: {evaluate}\n"
    )
    return path


@pytest.mark.parametrize("name", NAMES)
def test_without_arguments_it_says_how_it_is_used(name: str, command: Path, tmp_path: Path) -> None:
    result = run(name, command=command, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"usage: {name} ")


@pytest.mark.parametrize("name", NAMES)
def test_shellcheck_finds_nothing(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    assert subprocess.run(["shellcheck", str(SCRIPTS / name)], capture_output=True, check=False).stdout == b""


def steps(name: str = "github-actions.yaml") -> tuple[dict[str, str], dict[str, str]]:
    """The workflow's environment, and the commands of each step by the step's name."""
    job = yaml.safe_load((SCRIPTS / name).read_text())["jobs"]["train"]
    return job["env"], {step["name"]: step["run"] for step in job["steps"] if "run" in step}


def test_the_workflow_pins_actions_by_commit_and_reads_the_repository_alone() -> None:
    workflow = yaml.safe_load((SCRIPTS / "github-actions.yaml").read_text())
    used = [step["uses"] for step in workflow["jobs"]["train"]["steps"] if "uses" in step]
    assert len(used) == 4
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action in used)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("${{" in commands for commands in steps()[1].values())  # no text of an event reaches a shell


def test_every_command_of_the_workflow_is_one_of_the_command_line() -> None:
    variables, by_name = steps()
    variables |= {"RUNNER_TEMP": "tmp", "GITHUB_STEP_SUMMARY": "summary.md"}
    commands = [
        shlex.split(string.Template(line).substitute(variables))
        for text in by_name.values()
        for line in text.replace("\\\n", " ").splitlines()
    ]
    ours = [words[1:] for words in commands if words[0] == "embedtune"]
    assert [words[0] for words in ours] == ["data", "recipes", "recipes", "compare"]
    for words in ours:
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        context = command.make_context(command.name, list(words))  # raises for an option that is none
        for bar in context.params.get("fail_if", ()):
            parse_bar(bar)
        if command.name == "copy":
            shipped.path(context.params["name"])
    (installed,) = [words for words in commands if "pip" in words]
    extras = re.fullmatch(r"embedtune\[(.+)\]", installed[-1])
    assert extras is not None
    project = tomllib.loads((SCRIPTS.parents[1] / "pyproject.toml").read_text())["project"]
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


SMALL = """#!{python}
import functools, sys
from conftest import write_dataset
from embedtune.demo import sample_sets
from embedtune_cli.app import run
for seed, name in enumerate(sample_sets.OFFLINE):
    sample_sets.MAKERS[name] = functools.partial(write_dataset, seed=seed)
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_steps_of_the_workflow_run(tiny_model: Path, tmp_path: Path) -> None:
    """All but the installation, on small datasets and the tiny model."""
    variables, by_name = steps()
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "embedtune"
    command.write_text(SMALL.replace("{python}", sys.executable))
    command.chmod(0o755)
    environment = {
        **os.environ,
        **variables,
        "PATH": os.pathsep.join([str(command.parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS.parents[1] / "tests"), *sys.path]),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    done = {}
    for name, text in by_name.items():
        if "pip install" not in text:
            done[name] = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", text],
                cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
        if name == "Data and recipe":
            recipe = tmp_path / variables["RECIPE"]
            small = re.sub(r"package:[^,]+", str(tiny_model), recipe.read_text())
            recipe.write_text(small.replace("batch_size: 64", "batch_size: 8"))
    codes = {name: step.returncode for name, step in done.items()}
    assert codes["Data and recipe"] == 0, done["Data and recipe"].stderr
    assert set(codes.values()) <= {0, 1}, "\n".join(step.stderr[-600:] for step in done.values())
    for step in done.values():
        assert (step.returncode == 1) == ("missed: " in step.stderr), step.stderr
    assert (tmp_path / variables["RUN"] / "report.html").exists()
    assert (tmp_path / "summary.md").read_text().startswith("# retrieval\n")


STUB = """#!/bin/sh
echo "${0##*/} $*" >>calls
case "$1" in -c) echo stamp ;; esac
"""


@pytest.mark.parametrize(("arguments", "extra"), [(["--output", "a b"], "quickstart"), (["--images"], "images")])
def test_the_quickstart_installs_what_it_needs(arguments: list[str], extra: str, tmp_path: Path) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "recipes" / "ci")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "embedtune"):
        (tmp_path / ".venv" / "bin" / name).write_text(STUB)
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)
    script = tmp_path / "recipes" / "ci" / "quickstart.sh"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(["bash", script, *arguments], check=True, capture_output=True, env={**os.environ, "PATH": path})
    calls = (tmp_path / "calls").read_text().splitlines()
    assert any(call.startswith("python -m pip ") and call.endswith(f"--editable .[{extra}]") for call in calls)
    assert calls[-1] == f"embedtune quickstart {' '.join(arguments)}"


@pytest.mark.slow
def test_train_and_guard(tiny_model: Path, tiny_dataset: Path, command: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, tiny_model, tiny_dataset, f"{{in_domain: [{tiny_dataset}]}}")
    summary = tmp_path / "summary.md"
    args = (recipe, tmp_path / "run", "train.max_steps=2")
    done = run("train-and-guard.sh", *args, command=command, cwd=tmp_path, SUMMARY=str(summary))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()
    assert summary.read_text().startswith("# run\n")
    assert "max_steps: 2" in (tmp_path / "run" / "recipe.yaml").read_text()
    wrong = run("train-and-guard.sh", recipe, tmp_path / "no", "train.epohcs=2", command=command, cwd=tmp_path)
    assert wrong.returncode == 2
    assert "did you mean 'epochs'?" in wrong.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_nightly_regression(tiny_model: Path, tiny_dataset: Path, command: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, tiny_model, tiny_dataset, f"{{in_domain: [{tiny_dataset}]}}")
    baseline = tmp_path / "good"
    first = run("nightly-regression.sh", recipe, baseline, command=command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "No baseline yet" in first.stderr
    assert not (baseline / "model").exists()
    same = run("nightly-regression.sh", recipe, baseline, command=command, cwd=tmp_path, TOLERANCE="0")
    assert same.returncode == 0, same.stderr
    assert (tmp_path / "runs" / "nightly-against-baseline.html").exists()
    # Were the kept run better by far, this night's would be a regression.
    for file in ("measures.json", "per-query.jsonl"):
        path = baseline / "evaluation" / "tiny" / file
        text = path.read_text()
        path.write_text("\n".join(_raised(line) for line in text.splitlines()) + "\n")
    worse = run("nightly-regression.sh", recipe, baseline, command=command, cwd=tmp_path)
    assert worse.returncode == 1
    assert "missed: tiny: nDCG@10 of " in worse.stderr
    bare = recipe_file(tmp_path, tiny_model, tiny_dataset, "{}")
    unmeasured = run("nightly-regression.sh", bare, tmp_path / "other", command=command, cwd=tmp_path)
    assert unmeasured.returncode == 2
    assert "names no dataset to evaluate on" in unmeasured.stderr


def _raised(line: str) -> str:
    """The same values, each nDCG@10 as if it were 2."""
    import re

    return re.sub(r'("nDCG@10": )[0-9.]+', r"\g<1>2.0", line)


@pytest.mark.slow
def test_compare_two_models(tiny_model: Path, tiny_dataset: Path, command: Path, tmp_path: Path) -> None:
    same = run("compare-two-models.sh", tiny_model, tiny_model, "out", tiny_dataset, command=command, cwd=tmp_path)
    assert same.returncode == 0, same.stderr
    assert same.stdout.splitlines()[0] == "# Comparisons"
    assert same.stdout.splitlines()[1].startswith("dataset\tmeasure\trun")
    shutil.copytree(tiny_model, tmp_path / "worse")
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "worse" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**weights, name: weights[name] * 0}, tmp_path / "worse" / "model.safetensors", {"format": "pt"})
    worse = run("compare-two-models.sh", tiny_model, "worse", "out", tiny_dataset, command=command, cwd=tmp_path)
    assert worse.returncode == 1, worse.stderr
    assert "missed: tiny: nDCG@10" in worse.stderr
    absent = run("compare-two-models.sh", tiny_model, "./no", "out", tiny_dataset, command=command, cwd=tmp_path)
    assert absent.returncode == 2
