"""Dataset folders made line by line, so that a test can put one fault into one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

CORPUS = (b'{"_id": "d1", "title": "Bread", "text": "is baked"}', b'{"_id": "d2", "text": "Rivers flow"}')
QUERIES = (b'{"_id": "q1", "text": "what is baked"}', b'{"_id": "q2", "text": "what flows"}')
QRELS = {"test": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n"}

MakeFolder = Callable[..., Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    def make(
        corpus: tuple[bytes, ...] = CORPUS,
        queries: tuple[bytes, ...] = QUERIES,
        qrels: Mapping[str, str] = QRELS,
        name: str = "made",
    ) -> Path:
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        (folder / "corpus.jsonl").write_bytes(b"".join(line + b"\n" for line in corpus))
        (folder / "queries.jsonl").write_bytes(b"".join(line + b"\n" for line in queries))
        for split, text in qrels.items():
            (folder / "qrels" / f"{split}.tsv").write_text(text, encoding="utf-8")
        return folder

    return make
