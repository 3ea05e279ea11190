"""BM25 as a baseline: its values by hand, its cache, and what it cannot rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import write_dataset

from embedtune.data.broken import is_textual
from embedtune.data.dataset import load_dataset
from embedtune.evaluate.lexical import evaluate_bm25
from embedtune.methods.mining.bm25 import Bm25


def test_the_document_with_the_rarer_word_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "cache"))
    folder = write_dataset(tmp_path / "made")
    corpus = {"d0": "river river", "d1": "engine river", "d2": "river garden", "d3": "bread"}
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"_id": k, "text": v}) + "\n" for k, v in corpus.items()))
    (folder / "queries.jsonl").write_text('{"_id": "q0", "text": "river engine"}\n{"_id": "q1", "text": "violin"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td1\t1\nq1\td3\t1\n")
    dataset = load_dataset(folder)
    evaluation = evaluate_bm25(dataset, measures=["RR@10"], output=tmp_path / "out")
    assert list(evaluation.run["q0"]) == ["d1", "d0", "d2"]  # d3 shares no word
    assert evaluation.per_query["RR@10"] == {"q0": 1.0, "q1": 0.0}
    assert (evaluation.model, evaluation.queries) == ("BM25", 2)
    assert (tmp_path / "out" / "made" / "measures.json").exists()
    monkeypatch.setattr(Bm25, "search", None)  # the second time it is read from the cache
    assert evaluate_bm25(dataset, measures=["RR@10"]).run == evaluation.run


def test_sets_with_pictures_are_not_ranked(pictures: Path, tiny_dataset: Path) -> None:
    assert not is_textual(load_dataset(pictures))
    assert is_textual(load_dataset(tiny_dataset))
