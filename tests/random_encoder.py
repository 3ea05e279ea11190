"""An encoder without a model, and a corpus to index with it."""

import json
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from embedtune.data.jsonl import JsonLines
from embedtune.types import Item


class Random:
    """An encoder that gives each text a random vector of its own; a query's is near its document's."""

    name = "models/random"
    dimension = 16
    device = "cpu"
    max_length = None
    passages = None

    def __init__(self, identity: str = "1" * 32, similarity: str = "cosine") -> None:
        self.identity = self.document_identity = identity
        self.similarity = similarity

    def prompt(self, role: str) -> None:
        return None

    def split(self, corpus: Sequence[Item]) -> Sequence[Item]:
        return corpus

    def encode(self, items: Sequence[Item], role: str, *, on_progress: object = None) -> np.ndarray:
        rows = [np.random.default_rng(crc32(item.content.encode())).normal(size=self.dimension) for item in items]
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.dimension) + 0.1 * (role == "query")


def corpus(path: Path, ids: Sequence[str], note: str = "") -> JsonLines:
    path.parent.mkdir(exist_ok=True, parents=True)
    lines = [json.dumps({"_id": doc_id, "title": f"Title {doc_id}", "text": f"text{note}"}) for doc_id in ids]
    path.write_text("\n".join(lines) + "\n")
    return JsonLines(path)
