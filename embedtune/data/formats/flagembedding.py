"""FlagEmbedding's training rows. https://github.com/FlagOpen/FlagEmbedding, examples/finetune/embedder/README.md"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...types import Item
from ..jsonl import LineError
from ..records import LabelledQuery, Row, missing, one_text, texts
from . import RowFormat


def labelled_queries(rows: Iterable[Row]) -> Iterator[LabelledQuery]:
    """`{"query", "pos": [...], "neg": [...], "pos_scores"?, "neg_scores"?, "prompt"?}`.

    `prompt` is the query's instruction; the scores are a teacher's. `id` and `type` are not used.
    """
    for row in rows:
        positives, negatives = texts(row, "pos"), texts(row, "neg")
        if not positives:
            raise missing(row, "pos")
        yield LabelledQuery(
            where=row[0],
            query=Item(id="", text=one_text(row, "query"), instruction=next(iter(texts(row, "prompt")), None)),
            positives=tuple(Item(id="", text=text) for text in positives),
            negatives=tuple(Item(id="", text=text) for text in negatives),
            teacher=(*_scores(row, "pos_scores", len(positives)), *_scores(row, "neg_scores", len(negatives))),
        )


def _scores(row: Row, column: str, count: int) -> tuple[float | None, ...]:
    """A teacher's scores of `count` documents; None for each where the column is absent or empty."""
    where, values = row
    scores = values.get(column)
    if not scores:
        return (None,) * count
    if not isinstance(scores, list) or not all(isinstance(s, int | float) and not isinstance(s, bool) for s in scores):
        raise LineError(where, "wrong type", f"{column!r} must be a list of numbers, got {str(scores)[:40]}")
    if len(scores) != count:
        raise LineError(where, "wrong type", f"{len(scores)} {column!r} for {count} documents; give one for each")
    return tuple(map(float, scores))


FORMAT = RowFormat(
    name="FlagEmbedding", recognises=lambda values: isinstance(values.get("pos"), list), read=labelled_queries
)
