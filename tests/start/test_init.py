"""The recipe that `embedtune init` writes: it fits the data and the machine, and it trains."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset

from embedtune.demo import sample_sets
from embedtune.recipe import load_recipe
from embedtune.start import begin as module
from embedtune.start.choices import batch_size, max_length
from embedtune.start.facts import DataFacts, Machine, TokenLengths, held_out_share, model_facts

RunCli = Callable[..., Any]


def facts(**changes: Any) -> DataFacts:
    lengths = TokenLengths(sample=10, median=20, p95=60, most=90)
    values: dict[str, Any] = {
        "documents": 1000, "queries": 500, "positives": 600, "graded": False, "counted": True, "latin": 1.0,
        "modalities": {"query": "text", "document": "text"}, "lengths": {"query": lengths, "document": lengths},
        "tested": 100, "held_out": 0.1, "drawn": "each", "pairs": 540,
    }  # fmt: skip
    return DataFacts(**values | changes)


CPU = Machine(kind="cpu", name="no GPU", cores=2, memory=8 * 2**30, precision="fp32")
GPU = Machine(kind="cuda", name="a GPU", cores=8, memory=80 * 2**30, precision="bf16")


@pytest.mark.parametrize(
    ("pairs", "on_cpu", "on_gpu"),
    [(5, 2, 2), (9, 8, 8), (100, 8, 8), (540, 32, 32), (10_000, 64, 128), (10**6, 64, 128)],
)
def test_the_batch_grows_with_the_data_and_an_epoch_has_eight_of_them(pairs: int, on_cpu: int, on_gpu: int) -> None:
    assert [batch_size(facts(pairs=pairs), machine) for machine in (CPU, GPU)] == [on_cpu, on_gpu]


def test_the_maximum_length_covers_95_percent_of_the_texts_within_the_models_limit() -> None:
    long = TokenLengths(sample=10, median=100, p95=225, most=900)
    data = facts(lengths={"query": facts().lengths["query"], "document": long})
    assert max_length(data, 512) == 256
    assert max_length(data, 128) == 128
    assert max_length(facts(), None) == 64


def test_a_tenth_of_the_queries_validates_and_none_of_a_few() -> None:
    assert held_out_share(99) is None
    assert held_out_share(100) == 0.2
    assert held_out_share(800) == 0.1
    assert held_out_share(100_000) == 0.01


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, in which the sample set `functions` is a small made dataset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "OFFLINE", ("functions",))
    maker: Callable[[Path], Any] = lambda folder: write_dataset(folder, documents=48, queries=24, seed=9)  # noqa: E731
    monkeypatch.setattr(sample_sets, "MAKERS", {"functions": maker})
    return tmp_path


def test_the_recipe_of_a_dataset_passes_the_check_and_the_dry_run_and_trains(
    here: Path, tiny_model: Path, run_cli: RunCli
) -> None:
    pytest.importorskip("jinja2", reason="pip install 'embedtune[plots]'")
    write_dataset(here / "mine", documents=180, queries=90)
    result = run_cli("init", "mine", "--model", tiny_model)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == Path("recipe.yaml").read_text()
    recipe = load_recipe("recipe.yaml")
    assert (recipe.data.train, recipe.data.split, recipe.evaluate.in_domain) == ("mine", "train", ["mine"])
    assert recipe.evaluate.out_of_domain == ["sample-sets/functions"]
    assert [chosen.name for chosen in recipe.negatives.filtering] == ["guide"]
    assert recipe.negatives.teacher == str(tiny_model)
    assert not recipe.weighting
    assert recipe.evaluate.guard is not None
    assert recipe.evaluate.guard.interpolate
    assert recipe.model.max_length == 32
    assert "# 60 queries with 72 positives (1.2 a query), 180 documents." in result.stdout
    assert "validation: none; 60 queries are too few" in result.stdout
    assert run_cli("recipes", "check", "recipe.yaml").exit_code == 0
    dry = run_cli("train", "recipe.yaml", "--dry-run")
    assert dry.exit_code == 0
    steps = math.ceil(72 / 8) * 2
    assert f"about {steps} (2 epoch(s) of 72 pairs)" in dry.stderr
    assert f"# About {steps} steps: 2 x 72 pairs in batches of 8." in result.stdout
    trained = run_cli("train", "recipe.yaml", "--output", "run")
    assert trained.exit_code in (0, 1), trained.stderr  # the guard may be missed by a random model
    assert Path("run/summary.json").exists()


def test_pairs_are_divided_so_that_there_is_something_to_test_on(here: Path, tiny_model: Path, run_cli: RunCli) -> None:
    pairs = [{"query": f"what is old river {n}", "positive": f"the old river is new {n}"} for n in range(30)]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    result = run_cli("init", "pairs.jsonl", "-o", "sub.yaml", "--model", tiny_model, "--no-guard")
    assert result.exit_code == 0, result.stderr
    assert "pairs-split holds 10 of its queries out as `test`, and 20 are trained on" in result.stderr
    recipe = load_recipe("sub.yaml")
    assert (recipe.data.train, recipe.evaluate.in_domain) == ("pairs-split", ["pairs-split"])
    assert recipe.evaluate.guard is None
    assert not recipe.negatives.mining  # 30 documents
    assert run_cli("train", "sub.yaml", "--dry-run").exit_code == 0
    again = run_cli("init", "pairs.jsonl", "-o", "other.yaml", "--model", tiny_model, "--no-guard")
    assert again.exit_code == 2
    assert "pairs-split" in again.stderr
    assert not Path("other.yaml").exists()


def test_bad_lines_are_left_out_where_that_is_allowed(here: Path, tiny_model: Path, run_cli: RunCli) -> None:
    rows = [json.dumps({"query": f"what is old river {n}", "positive": f"the old river is new {n}"}) for n in range(30)]
    rows[7] = "{not json"
    Path("pairs.jsonl").write_text("\n".join(rows) + "\n")
    command = ["init", "pairs.jsonl", "--model", tiny_model, "--no-guard"]
    refused = run_cli(*command)
    assert refused.exit_code == 2
    assert "pairs.jsonl:8: not valid JSON" in refused.stderr
    result = run_cli(*command, "--skip-bad", "1")
    assert result.exit_code == 0, result.stderr
    assert "left out: pairs.jsonl:8: not valid JSON" in result.stderr
    assert "pairs-split holds 9 of its queries out as `test`, and 20 are trained on" in result.stderr
    write_dataset(here / "mine", documents=60, queries=30)
    idle = run_cli("init", "mine", "--model", tiny_model, "--skip-bad", "1", "--output", "other.yaml")
    assert (idle.exit_code, "`embedtune data check mine --fix --output NEW`" in idle.stderr) == (2, True)


def test_too_few_queries_and_splits_without_a_train_are_asked_about(
    here: Path, tiny_model: Path, run_cli: RunCli
) -> None:
    Path("few.csv").write_text("query,positive\n" + "".join(f"old river {n},the river {n}\n" for n in range(5)))
    result = run_cli("init", "few.csv", "--model", tiny_model)
    assert result.stderr == (
        "error: few.csv: 5 queries are too few to train and to test on; at least 8, better some hundreds; by hand: "
        "`embedtune data convert few.csv --output DIR` with the flags that it asks for, `embedtune data split DIR "
        "--test 0.2 --output NEW`, then "
        "`embedtune init NEW`\n"
    )
    folder = write_dataset(here / "odd")
    (folder / "qrels" / "train.tsv").rename(folder / "qrels" / "one.tsv")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "two.tsv")
    result = run_cli("init", "odd", "--model", tiny_model)
    assert result.stderr.startswith(
        "error: odd: has the splits one, two; name the one to train on: odd:NAME; by hand: "
    )
    Path("faq.csv").write_text("frage,antwort\n" + "".join(f"wie {n},so {n}\n" for n in range(20)))
    result = run_cli("init", "faq.csv", "--model", tiny_model)
    assert result.exit_code == 2
    assert "--query-column" in result.stderr
    assert "`embedtune data convert faq.csv --output DIR`" in result.stderr
    absent = run_cli("init", "absent")
    assert (absent.exit_code, "absent: no such file or folder" in absent.stderr) == (2, True)


def test_pairs_of_ids_are_read_with_their_documents(here: Path, tiny_model: Path, run_cli: RunCli) -> None:
    Path("asked.csv").write_text("question;article_no\n" + "".join(f"old river {n};{n:03d}\n" for n in range(30)))
    articles = "".join(f"{n:03d},the old river is new {n}\n" for n in range(40))
    Path("articles.csv").write_text(f"article_no,body\n{articles}")
    common = ["init", "asked.csv", "--model", tiny_model, "--no-guard"]
    alone = run_cli(*common)
    assert (alone.exit_code, "--corpus FILE names the documents" in alone.stderr) == (2, True)
    result = run_cli(*common, "--corpus", "articles.csv")
    assert result.exit_code == 0, result.stderr
    assert "20 queries with 20 positives (1.0 a query), 40 documents" in result.stdout
    again = run_cli(*common, "--corpus", "articles.csv", "--output", "other.yaml")
    assert "`embedtune data convert asked.csv --corpus articles.csv --output DIR`" in again.stderr
    folder = run_cli("init", "asked-split", "--corpus", "articles.csv", "--output", "other.yaml")
    assert folder.stderr == (
        "error: --corpus goes with a file of pairs; asked-split is a dataset folder and has its documents\n"
    )


def test_images_need_a_model_that_reads_them(
    here: Path, pictures: Path, image_models: dict[str, Path], run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOWERS", ("package:not_installed_here/model",))
    result = run_cli("init", pictures)
    assert result.exit_code == 2
    assert "name a model that reads texts and images: --model sentence-transformers/clip-ViT-B-32" in result.stderr
    monkeypatch.setattr(module, "TOWERS", (str(image_models["words"]), str(image_models["vit"])))
    composed = run_cli("init", pictures)
    assert composed.exit_code == 0, composed.stderr
    compose = load_recipe("recipe.yaml").model.compose
    assert compose is not None
    assert (compose.text, compose.image) == module.TOWERS
    named = run_cli("init", pictures, "--model", image_models["clip"], "--overwrite")
    assert named.exit_code == 0, named.stderr
    assert run_cli("train", "recipe.yaml", "--dry-run").exit_code == 0


def test_a_large_model_trains_an_adapter_and_a_large_batch_is_cut(
    here: Path, tiny_model: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Machine(kind="cpu", name="no GPU", cores=2, memory=2**21, precision="fp32")
    monkeypatch.setattr(module, "machine", lambda: small)
    write_dataset(here / "mine", documents=180, queries=90)
    assert run_cli("init", "mine", "--model", tiny_model, "--no-guard").exit_code == 0
    recipe = load_recipe("recipe.yaml")
    assert recipe.train.chunk_size == 2048 // 32
    assert recipe.model.lora is None
    size = model_facts(str(tiny_model)).size
    assert size is not None
    monkeypatch.setattr(module, "machine", lambda: Machine(**vars(small) | {"memory": 16 * size.parameters}))
    assert run_cli("init", "mine", "--model", tiny_model, "--no-guard", "--overwrite").exit_code == 0
    assert load_recipe("recipe.yaml").model.lora is not None


def test_a_file_of_somebody_else_is_not_replaced(here: Path, tiny_model: Path, run_cli: RunCli) -> None:
    write_dataset(here / "mine")
    Path("recipe.yaml").write_text("version: 1\n")
    result = run_cli("init", "mine", "--model", tiny_model, "--overwrite")
    assert result.exit_code == 2
    assert "was not written by `embedtune init`" in result.stderr
    assert Path("recipe.yaml").read_text() == "version: 1\n"


def test_sample_sets_are_made_once_and_named_ones_are_known(here: Path, run_cli: RunCli) -> None:
    first = run_cli("data", "sample-sets", "functions")
    assert first.stdout.splitlines()[1:] == [
        "sample-sets/functions\ttest\t48\t8",
        "sample-sets/functions\ttrain\t48\t16",
    ]
    before = (here / "sample-sets" / "functions" / "corpus.jsonl").stat().st_mtime_ns
    assert run_cli("data", "sample-sets", "functions").exit_code == 0
    assert (here / "sample-sets" / "functions" / "corpus.jsonl").stat().st_mtime_ns == before
    result = run_cli("data", "sample-sets", "function")
    assert result.stderr.startswith("error: unknown sample set 'function': did you mean 'functions'?")
