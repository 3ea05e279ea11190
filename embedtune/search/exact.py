"""Exact search: the inner product of every query with every document, in blocks of bounded memory, on any device.

A tile of scores is compared with each query's k-th best score so far, and only what reaches it is sorted: beside the
products, a search costs one pass over the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.passages import documents_of
from ..errors import InputError
from ..models.beside import ahead
from ..models.similarity import Similarity, as_scored, exact_products, products_with, scored
from ..types import Items, Role, Run

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Vectors(Protocol):
    """Rows (D, H) that are read as float32 in blocks: an array, or stored vectors (vectors.py)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice | Rows, /) -> Floats: ...


QUERIES = 512  # queries scored at once; processes share a search by so many
_DOCUMENTS = 8192  # documents scored at once by a CPU: few enough that their scores stay in its cache
_NUMBERS = 2**24  # numbers of document embeddings that a CPU holds at once
_ON_GPU = 2**18  # documents scored at once by a GPU, where its memory allows
_SORTED = 2048  # documents at the beginning whose scores are sorted: there is nothing yet to compare them with
_SAFE = 1e38  # no product of two vectors overflows whose lengths multiply to less
_LOWEST = torch.iinfo(torch.int64).min  # the key of no document


def exact_search(
    queries: Floats,
    documents: Vectors,
    k: int,
    *,
    similarity: Similarity = "dot",
    tie_order: Rows | None = None,
    removed: Rows | None = None,
) -> tuple[Floats, Rows]:
    """One search on the CPU, as Searcher says."""
    return Searcher(documents, similarity=similarity, tie_order=tie_order, removed=removed).search(queries, k)


class Searcher:
    """Documents that every query is compared with, in float32 and on a device.

    On a GPU the documents stay between searches, as far as a third of its free memory reaches; the others are read
    again at each search, while those before them are compared.
    """

    def __init__(
        self,
        documents: Vectors,
        *,
        similarity: Similarity = "dot",
        tie_order: Rows | None = None,
        removed: Rows | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """documents: (D, H) float32 (float16 is widened). "cosine" normalises each block as it is read, so that they
        may be a memory-mapped array larger than memory.

        tie_order: (D,) numbers from 0; of equal scores the document with the larger number comes first. None: the lower
        row comes first. Rows of one number stand together and are passages of one document: it scores as its best
        passage does, is found once, by its first row, and k counts documents.
        removed: rows that are never found. device: MPS has no topk of int64, so the CPU computes for it.
        """
        self._documents, self._similarity = documents, similarity
        self.shape = documents.shape
        self._order = np.arange(len(documents) - 1, -1, -1) if tie_order is None else tie_order
        self._allowed = np.ones(len(documents), dtype=bool)
        if removed is not None:
            self._allowed[removed] = False
        self._firsts = _first_rows(self._order)
        self.count = len(_first_rows(self._order[self._allowed]))
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        self._room = _free_bytes(self.device)
        self._kept: dict[tuple[int, int], Tensor] = {}  # a block's first row and its end -> the block on the GPU

    def search(self, queries: Floats, k: int) -> tuple[Floats, Rows]:
        """The k best documents of each query: scores (Q, k) float32 and rows (Q, k) int64, best first.

        queries: (Q, H). k beyond the number of documents is cut to it. The size of blocks changes neither scores nor
        order, but for the last bits of products. Raises InputError for embeddings or scores that are not finite, for no
        documents and for dimensions that differ.
        """
        return self.unpack(self.keys(queries, k))

    def keys(self, queries: Floats, k: int, part: tuple[int, int] = (0, 1)) -> Tensor:
        """(Q, k) int64 on the device, best first: numbers that sort as the results do, which `unpack` reads.

        part: (i, n), the i-th of n parts of the documents alone; where it has too few, _LOWEST fills up. The k largest
        keys of all parts are those of the whole.
        """
        if not self.count:
            raise InputError("there are no documents to search")
        if queries.shape[1] != self._documents.shape[1]:
            have = f"queries have {queries.shape[1]} dimensions and documents have {self._documents.shape[1]}"
            raise InputError(have)
        k = min(k, self.count)
        rows = torch.from_numpy(scored_block(queries, 0, len(queries), self._similarity, "query"))
        at_once = max(1, self._room // (QUERIES * 100 * max(k, 1))) * QUERIES  # some 100 bytes for each key
        with exact_products(self.device):
            groups = [self._of_queries(group.to(self.device), k, part) for group in torch.split(rows, at_once)]
        return torch.cat(groups)

    def unpack(self, keys: Tensor) -> tuple[Floats, Rows]:
        """Scores and rows of keys (Q, k), on the host."""
        row_of = np.empty(int(self._order.max()) + 1, dtype=np.int64)
        row_of[self._order[self._firsts]] = self._firsts
        keys = keys.cpu()
        return _scores_of(keys).numpy(), row_of[(keys & 0xFFFFFFFF).numpy()]

    def _of_queries(self, queries: Tensor, k: int, part: tuple[int, int]) -> Tensor:
        """(Q, k) keys for as many queries as there is memory for."""
        if not len(queries):
            return torch.empty((0, k), dtype=torch.int64, device=self.device)
        best = [_Best(tile, k) for tile in torch.split(queries, QUERIES)]
        longest = _longest(queries)
        for (start, stop), block in self._blocks(part):
            documents = self._documents_of(start, stop)
            safe = longest * _longest(block) < _SAFE  # not where it is NaN
            for tile in best:
                products = tile.products(block)
                if not safe and not products.isfinite().all():
                    self._refuse(start, stop)
                tile.add(products, documents)
        return torch.cat([tile.keys() for tile in best])

    def _spans(self, part: tuple[int, int]) -> list[tuple[int, int]]:
        """Where each block of a part starts and ends. Parts do not depend on a GPU's free memory, nor a CPU's blocks on
        the number of parts."""
        width = max(1, self.shape[1])
        size = max(1, min(_DOCUMENTS, _NUMBERS // width))
        spans = list(_blocks(self._firsts, len(self._documents), size))
        number, count = part
        spans = spans[number * len(spans) // count : (number + 1) * len(spans) // count]
        if self.device.type == "cuda":  # memory for this block and the next, and a tile of scores with what reaches it
            joined = max(1, min(_ON_GPU, self._room // 3 // (8 * width + 16 * QUERIES)) // size)
            spans = [(spans[i][0], spans[i : i + joined][-1][1]) for i in range(0, len(spans), joined)]
        return [(start, stop) for start, stop in spans if self._allowed[start:stop].any()]

    def _blocks(self, part: tuple[int, int]) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """Each block of a part: its rows (n, H) on the device, as they are scored."""
        spans = self._spans(part)
        if self.device.type == "cpu":
            yield from ((span, self._read(span)) for span in spans)
            return
        yield from ((span, self._kept[span]) for span in spans if span in self._kept)
        unread = [span for span in spans if span not in self._kept]
        with closing(ahead((span, self._read(span)) for span in unread)) as coming:
            for span, rows in coming:
                block = scored(rows.to(self.device, non_blocking=True), self._similarity)
                if sum(kept.numel() for kept in self._kept.values()) + block.numel() <= self._room // 12:  # a third
                    self._kept[span] = block
                yield span, block

    def _read(self, span: tuple[int, int]) -> Tensor:
        """(n, H) a block's rows on the host: on a CPU as they are scored, for a GPU in pinned memory."""
        start, stop = span
        rows = np.flatnonzero(self._allowed[start:stop]) + start
        block = np.require(self._documents[start:stop] if len(rows) == stop - start else self._documents[rows],
                           np.float32, "W")  # fmt: skip
        if self.device.type == "cpu":
            return torch.from_numpy(as_scored(block, self._similarity))
        if self.device.type != "cuda":
            return torch.from_numpy(block)
        with torch.cuda.device(self.device):  # a new thread's is the first GPU, which is another process's
            return torch.from_numpy(block).pin_memory()

    def _documents_of(self, start: int, stop: int) -> _Documents:
        order = self._order[start:stop][self._allowed[start:stop]]
        firsts = _first_rows(order)
        owners = None if len(firsts) == len(order) else np.cumsum(np.diff(order, prepend=-1) != 0) - 1
        return _Documents(
            torch.from_numpy(order).to(self.device),
            None if owners is None else torch.from_numpy(owners).to(self.device),
        )

    def _refuse(self, start: int, stop: int) -> NoReturn:
        scored_block(self._documents, start, stop, self._similarity, "document")  # names the row that is not finite
        raise InputError("a score is not finite: embeddings are too large; the model or its precision is broken")


def documents_by_row(corpus: Items) -> tuple[Sequence[str], Rows]:
    """For items that may be passages: the id of each row's document, and the rows' tie_order, by that id."""
    doc_ids, owners = documents_of(corpus)
    order = tie_order(doc_ids)
    return (doc_ids, order) if owners is None else ([doc_ids[number] for number in owners.tolist()], order[owners])


def among_passages(
    ranked: Callable[[int], tuple[Floats, Rows]], k: int, most: int, owners: Rows
) -> tuple[Floats, Rows]:
    """The k best documents of each query, each by its best row: scores and rows (Q, k); row -1 where there are fewer.

    ranked: gives the n best rows (Q, n) with their scores. Passages of few documents may fill them, so n grows up to
    `most` until k documents are among them.
    """
    wide = k
    while True:
        wide = min(4 * wide, most)
        all_scores, all_rows = ranked(wide)
        scores, rows = np.full((len(all_rows), k), -np.inf, np.float32), np.full((len(all_rows), k), -1, np.int64)
        for query, of_query in enumerate(all_rows):
            numbers = np.where(of_query < 0, -1, owners[of_query])
            ranks = np.sort(np.unique(numbers, return_index=True)[1])
            ranks = ranks[of_query[ranks] >= 0][:k]
            scores[query, : len(ranks)], rows[query, : len(ranks)] = all_scores[query, ranks], of_query[ranks]
        if wide == most or (rows >= 0).all():
            return scores, rows


def best_rows(queries: Floats, vectors: Vectors, owners: Rows, rows: Rows) -> Rows:
    """(Q, k) for rows of documents, the row of the document's best passage; of equal ones the first.

    queries: (Q, H) and vectors: (P, H), as scored. owners: (P,) the number of each row's document, ascending.
    """
    best = rows.copy()
    for query, of_query in enumerate(owners[rows].tolist()):
        for rank, number in enumerate(of_query):
            first, stop = np.searchsorted(owners, [number, number + 1]).tolist()
            best[query, rank] = first + int(np.argmax(vectors[first:stop] @ queries[query]))
    return best


def _first_rows(order: Rows) -> Rows:
    """Where the rows of each document begin, in a tie_order."""
    return np.flatnonzero(np.diff(order, prepend=-1))


def _blocks(firsts: Rows, count: int, size: int) -> Iterator[tuple[int, int]]:
    """Rows 0 to before `count` in blocks of about `size`, so that a document's rows are in one."""
    ends, start = np.append(firsts, count), 0
    while start < count:
        stop = int(ends[np.searchsorted(ends, min(start + size, count))])
        yield start, stop
        start = stop


def scored_block(embeddings: Vectors, start: int, stop: int, similarity: Similarity, role: Role) -> Floats:
    """(stop - start, H) float32 rows as they are scored: a copy. Raises InputError for rows that are not finite."""
    rows = np.array(embeddings[start:stop], dtype=np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = start + int(np.argmin(finite))
        raise InputError(f"the embedding of {role} row {row} is not finite: the model is broken, or its precision is")
    return as_scored(rows, similarity)


def _free_bytes(device: torch.device) -> int:
    """What a search may take of a GPU's memory: all that is free there. Elsewhere constants bound it."""
    if device.type != "cuda":
        return 2**62
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _longest(rows: Tensor) -> float:
    """The length of the longest vector; NaN or infinite where a number is."""
    return float(torch.linalg.vector_norm(rows, dim=1).max()) if len(rows) else 0.0


@dataclass(frozen=True)
class _Documents:
    """What the rows of a block are. order: (n,) tie_order. owners: (n,) the number of each row's document, ascending;
    None where each row is a document."""

    order: Tensor
    owners: Tensor | None

    def __getitem__(self, rows: slice) -> _Documents:
        return _Documents(self.order[rows], None if self.owners is None else self.owners[rows])

    def first_of(self, row: int) -> int:
        """The first row of the document that has this one; 0 beyond the end."""
        if self.owners is None or row >= len(self.owners):
            return row if row < len(self.order) else 0
        return int(torch.searchsorted(self.owners, self.owners[row]))


class _Best:
    """The k best documents of some queries so far. Those that reach the cut are collected, and sorted out once there
    are as many again."""

    def __init__(self, queries: Tensor, k: int) -> None:
        self.products, self._k = products_with(queries), k
        self._parts = [
            torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
        ]  # (Q, n) keys, unsorted
        self._cut: Tensor | None = None  # (Q,) each query's k-th best score when they were last sorted out

    def add(self, scores: Tensor, documents: _Documents) -> None:
        """scores: (n, Q) of some documents."""
        first = documents.first_of(max(_SORTED, 2 * self._k))
        if self._cut is None and 0 < 2 * first < len(scores):
            self.add(scores[:first], documents[:first])
            self.add(scores[first:], documents[first:])
            return
        part = None if self._cut is None else _reaching(scores, self._cut, documents, max(2 * self._k, 1024))
        if part is None:
            part = _best_keys(*_by_document(scores.T.contiguous(), documents), self._k)
        self._parts.append(part)
        if sum(part.shape[1] for part in self._parts) >= (self._k if self._cut is None else 2 * self._k + 64):
            keys = self._sorted_out()
            self._parts, self._cut = [keys], _scores_of(keys.amin(dim=1)) if self._k else None

    def keys(self) -> Tensor:
        """(Q, k) best first; _LOWEST where there are fewer."""
        keys = self._sorted_out().sort(dim=1, descending=True).values
        return torch.nn.functional.pad(keys, (0, self._k - keys.shape[1]), value=_LOWEST)

    def _sorted_out(self) -> Tensor:
        keys = torch.cat(self._parts, dim=1)
        return keys.topk(self._k, dim=1, sorted=False).values if keys.shape[1] > self._k else keys


def _reaching(scores: Tensor, cut: Tensor, documents: _Documents, most: int) -> Tensor | None:
    """(Q, n) keys of the documents whose scores (D, Q) reach the cut, filled up with _LOWEST; None for over `most`."""
    count = scores.shape[1]
    rows, queries = _true(scores >= cut)
    if len(rows) > count * most:
        return None
    queries, by_query = queries.sort(stable=True)
    rows = rows[by_query]
    keys = _pack(scores[rows, queries], documents.order[rows])
    if documents.owners is not None:  # of each document's passages the best
        pairs, group = torch.unique_consecutive(queries * len(scores) + documents.owners[rows], return_inverse=True)
        keys = torch.full_like(pairs, _LOWEST).scatter_reduce_(0, group, keys, "amax")
        queries = pairs // len(scores)
    counts = torch.bincount(queries, minlength=count)
    widest = int(counts.max())
    if widest > most:
        return None
    padded = torch.full((count, widest), _LOWEST, device=scores.device)
    padded[queries, torch.arange(len(queries), device=scores.device) - (counts.cumsum(0) - counts)[queries]] = keys
    return padded


def _true(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of what is true. Few are, so words of eight are looked at first."""
    if mask.numel() % 8:
        rows, columns = mask.nonzero(as_tuple=True)
        return rows, columns
    words = mask.view(-1).view(torch.int64).nonzero().view(-1)
    word, byte = mask.view(-1, 8)[words].nonzero(as_tuple=True)
    flat = words[word] * 8 + byte
    return flat // mask.shape[1], flat % mask.shape[1]


def _by_document(scores: Tensor, documents: _Documents) -> tuple[Tensor, Tensor]:
    """Scores (Q, documents) of scores (Q, n), and their tie_order: of each document's passages the best."""
    if documents.owners is None:
        return scores, documents.order
    owners = documents.owners - documents.owners[0]
    best = torch.full((len(scores), int(owners[-1]) + 1), -torch.inf, device=scores.device)
    best = best.scatter_reduce_(1, owners.expand(len(scores), -1), scores, "amax")
    return best, torch.empty_like(best[0], dtype=torch.int64).scatter_(0, owners, documents.order)


def _best_keys(scores: Tensor, order: Tensor, k: int) -> Tensor:
    """(Q, min(k, D)) keys of the k best of scores (Q, D), unsorted. Packing is slow, so the best alone are packed."""
    values, columns = scores.topk(min(k, scores.shape[1]), dim=1, sorted=False)
    keys = _pack(values, order[columns])
    if values.numel():
        cut = values.min(dim=1, keepdim=True).values
        tied = (scores == cut).sum(dim=1) > (values == cut).sum(dim=1)  # equal scores on both sides of the cut
        keys[tied] = _pack(scores[tied], order).topk(values.shape[1], dim=1).values
    return keys


def _pack(scores: Tensor, order: Tensor) -> Tensor:
    """int64 keys that sort as (score, order) does: the score's bits above, made monotone; the tie order below."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal 0.0
    return (_monotone(bits).to(torch.int64) << 32) | order


def _scores_of(keys: Tensor) -> Tensor:
    return _monotone((keys >> 32).to(torch.int32)).view(torch.float32)


def _monotone(bits: Tensor) -> Tensor:
    """Float bits as integers of the same order, and back: negative floats have their magnitude flipped."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def tie_order(doc_ids: Sequence[str]) -> Rows:
    """(D,) each document's position when sorted by id: trec_eval puts the larger id first among equal scores."""
    order = np.empty(len(doc_ids), dtype=np.int64)
    order[sorted(range(len(doc_ids)), key=doc_ids.__getitem__)] = np.arange(len(doc_ids))
    return order


def as_run(query_ids: Sequence[str], doc_ids: Sequence[str], scores: Floats, rows: Rows) -> Run:
    """Search results as a run: per query in trec_eval's order, by score and then document id, from high to low.

    scores, rows: (Q, k). A row below 0 is no result; FAISS fills up with them.
    """
    run: Run = {}
    for query_id, ranked, values in zip(query_ids, rows.tolist(), scores.tolist(), strict=True):
        results = [(score, doc_ids[row]) for row, score in zip(ranked, values, strict=True) if row >= 0]
        run[query_id] = {doc_id: score for score, doc_id in sorted(results, reverse=True)}
    return run
