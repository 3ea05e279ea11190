"""Long documents as passages: windows of tokens, each with its document's title at its head.

A passage's id is its document's id, `#` and its number from 0 (as in Pyserini's MaxP). A document that is short enough,
or has an image, is one passage. Judgements stay by document; the best passage stands for it (MaxP, arXiv 1905.09217).
"""

from __future__ import annotations

import dataclasses
import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt

from ..files import cache_folder, fingerprint_of, inner_folder, lock
from ..types import Item, Items
from .mixture import BETWEEN, JoinedItems, prefixed

Rows = npt.NDArray[np.int64]
Offsets = list[tuple[int, int]]
"""Where each token of a text starts and ends, in characters."""

_NUMBER = "#"  # between a document's id and its passage's number
_AT_ONCE = 256  # documents tokenised at once
_VERSION = "1"  # of the splitting, as part of the cache's key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splitter:
    """How documents are split.

    tokens: of a passage at most, its title included. stride: tokens that neighbouring passages share, as in
    transformers. offsets: the tokenizer, without special tokens. tokenizer: its fingerprint.
    """

    tokens: int
    stride: int
    offsets: Callable[[Sequence[str]], list[Offsets]]
    tokenizer: str


class PassageItems:
    """A corpus's passages, document by document. The texts are read through the corpus.

    table: (P, 4) each passage's document, the end of its title, and the start and end of its text, in characters.
    """

    def __init__(self, documents: Items, table: Rows, fingerprint: str) -> None:
        self.documents, self.fingerprint = documents, fingerprint
        self._table = table
        self.owners: Rows = np.ascontiguousarray(table[:, 0])  # (P,) numbers of documents, ascending
        self._starts = np.searchsorted(self.owners, np.arange(len(documents) + 1))  # (D + 1,)

    @cached_property
    def ids(self) -> Sequence[str]:
        return [passage_id for doc_id in self.documents.ids for passage_id in self.of(doc_id)]

    @property
    def spans(self) -> Rows:
        """(P, 2) where each passage's text starts and ends in its document's text, in characters."""
        return self._table[:, 2:]

    def spans_by_document(self) -> Iterator[Rows]:
        """The spans (n, 2) of each document's passages."""
        for start, stop in pairwise(self._starts.tolist()):
            yield self.spans[start:stop]

    def of(self, doc_id: str) -> list[str]:
        """The ids of a document's passages."""
        number = self.documents.row(doc_id)
        return [passage_id(doc_id, part) for part in range(int(self._starts[number + 1] - self._starts[number]))]

    def __len__(self) -> int:
        return len(self.owners)

    def __contains__(self, item_id: object) -> bool:
        doc_id = document_in(str(item_id))
        return doc_id in self.documents and item_id in self.of(doc_id)

    def __getitem__(self, item_id: str) -> Item:
        return self._cut(self.documents[document_in(item_id)], self.row(item_id))

    def __iter__(self) -> Iterator[Item]:
        for document, (start, stop) in zip(self.documents, pairwise(self._starts.tolist()), strict=True):
            for row in range(start, stop):
                yield self._cut(document, row)

    def row(self, item_id: str) -> int:
        doc_id, _, number = item_id.rpartition(_NUMBER)
        return int(self._starts[self.documents.row(doc_id)]) + int(number)

    def _cut(self, document: Item, row: int) -> Item:
        number, title_end, start, end = self._table[row].tolist()
        part = row - int(self._starts[number])
        title, text = document.title[:title_end], document.text[start:end]
        return dataclasses.replace(document, id=passage_id(document.id, part), title=title, text=text)


def passage_id(doc_id: str, number: int) -> str:
    """The id of a document's passage; passages count from 0."""
    return f"{doc_id}{_NUMBER}{number}"


def document_in(item_id: str) -> str:
    """The id of the document that a passage's id names."""
    return item_id.rpartition(_NUMBER)[0]


def number_in(item_id: str) -> int:
    """The number of the passage that its id names."""
    return int(item_id.rpartition(_NUMBER)[2])


def split(items: Items, splitter: Splitter) -> Items:
    """The passages of a corpus; of a mixture, part by part. The spans are computed once and kept in the cache."""
    if isinstance(items, JoinedItems):
        return JoinedItems({label: split(part, splitter) for label, part in items.parts.items()})
    setting = f"{_VERSION} {splitter.tokens} {splitter.stride}"
    key = fingerprint_of("passages", items.fingerprint, splitter.tokenizer, setting)
    folder = cache_folder() / "passages" / key
    with lock(folder.with_suffix(".lock")):  # of several processes the first splits, the others wait
        if not folder.exists():
            with inner_folder(folder) as temporary:
                np.save(temporary / "table.npy", _table(items, splitter))
    return PassageItems(items, np.load(folder / "table.npy", mmap_mode="r", allow_pickle=False), key)


def documents_of(corpus: Items) -> tuple[Sequence[str], Rows | None]:
    """The ids of a corpus's documents, and the number of each row's document; None where a row is a document."""
    if isinstance(corpus, PassageItems):
        return corpus.documents.ids, corpus.owners
    if not isinstance(corpus, JoinedItems) or not is_split(corpus):
        return corpus.ids, None
    ids: list[str] = []
    owners: list[Rows] = []
    for label, part in corpus.parts.items():
        of_part, numbers = documents_of(part)
        assert numbers is not None  # a mixture is split whole
        owners.append(numbers + len(ids))
        ids += [prefixed(label, doc_id) for doc_id in of_part]
    return ids, np.concatenate(owners)


def is_split(corpus: Items) -> bool:
    """Whether the corpus's items are passages."""
    if isinstance(corpus, JoinedItems):
        return all(isinstance(part, PassageItems) for part in corpus.parts.values())
    return isinstance(corpus, PassageItems)


def passages_of(corpus: Items, doc_id: str) -> list[str]:
    """The ids under which a document stands in a corpus: those of its passages, or its own where it is not split."""
    if isinstance(corpus, JoinedItems):
        label, _, part_id = doc_id.partition(BETWEEN)
        return [prefixed(label, item_id) for item_id in passages_of(corpus.parts[label], part_id)]
    return corpus.of(doc_id) if isinstance(corpus, PassageItems) else [doc_id]


def siblings(corpus: Items, item_id: str) -> list[str]:
    """All passages of an item's document, itself included; the item alone where the corpus is not split."""
    return passages_of(corpus, document_in(item_id)) if is_split(corpus) else [item_id]


def _table(documents: Items, splitter: Splitter) -> Rows:
    """(P, 4) as `PassageItems` takes it."""
    values, number, cut_titles = array("q"), 0, 0
    most = (splitter.tokens - splitter.stride) // 2  # tokens of a title; as many are left to go on by
    remaining = iter(documents)
    while block := list(islice(remaining, _AT_ONCE)):
        titles = splitter.offsets([document.title for document in block])
        texts = splitter.offsets([document.text for document in block])
        for document, title, text in zip(block, titles, texts, strict=True):
            spans, title_end = [(0, len(document.text))], len(document.title)
            if document.image is None and text and len(title) + len(text) > splitter.tokens:
                if len(title) > most:
                    title_end, cut_titles = title[most - 1][1] if most else 0, cut_titles + 1
                spans = windows(document.text, text, splitter.tokens - min(len(title), most), splitter.stride)
            for start, end in spans:
                values.extend((number, title_end, start, end))
            number += 1
    if cut_titles:
        logging.getLogger(__name__).warning(
            f"passages: each begins with its document's title, at most {most} tokens of it; cut: {cut_titles:,} titles"
        )
    return np.array(values, dtype=np.int64).reshape(-1, 4)


def windows(text: str, offsets: Offsets, room: int, stride: int) -> list[tuple[int, int]]:
    """Where passages of at most `room` tokens start and end in a text, in characters; the first starts at 0.

    Neighbours share about `stride` tokens. A passage starts and ends between words, unless a word is longer than half
    of what the passage adds.
    """
    spans: list[tuple[int, int]] = []
    start = first = 0
    while True:
        stop = first + room
        if stop >= len(offsets):
            return [*spans, (start, offsets[-1][1])]
        stop = _word_start(text, offsets, stop, first + stride + max(1, (room - stride) // 2))
        spans.append((start, offsets[stop - 1][1]))
        added = stop - stride - first
        first = _word_start(text, offsets, stop - stride, first + max(1, added // 2))
        start = offsets[first][0]


def _word_start(text: str, offsets: Offsets, row: int, lowest: int) -> int:
    """The last token up to `row` that a blank comes before, not below `lowest`; else `row`."""
    for index in range(row, lowest - 1, -1):
        around = text[max(0, offsets[index][0] - 1) : offsets[index][0] + 1]
        if len(around) < 2 or around != around.strip():
            return index
    return row
