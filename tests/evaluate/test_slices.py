"""Slices of queries: their names, their means in an evaluation and its files, and names that no dataset has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.evaluate.results import write
from embedtune.evaluate.retrieval import Retrieval, evaluate
from embedtune.evaluate.slices import refuse_unknown_slices, slices_of
from embedtune.evaluate.sources import read_evaluation
from embedtune.models.encoder import load_encoder


@pytest.fixture
def languages(tmp_path: Path) -> Path:
    """A dataset whose test queries q0, q3, ... q27 are German where their number is even, and English elsewhere."""
    folder = write_dataset(tmp_path / "languages")
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["metadata"] = {"language": "de" if number % 2 == 0 else "en", "link": f"example/{number}"}
    lines[0]["text"] = "short"
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_slices_by_column_and_length(languages: Path) -> None:
    slices = slices_of(load_dataset(languages), ["language", "length"])
    assert slices["q0"] == ("language de", "length 0 to 5 words")
    assert slices["q3"] == ("language en", "length 6 to 10 words")
    assert len(slices) == 10
    assert slices_of(load_dataset(languages, "train"), ["link"]) == {}  # 20 values are no slices


def test_an_evaluation_keeps_its_slices(languages: Path, tiny_model: Path, tmp_path: Path) -> None:
    dataset = load_dataset(languages)
    evaluation = evaluate(
        load_encoder(str(tiny_model)), dataset, measures="nDCG@10", retrieval=Retrieval(slices=("language",))
    )
    values = evaluation.per_query["nDCG@10"]
    german = [values[query_id] for query_id in ("q0", "q6", "q12", "q18", "q24")]
    assert evaluation.groups["language de"] == {"queries": 5, "nDCG@10": pytest.approx(sum(german) / 5)}
    measured = read_evaluation(write(evaluation, tmp_path / "results"))
    assert measured.slices["language de"] == ["q0", "q6", "q12", "q18", "q24"]


def test_a_misspelt_slice_is_refused_and_columns_are_named(
    languages: Path, tiny_model: Path, run_cli: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=r"no dataset has a column 'langage' .*; their columns: language, link; "):
        refuse_unknown_slices(["langage"], [load_dataset(languages)])
    refuse_unknown_slices(["language", "length"], [load_dataset(languages)])
    shown = run_cli("eval", tiny_model, "--data", languages, "--measures", "nDCG@10", "--slices", "language, length")
    assert shown.exit_code == 0, shown.stderr
    rows = [line.split("\t")[:2] for line in shown.stdout.splitlines()]
    assert ["languages language de", "5"] in rows
    assert ["languages length 0 to 5 words", "1"] in rows
    refused = run_cli("eval", tiny_model, "--data", languages, "--slices", "langage")
    assert (refused.exit_code, refused.stdout) == (2, "")
