"""What may never be a negative of a query: everything judged positive for it, and everything that reads the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache, cached_property

from .files import fingerprint_of
from .types import Dataset


def text_key(text: str) -> str:
    """Equal for texts that differ only in case and white space."""
    return fingerprint_of(" ".join(text.casefold().split()))


class Relevance:
    """Judgements by id, extended to queries with the same text and documents with the same text."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.positives: dict[str, frozenset[str]] = {
            query_id: frozenset(doc_id for doc_id, grade in judged.items() if grade > 0)
            for query_id, judged in dataset.qrels.items()
        }
        self.document_key = cache(lambda doc_id: text_key(dataset.corpus[doc_id].content))
        self.query_key = cache(lambda query_id: text_key(dataset.queries[query_id].content))
        self.is_made = cache(lambda query_id: dataset.queries[query_id].made)

    @cached_property
    def _same_text(self) -> dict[str, frozenset[str]]:
        """query text -> every document that is positive for some query of that text."""
        found: dict[str, set[str]] = defaultdict(set)
        for query_id, positives in self.positives.items():
            found[self.query_key(query_id)] |= positives
        return {key: frozenset(positives) for key, positives in found.items()}

    @cache  # noqa: B019 - one per run, as long as the run
    def _forbidden_keys(self, query_id: str) -> frozenset[str]:
        key = self.query_key(query_id)
        return frozenset({self.document_key(doc_id) for doc_id in self._same_text.get(key, frozenset())} | {key})

    def forbidden(self, query_id: str, doc_ids: Iterable[str]) -> list[bool]:
        """True where a document may not be a negative of the query: positive for it or for a query of the same text,
        the same text as such a document, or the query's own text."""
        keys = self._forbidden_keys(query_id)
        return [self.document_key(doc_id) in keys for doc_id in doc_ids]

    def forbidden_texts(self, query_id: str, texts: Iterable[str]) -> list[bool]:
        """The same for texts that are no document of the corpus."""
        keys = self._forbidden_keys(query_id)
        return [text_key(text) in keys for text in texts]
