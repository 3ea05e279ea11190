"""FlagEmbedding's training files: `{"query": str, "pos": [str], "neg": [str], "prompt"?: str}`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..types import Item
from .records import LabelledQuery, Row, one, required, texts


def records(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """Each line as a record; `prompt` is the query's instruction. `pos_scores`, `neg_scores`, `id` are not used."""
    for row in rows:
        yield LabelledQuery(
            where=row[0],
            query=Item(id="", text=one(row, "query"), instruction=next(texts(row, "prompt"), None)),
            positives=tuple(Item(id="", text=text) for text in required(row, "pos")),
            negatives=tuple(Item(id="", text=text) for text in texts(row, "neg")),
        )
