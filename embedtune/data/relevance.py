"""What may never be a negative of a query: its positives, and everything with the same content.

It stands with the data because training, evaluation and mining ask it alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache, cached_property

from ..files import fingerprint_of
from ..types import Dataset, Item
from .images import identity


def text_key(text: str) -> str:
    """Equal for texts that differ only in case and white space."""
    return fingerprint_of(_folded(text))


def item_key(item: Item) -> str:
    """Equal for items whose texts differ only in case and white space and whose images are the same bytes."""
    if item.image is None:
        return text_key(item.content)
    return fingerprint_of(_folded(item.content), identity(item.image))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


class Relevance:
    """Judgements by id, extended to queries of the same content and documents of the same content.

    Keys are computed once and live as long as the object.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.positives: dict[str, frozenset[str]] = {
            query_id: frozenset(doc_id for doc_id, grade in judged.items() if grade > 0)
            for query_id, judged in dataset.qrels.items()
        }
        # The caches belong to the object: a cache on a method belongs to the class, and would keep every object alive.
        self.document_key = cache(lambda doc_id: item_key(dataset.corpus[doc_id]))
        self.query_key = cache(lambda query_id: item_key(dataset.queries[query_id]))
        self.is_made = cache(lambda query_id: dataset.queries[query_id].made)
        self._forbidden: dict[str, frozenset[str]] = {}

    def forbidden_keys(self, query_id: str) -> frozenset[str]:
        """The `item_key`s of everything that may not be a negative of the query: the positives of the query and of
        every query of the same content, and the query's own content."""
        if query_id not in self._forbidden:
            key = self.query_key(query_id)
            positives = self._positives_by_key.get(key, set())
            self._forbidden[query_id] = frozenset({key, *map(self.document_key, positives)})
        return self._forbidden[query_id]

    @cached_property
    def _positives_by_key(self) -> dict[str, set[str]]:
        """A query's key -> every document that is positive for some query of that key."""
        by_key: dict[str, set[str]] = defaultdict(set)
        for query_id, positives in self.positives.items():
            by_key[self.query_key(query_id)] |= positives
        return dict(by_key)

    def forbidden(self, query_id: str, doc_ids: Iterable[str]) -> list[bool]:
        """True where a document may not be a negative of the query."""
        keys = self.forbidden_keys(query_id)
        return [self.document_key(doc_id) in keys for doc_id in doc_ids]
