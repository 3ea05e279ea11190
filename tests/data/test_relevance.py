"""What may never be a negative."""

from __future__ import annotations

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
