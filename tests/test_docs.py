"""The commands, recipes and Python lines of README.md and docs/ work as they stand there.

The pages run in a folder that holds what they speak of: a file of pairs, a second dataset and a tiny model under the
name of the real one. Page by page, a YAML block that opens with `# NAME.yaml` is written to that file, and every line
of a bash block that begins with `embedtune` runs, in order, through the entry of the command line.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset
from typer.main import get_command

import embedtune
from embedtune.data.dataset import load_dataset
from embedtune.demo import sample_sets
from embedtune_cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Each in a folder where `your-data` has run.
RUN = ["your-data", "recipes", "negatives", "out-of-domain", "methods", "vectors"]
SMALLER = {"max_length: 256": "max_length: 64", "batch_size: 32": "batch_size: 4, max_steps: 2"}
SMALLER_OPTIONS = {
    "--max-length 256": "--max-length 64",
    "model.max_length=128": "model.max_length=64",
    "--sizes 384,256,128,64": "--sizes 32,16,8",
    "--truncate-dim 256": "--truncate-dim 16",
}
BLOCK = re.compile(r"```(\w+)\n(.*?)```", flags=re.DOTALL)


def commands(page: str) -> list[str]:
    lines = [line for language, block in BLOCK.findall(page) if language == "bash" for line in block.splitlines()]
    return [line for line in lines if line.startswith("embedtune ")]


def test_readme_is_one_screen_of_prose() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for line in commands(page.read_text(encoding="utf-8")):
        _, *args = shlex.split(line, comments=True)
        command: Any = get_command(app)
        while args and args[0] in getattr(command, "commands", {}):
            command = command.commands[args.pop(0)]
        command.make_context(command.name, args)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_pages_name_every_command() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"embedtune {name}" in text, name


def write_recipes(page: str) -> None:
    """Writes the page's named recipes, made small enough for the tiny model and its data."""
    for language, block in BLOCK.findall(page):
        name = re.match(r"# (\S+\.yaml)\n", block)
        if language == "yaml" and name:
            for real, tiny in SMALLER.items():
                block = block.replace(real, tiny)
            Path(name[1]).write_text(block, encoding="utf-8")


def run_page(name: str, run_cli: Callable[..., Any]) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    write_recipes(page)
    for line in commands(page):
        for real, tiny in SMALLER_OPTIONS.items():
            line = line.replace(real, tiny)
        result = run_cli(*shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, f"{line}\n{result.stdout}\n{result.stderr}"


def write_pairs(path: Path, folder: Path) -> None:
    dataset = load_dataset(str(folder), split="train")
    pairs = [
        {"query": dataset.queries[query_id].text, "positive": dataset.corpus[doc_id].text}
        for query_id, judged in dataset.qrels.items()
        for doc_id in judged
    ]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder with the model, the pairs and the second dataset that the pages name."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(tiny_model, folder / "sentence-transformers" / "all-MiniLM-L6-v2")
    write_dataset(folder / "other-data", seed=1)
    write_pairs(folder / "pairs.jsonl", write_dataset(folder / "made", documents=120, queries=60))
    (folder / "questions.csv").write_text("question,article_no\nwhere do rivers flow to,007\n", encoding="utf-8")
    article = {"article_no": "007", "title": "Rivers", "body": "They flow to the sea."}
    (folder / "articles.jsonl").write_text(json.dumps(article) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", RUN)
def test_commands_run(
    name: str,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Callable[..., Any],
) -> None:
    if name != "your-data":
        pytest.importorskip("bm25s", reason="pip install 'embedtune[bm25]'")
        pytest.importorskip("jinja2", reason="pip install 'embedtune[plots]'")
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    small = {name: partial(write_dataset, seed=seed) for seed, name in enumerate(sample_sets.OFFLINE, start=7)}
    monkeypatch.setattr(sample_sets, "MAKERS", small)
    if name != "your-data":
        run_page("your-data", run_cli)
    run_page(name, run_cli)


def test_the_python_lines_run(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    shutil.copytree("made", "my-data")
    write_recipes((ROOT / "docs" / "your-data.md").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    printed = []
    for language, block in BLOCK.findall(page):
        if language == "python":
            exec(block, names)  # our own lines; a block knows the names of those before it
            printed.append(capsys.readouterr().out)
    load, train, again, evaluate, mine, index, export = printed
    assert load == f"120 documents, {len(names['dataset'].qrels)} judged queries\n(1, 32)\n"
    assert train == f"{names['run'].base} {names['run'].tuned}\nruns/python/model\n"
    assert again == "2\n"
    assert evaluate.splitlines()[0] == str(names["tuned"].measures)
    assert names["run"].tuned["my-data"]["nDCG@10"] == pytest.approx(names["tuned"].measures["nDCG@10"])
    candidates, kept, _ = mine.split(" ", maxsplit=2)
    assert int(candidates) > int(kept) > 0
    assert [line.split()[0] for line in index.splitlines()] == ["120", "1", "2", "3"]
    assert export.startswith("exported-python\nexported-python: exists already")


def test_the_python_page_names_all_that_the_package_exports() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in embedtune.__all__ if name != "__version__" and name not in page] == []
