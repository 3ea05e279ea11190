"""What may never be a negative of a query: everything judged positive for it, and everything that is the same."""

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
    """Judgements by id, extended to queries of the same content and documents of the same content."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.positives: dict[str, frozenset[str]] = {
            query_id: frozenset(doc_id for doc_id, grade in judged.items() if grade > 0)
            for query_id, judged in dataset.qrels.items()
        }
        self.document_key = cache(lambda doc_id: item_key(dataset.corpus[doc_id]))
        self.query_key = cache(lambda query_id: item_key(dataset.queries[query_id]))
        self.is_made = cache(lambda query_id: dataset.queries[query_id].made)

    @cached_property
    def _same_query(self) -> dict[str, frozenset[str]]:
        """query's key -> every document that is positive for some query of that key."""
        found: dict[str, set[str]] = defaultdict(set)
        for query_id, positives in self.positives.items():
            found[self.query_key(query_id)] |= positives
        return {key: frozenset(positives) for key, positives in found.items()}

    @cache  # noqa: B019 - one per run, as long as the run
    def forbidden_keys(self, query_id: str) -> frozenset[str]:
        """What may not be a negative of the query, by `item_key`: what is positive for it or for a query of the same
        content, and the query's own content."""
        key = self.query_key(query_id)
        return frozenset({self.document_key(doc_id) for doc_id in self._same_query.get(key, frozenset())} | {key})

    def forbidden(self, query_id: str, doc_ids: Iterable[str]) -> list[bool]:
        """True where a document may not be a negative of the query."""
        keys = self.forbidden_keys(query_id)
        return [self.document_key(doc_id) in keys for doc_id in doc_ids]
