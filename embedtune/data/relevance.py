"""What may never be a negative of a query: its positives, itself, and everything with the same content.

It stands with the data because training, evaluation and mining ask it alike.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache, cached_property
from itertools import compress

from ..files import fingerprint_of
from ..types import Dataset, Item, Items
from .ids import among, numbers_of
from .images import identity
from .passages import siblings

# Sets whose queries are documents, also where their texts or ids no longer show it.
_SELF_RETRIEVAL = {"arguana", "quora", "quoraretrieval"}
COMPARED = 100  # queries whose texts decide whether a set's queries are documents
_WORDS = re.compile(r"\w+")


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


def is_same_text(query: Item, document: Item) -> bool:
    """Whether a document is the query itself: equal keys, or four fifths of their words, title or not."""
    if item_key(query) == item_key(document):
        return True
    words = set(_WORDS.findall(query.content.casefold()))
    if not words or document.image is not None:
        return False
    texts = (set(_WORDS.findall(text.casefold())) for text in (document.text, document.content))
    return any(len(words & text) >= 0.8 * len(words | text) for text in texts)


def is_self_retrieval(dataset: Dataset) -> bool:
    """Whether queries are documents too, under their own ids: each would retrieve itself first.

    Known by the names of ArguAna and Quora, else by texts: of the judged queries whose id is a document's, at least
    half are the same text, and none is judged to be its own positive. Where ids coincide otherwise, such as the numbers
    of MS MARCO's queries and documents, the document is another text.
    """
    names = {re.sub("[^a-z]", "", name.lower()) for name in (dataset.name, dataset.folder.name)}
    if any(re.sub("^(beir|nano)", "", name) in _SELF_RETRIEVAL for name in names):
        return True
    numbers = numbers_of(dataset.qrels)
    both = among(numbers, numbers_of(dataset.corpus.ids)) & among(numbers, numbers_of(dataset.queries.ids))
    shared = list(compress(dataset.qrels, both.tolist()))
    if not shared or any(dataset.qrels[query_id].get(query_id, 0) > 0 for query_id in shared):
        return False
    compared = shared[:: max(1, len(shared) // COMPARED)]
    same = sum(is_same_text(dataset.queries[query_id], dataset.corpus[query_id]) for query_id in compared)
    return 2 * same >= len(compared)


def never_ranked(dataset: Dataset, identical_ids: bool) -> dict[str, frozenset[str]]:
    """query_id -> documents never ranked for it: those excluded by the data and, with identical_ids, that of its id."""
    return {
        query_id: dataset.excluded.get(query_id, frozenset()) | ({query_id} if identical_ids else frozenset())
        for query_id in dataset.qrels
        if identical_ids or query_id in dataset.excluded
    }


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
        self.document_keys = cache(lambda doc_id: _document_keys(dataset.corpus, doc_id))
        self.query_key = cache(lambda query_id: item_key(dataset.queries[query_id]))
        self.is_made = cache(lambda query_id: dataset.queries[query_id].made)
        self.siblings = cache(lambda doc_id: siblings(dataset.corpus, doc_id))
        self._forbidden: dict[str, frozenset[str]] = {}
        self.forbidden_ids = cache(lambda query_id: _forbidden_ids(dataset, query_id))

    def document_key(self, doc_id: str) -> str:
        """The document's `item_key`."""
        return self.document_keys(doc_id)[0]

    def judged_positive(self, query_id: str) -> frozenset[str]:
        """The query's positives; where they are passages, all passages of their documents."""
        return frozenset(item_id for doc_id in self.positives[query_id] for item_id in self.siblings(doc_id))

    def forbidden_keys(self, query_id: str) -> frozenset[str]:
        """The `item_key`s of everything that may not be a negative of the query: the positives of the query and of
        every query of the same content, all passages of their documents, and the query's own content."""
        if query_id not in self._forbidden:
            key = self.query_key(query_id)
            positives = self._positives_by_key.get(key, set())
            items = (item_id for doc_id in positives for item_id in self.siblings(doc_id))
            self._forbidden[query_id] = frozenset({key, *map(self.document_key, items)})
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
        keys, ids = self.forbidden_keys(query_id), self.forbidden_ids(query_id)
        return [doc_id in ids or not keys.isdisjoint(self.document_keys(doc_id)) for doc_id in doc_ids]


def _document_keys(corpus: Items, doc_id: str) -> tuple[str, ...]:
    """The keys of a document's content, and of its text where it has a title: a query has none.

    A judged document that is absent has no content; its id stands for it.
    """
    if doc_id not in corpus:
        return (doc_id,)
    document = corpus[doc_id]
    titled = document.title and document.text and document.image is None
    return (item_key(document), text_key(document.text)) if titled else (item_key(document),)


def _forbidden_ids(dataset: Dataset, query_id: str) -> frozenset[str]:
    """The documents that the data excludes for a query, and the one that is the query itself under its own id."""
    is_document = query_id in dataset.corpus and is_same_text(dataset.queries[query_id], dataset.corpus[query_id])
    return dataset.excluded.get(query_id, frozenset()) | ({query_id} if is_document else frozenset())
