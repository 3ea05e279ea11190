"""Runs in the forms that other systems write."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.data.runs import RunFile, load_run
from embedtune.errors import InputError


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_ranks_of_three_columns_are_no_scores(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = written(tmp_path / "msmarco.tsv", "q1\td3\t1\nq1\td1\t2\nq1\td2\t3\nq2\td9\t1\n")
    with caplog.at_level(logging.WARNING):
        assert load_run(file) == {"q1": {"d3": 1.0, "d1": 1 / 2, "d2": 1 / 3}, "q2": {"d9": 1.0}}
    assert caplog.messages == [
        f"{file}: column 3 counts each query's lines, so it is read as a rank (--third-column score if it is not)"
    ]
    assert load_run(RunFile(file, "score"))["q1"] == {"d3": 1.0, "d1": 2.0, "d2": 3.0}
    from_zero = written(tmp_path / "zero.tsv", "q1 d3 0\nq1 d1 1\n")
    assert load_run(from_zero) == {"q1": {"d3": 1.0, "d1": 0.5}}


@pytest.mark.parametrize("numbers", ["3 2 1", "0.3 0.2 0.1", "1.5 0.5 7", "1 1 0", "12 7 9", "-1 -2 -3"])
def test_scores_of_three_columns_stay_scores(tmp_path: Path, numbers: str) -> None:
    lines = [f"q1 d{row} {number}\n" for row, number in enumerate(numbers.split())]
    expected = {f"d{row}": float(number) for row, number in enumerate(numbers.split())}
    assert load_run(written(tmp_path / "a.run", "".join(lines))) == {"q1": expected}


@pytest.mark.parametrize("numbers", ["1 3 7", "2 3 1", "0.1 0.2 0.3"])
def test_what_may_be_either_is_asked_for(tmp_path: Path, numbers: str) -> None:
    lines = [f"q1 d{row} {number}\n" for row, number in enumerate(numbers.split())]
    file = written(tmp_path / "a.run", "".join(lines))
    with pytest.raises(InputError) as caught:
        load_run(file)
    assert str(caught.value).startswith(f"{file}: column 3 may be a rank or a score (query 'q1': {numbers}); give")
    assert "--third-column rank or --third-column score" in str(caught.value)
    assert load_run(RunFile(file, "score"))["q1"]["d0"] == float(numbers.split()[0])


def test_ranks_that_are_none(tmp_path: Path) -> None:
    file = written(tmp_path / "a.run", "q1 d1 1.5\nq1 d2 1\n")
    with pytest.raises(InputError, match=r"a\.run: the rank of document 'd1' must be a whole number .*, got 1\.5$"):
        load_run(RunFile(file, "rank"))


def test_packed_runs_are_read_as_the_others(tmp_path: Path) -> None:
    ranks, scores = "q1\td3\t1\nq1\td1\t2\n", {"q1": {"d3": 2.0, "d1": 1.0}}
    (tmp_path / "msmarco.tsv.gz").write_bytes(gzip.compress(ranks.encode()))
    assert load_run(tmp_path / "msmarco.tsv.gz") == {"q1": {"d3": 1.0, "d1": 0.5}}
    (tmp_path / "run.json.gz").write_bytes(gzip.compress(json.dumps(scores).encode()))
    assert load_run(tmp_path / "run.json.gz") == scores


def test_json_of_beir_and_ranx(tmp_path: Path) -> None:
    file = written(tmp_path / "run.json", {"q1": {"d1": 0.5, "d2": 1}, "q2": {}})
    assert load_run(file) == {"q1": {"d1": 0.5, "d2": 1.0}, "q2": {}}


def test_predictions_of_mteb(tmp_path: Path) -> None:
    meta = {"model_name": "a", "revision": "b"}
    runs = {"test": {"q1": {"d1": 0.5}}, "dev": {"q2": {"d1": 0.25}}}
    file = written(tmp_path / "SciFact_predictions.json", {"mteb_model_meta": meta, "default": runs})
    assert load_run(file) == {"q1": {"d1": 0.5}}
    assert load_run(file, split="dev") == {"q2": {"d1": 0.25}}
    both = written(tmp_path / "both.json", {"mteb_model_meta": meta, "eng-Latn": runs, "fr": runs})
    listed = r"eng-Latn\.test, eng-Latn\.dev, fr\.test, fr\.dev"
    message = rf"predictions of {listed}; keep one: jq '\.\"eng-Latn\"\.\"test\"' both\.json > run\.json$"
    with pytest.raises(InputError, match=message):
        load_run(both)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object of queries"),
        ({}, "expected an object of queries"),
        ({"q1": 1}, "query 'q1': expected documents with their scores, got 1"),
        ({"q1": {"d1": "high"}}, "query 'q1': the score of document 'd1' must be a finite number, got high"),
        ({"q1": {"d1": None}}, "query 'q1': the score of document 'd1' must be a finite number, got None"),
        ('{"q1": {"d1": NaN}}', "query 'q1': the score of document 'd1' must be a finite number, got nan"),
        ('{"q1": ', "not valid JSON"),
    ],
)
def test_json_that_is_no_run(tmp_path: Path, content: Any, message: str) -> None:
    file = written(tmp_path / "a.json", content)
    with pytest.raises(InputError) as caught:
        load_run(file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "qrels").mkdir(parents=True)
    written(folder / "corpus.jsonl", '{"_id": "d1", "text": "river"}\n{"_id": "d2", "text": "stone"}\n')
    written(folder / "queries.jsonl", '{"_id": "q1", "text": "what flows"}\n{"_id": "q2", "text": "what is hard"}\n')
    written(folder / "qrels/test.tsv", "q1\td1\t1\nq2\td2\t1\n")
    return folder


def test_one_ranking_in_four_forms_is_measured_alike(tmp_path: Path, data: Path, run_cli: Callable[..., Any]) -> None:
    scores = {"q1": {"d1": 2.0, "d2": 1.0}, "q2": {"d2": 0.7, "d1": 0.1}}
    lines = [(q, d, rank) for q, scored in scores.items() for rank, d in enumerate(scored, start=1)]
    files = [
        written(tmp_path / "six.run", "".join(f"{q} Q0 {d} {rank} {1 / rank} a\n" for q, d, rank in lines)),
        written(tmp_path / "ranks.tsv", "".join(f"{q}\t{d}\t{rank}\n" for q, d, rank in lines)),
        written(tmp_path / "run.json", scores),
        written(tmp_path / "a_predictions.json", {"mteb_model_meta": {}, "default": {"test": scores}}),
    ]
    for file in files:
        result = run_cli("eval", "--run", file, "--data", data, "--measures", "nDCG@10")
        assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, ["data\t2\t1"]), result.stderr
    result = run_cli("compare", *files, "--data", data, "--measures", "nDCG@10", "--json")
    assert [row["difference"] for row in json.loads(result.stdout)["comparisons"]] == [0.0, 0.0, 0.0]
    result = run_cli("eval", "--run", files[1], "--data", data, "--measures", "RR@10", "--third-column", "score")
    assert result.stdout.splitlines()[1:] == ["data\t2\t0.5"]
