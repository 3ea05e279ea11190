"""What may never be a negative."""

from __future__ import annotations

import json
import weakref
from pathlib import Path

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance


def test_relevance_is_freed_with_its_last_user(tiny_dataset: Path) -> None:
    relevance = Relevance(load_dataset(tiny_dataset, "train"))
    query_id, positives = next(iter(relevance.positives.items()))
    assert relevance.forbidden(query_id, [*positives, "d50"]) == [*(True for _ in positives), False]
    alive = weakref.ref(relevance)
    del relevance
    assert alive() is None


def test_a_querys_own_text_is_no_negative_whatever_its_title_and_id(tmp_path: Path) -> None:
    corpus = [{"_id": "d1", "text": "a river"}, {"_id": "d2", "title": "Notes", "text": "What  FLOWS here"},
              {"_id": "q1", "title": "Notes", "text": "what flows here, now and then and always"},
              {"_id": "q2", "text": "another text"}]  # fmt: skip
    queries = [{"_id": "q1", "text": "what flows here"}, {"_id": "q2", "text": "what flows here now and then, always"}]
    for name, items in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/train.tsv").write_text("q1\td1\t1\nq2\td1\t1\n")
    relevance = Relevance(load_dataset(tmp_path, "train"))
    assert relevance.forbidden("q1", ["d1", "d2", "q1", "q2"]) == [True, True, False, False]
    corpus[2]["text"] = "what flows here?"
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(item) + "\n" for item in corpus))
    (tmp_path / "excluded.tsv").write_text("query-id\tcorpus-id\nq2\td2\n")
    relevance = Relevance(load_dataset(tmp_path, "train"))
    assert relevance.forbidden("q1", ["d1", "d2", "q1", "q2"]) == [True, True, True, False]
    assert relevance.forbidden("q2", ["d1", "d2", "q1", "q2"]) == [True, True, False, False]
