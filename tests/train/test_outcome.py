"""What a run ends with: BM25, slices and sizes beside the untouched and the tuned model, and what leaves them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset

from embedtune.data.dataset import load_dataset
from embedtune.evaluate.retrieval import Retrieval, evaluate
from embedtune.models.encoder import load_encoder
from embedtune.recipe import check_recipe
from embedtune.report.outcome import outcomes, sizes, slices, tables
from embedtune.report.record import read_record
from embedtune.train.run import train


def test_slices_and_sizes_stand_beside_the_whole(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_dataset(tmp_path / "asked")
    lines = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    lines = [line | {"language": "de" if number % 2 == 0 else "en"} for number, line in enumerate(lines)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "version": 1,
        "model": {"name": str(tiny_model)},
        "data": {"train": str(folder)},
        "matryoshka": [16, 8],
        "train": {"batch_size": 8, "max_steps": 2, "learning_rate": 3e-3},
        "evaluate": {"in_domain": [str(folder)], "measures": ["nDCG@10", "R@10"]},
    }
    run = train(check_recipe(recipe), tmp_path / "run")
    record = read_record(run.folder, negatives=False)
    (whole, _) = outcomes(record)
    by_slice = slices(record)
    assert [(one.slice, one.queries) for one in by_slice] == [("language de", 5), ("language en", 5)]
    assert sum(one.tuned for one in by_slice) / 2 == pytest.approx(whole.tuned)
    assert whole.bm25 is not None
    assert sum(one.bm25 or 0.0 for one in by_slice) / 2 == pytest.approx(whole.bm25)
    by_size = sizes(record)
    encoder, dataset = load_encoder(str(run.model)), load_dataset(folder)
    assert [one.dimensions for one in by_size] == [encoder.dimension, 16, 8]
    for one in by_size:
        truncated = evaluate(encoder, dataset, measures="nDCG@10", retrieval=Retrieval(truncate_dim=one.dimensions))
        assert one.tuned == pytest.approx(truncated.measures["nDCG@10"])
    titles = [table.title for table in tables(record)]
    assert titles == [
        "nDCG@10 in domain", "nDCG@10 by slices of the queries", "nDCG@10 with fewer dimensions", "Other measures"
    ]  # fmt: skip


def test_bm25_is_left_out_where_asked_and_where_it_is_not_installed(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}}}\n"
        f"train: {{batch_size: 8, max_steps: 1}}\nevaluate: {{in_domain: [{tiny_dataset}]}}\n"
    )
    without = run_cli("train", path, "--output", tmp_path / "without", "--set", "evaluate.bm25=false")
    assert without.exit_code == 0, without.stderr
    assert "bm25" not in without.stdout.splitlines()[1]
    monkeypatch.setattr("embedtune.train.run.is_installed", lambda: False)
    absent = run_cli("train", path, "--output", tmp_path / "absent")
    assert absent.exit_code == 0, absent.stderr
    assert "BM25 is not measured: it needs bm25s; try: pip install 'embedtune[bm25]'" in absent.stderr


def test_a_misspelt_slice_is_refused_before_training(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}}}\n"
        f"train: {{batch_size: 8}}\nevaluate: {{in_domain: [{tiny_dataset}], slices: [langage]}}\n"
    )
    refused = run_cli("train", path, "--output", tmp_path / "run")
    assert refused.exit_code == 2
    assert "no dataset has a column 'langage'" in refused.stderr
    assert not (tmp_path / "run").exists()
