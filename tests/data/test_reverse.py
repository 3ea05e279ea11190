"""The other direction of a dataset folder, by name, in every verb that takes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from embedtune.data.dataset import load_dataset, reverse
from embedtune.errors import InputError
from embedtune.recipe import check_recipe, resolve
from embedtune.train.run import train


@pytest.fixture
def two_ways(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{n}", "text": text} for n, text in enumerate(["river", "engine", "music"])]
    queries = [{"_id": f"q{n}", "text": text} for n, text in enumerate(["old river", "new engine", "quick river"])]
    for name, lines in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t2\nq2\td0\t1\nq1\td1\t1\n")
    return folder


def test_documents_ask_for_queries(two_ways: Path) -> None:
    forward, backward = load_dataset(two_ways), load_dataset(f"reversed:{two_ways}")
    assert backward.qrels == {"d0": {"q0": 2, "q2": 1}, "d1": {"q1": 1}}
    assert backward.corpus["q0"].text == "old river"
    assert backward.queries["d0"].text == "river"
    assert backward.label == "pictures-reversed"
    assert backward.fingerprint != forward.fingerprint
    assert reverse(backward).fingerprint == forward.fingerprint
    assert load_dataset(f"reversed:{two_ways}:test").qrels == backward.qrels


def test_a_resolved_recipe_keeps_the_direction(two_ways: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_ways.parent)
    recipe = check_recipe({"version": 1, "model": {"name": "x"}, "data": {"train": "reversed:pictures:test"}})
    assert resolve(recipe).data.train == f"reversed:{two_ways}:test"


def test_both_directions_are_measured_and_compared(
    two_ways: Path, tiny_model: Path, run_cli: Callable[..., object], tmp_path: Path
) -> None:
    data = ["--data", str(two_ways), "--data", f"reversed:{two_ways}"]
    for name in ("one", "two"):
        result = run_cli("eval", tiny_model, *data, "--output", tmp_path / name, "--measures", "R@1 RR@3")
        assert result.exit_code == 0, result.stderr  # type: ignore[attr-defined]
    written = json.loads((tmp_path / "one" / "pictures-reversed" / "measures.json").read_text())
    assert written["queries"] == 2
    result = run_cli("compare", tmp_path / "one", tmp_path / "two", "--json")
    assert result.exit_code == 0, result.stderr  # type: ignore[attr-defined]
    assert "is not there any more" not in result.stderr  # type: ignore[attr-defined]
    run = tmp_path / "one" / "pictures-reversed" / "run.trec"
    result = run_cli("eval", "--run", run, "--data", f"reversed:{two_ways}", "--measures", "R@1", "--json")
    assert json.loads(result.stdout)[0]["queries"] == 2  # type: ignore[attr-defined]


def test_training_in_reverse_makes_hard_queries_of_the_other_direction(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    """The queries' texts are now documents, so that rules make negatives of them; evaluation is forward."""
    values = {
        "version": 1,
        "model": {"name": str(tiny_model)},
        "data": {"train": f"reversed:{tiny_dataset}"},
        "synthesis": "number",
        "loss": [
            {"name": "infonce", "directions": ["query_document", "document_query"]},
            {"name": "fsc_clip", "weight": 0.5, "temperature": 0.1},
        ],
        "train": {"batch_size": 8, "max_steps": 2},
        "evaluate": {"in_domain": [f"{tiny_dataset}:test", f"reversed:{tiny_dataset}:test"]},
    }
    run = train(check_recipe(values), tmp_path / "run")
    assert list(run.tuned) == ["tiny", "tiny-reversed"]
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [event["made"] for event in events if event["event"] == "step"] == [8.0, 8.0]


def test_only_judged_documents(two_ways: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """music is judged for no query; asked the other way round, all queries are judged."""
    whole, judged = load_dataset(two_ways), load_dataset(f"judged:{two_ways}")
    assert (list(whole.corpus.ids), list(judged.corpus.ids)) == (["d0", "d1", "d2"], ["d0", "d1"])
    assert judged.label == "pictures-judged"
    assert judged.qrels == whole.qrels
    assert judged.fingerprint != whole.fingerprint
    backward = load_dataset(f"judged:reversed:{two_ways}:test")
    assert backward.label == "pictures-reversed-judged"
    assert list(backward.corpus.ids) == ["q0", "q1", "q2"]
    with pytest.raises(InputError, match=f"write judged:reversed:{two_ways}, in this order"):
        load_dataset(f"reversed:judged:{two_ways}")
    monkeypatch.chdir(two_ways.parent)
    evaluated = {"in_domain": ["judged:reversed:pictures:test"]}
    values = {"version": 1, "model": {"name": "x"}, "data": {"train": "pictures"}, "evaluate": evaluated}
    assert resolve(check_recipe(values)).evaluate.in_domain == [f"judged:reversed:{two_ways}:test"]


def test_judged_documents_are_found_again(
    two_ways: Path, tiny_model: Path, run_cli: Callable[..., object], tmp_path: Path
) -> None:
    """By the name that results keep: for the texts that a comparison shows, and for other measures of the same run."""
    data = ["--data", f"judged:{two_ways}", "--data", f"judged:reversed:{two_ways}"]
    for name in ("one", "two"):
        result = run_cli("eval", tiny_model, *data, "--output", tmp_path / name, "--measures", "R@1 RR@3")
        assert result.exit_code == 0, result.stderr  # type: ignore[attr-defined]
    written = json.loads((tmp_path / "one" / "pictures-judged" / "measures.json").read_text())
    assert written["folder"] == f"judged:{two_ways}"
    assert written["protocol"]["judged_only"] is True
    result = run_cli("compare", tmp_path / "one", tmp_path / "two", *data, "--json")
    assert result.exit_code == 0, result.stderr  # type: ignore[attr-defined]
    assert "is not there any more" not in result.stderr  # type: ignore[attr-defined]
