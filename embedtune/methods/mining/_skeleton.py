from __future__ import annotations

from collections.abc import Callable

from embedtune.methods.mining import Sourced
from embedtune.models.encoder import Encoder
from embedtune.types import Dataset


def skeleton(
    dataset: Dataset,
    encoder: Encoder,
    *,
    depth: int = 100,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sourced:
    """Takes the first documents of the corpus for every query: say in one line what yours does (cite its paper).

    depth: candidates of a query. Say what each option does and where you depart.
    """
    ranked = {doc_id: -float(rank) for rank, doc_id in enumerate(dataset.corpus.ids[:depth])}
    return {"first": {query_id: dict(ranked) for query_id in dataset.qrels}}
