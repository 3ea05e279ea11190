"""Exact search: the inner product of every query with every document, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.passages import documents_of
from ..errors import InputError
from ..models.similarity import Similarity, as_scored
from ..types import Items, Role, Run

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Vectors(Protocol):
    """Rows (D, H) that are read as float32 in blocks: an array, or stored vectors (vectors.py)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice | Rows, /) -> Floats: ...


_QUERIES = 256  # queries scored at once
_DOCUMENTS = 16384  # documents scored at once; fewer where embeddings are wide
_NUMBERS = 2**24  # numbers of document embeddings held at once


def exact_search(
    queries: Floats,
    documents: Vectors,
    k: int,
    *,
    similarity: Similarity = "dot",
    tie_order: Rows | None = None,
    removed: Rows | None = None,
) -> tuple[Floats, Rows]:
    """The k best documents of each query: scores (Q, k) float32 and rows (Q, k) int64, best first.

    queries: (Q, H) and documents: (D, H) float32 (float16 is widened). "cosine" normalises each block as it is read, so
    that `documents` may be a memory-mapped array larger than memory. k beyond the number of documents is cut to it.
    tie_order: (D,) numbers from 0; of equal scores the document with the larger number comes first. None: the lower row
    comes first. Rows of one number stand together and are passages of one document: it scores as its best passage does,
    is found once, by its first row, and k counts documents. The block size changes neither scores nor order.
    removed: rows that are never found.

    Raises InputError for embeddings or scores that are not finite, for no documents and for dimensions that differ.
    """
    allowed = np.ones(len(documents), dtype=bool)
    if removed is not None:
        allowed[removed] = False
    order = np.arange(len(documents) - 1, -1, -1) if tie_order is None else tie_order
    k = min(k, len(_first_rows(order[allowed])))
    if not allowed.any():
        raise InputError("there are no documents to search")
    if queries.shape[1] != documents.shape[1]:
        raise InputError(f"queries have {queries.shape[1]} dimensions and documents have {documents.shape[1]}")
    asked = torch.from_numpy(scored_block(queries, 0, len(queries), similarity, "query"))
    size = max(1, min(_DOCUMENTS, _NUMBERS // max(1, documents.shape[1])))
    best = torch.empty((len(queries), 0), dtype=torch.int64)  # (Q, up to k) keys, best first
    firsts = _first_rows(order)
    for start, stop in _blocks(firsts, len(documents), size):
        rows = np.flatnonzero(allowed[start:stop]) + start
        block = documents[start:stop] if len(rows) == stop - start else documents[rows]
        part = torch.from_numpy(as_scored(np.require(block, np.float32, "W"), similarity))
        merged = _better(best, asked, part, torch.from_numpy(order[rows]), k)
        if merged is None:
            scored_block(documents, start, stop, similarity, "document")  # names the row that is not finite
            raise InputError("a score is not finite: embeddings are too large; the model or its precision is broken")
        best = merged
    scores, numbers = _unpack(best)
    row_of = np.empty(int(order.max()) + 1, dtype=np.int64)
    row_of[order[firsts]] = firsts
    return scores, row_of[numbers]


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


def _better(best: Tensor, queries: Tensor, documents: Tensor, order: Tensor, k: int) -> Tensor | None:
    """The best k of the best so far and a block of rows, as keys (Q, up to k); None if a score is not finite."""
    firsts = _first_rows(order.numpy())
    merged = []
    for start in range(0, len(queries), _QUERIES):
        scores = queries[start : start + _QUERIES] @ documents.T  # (Q, D) of this block
        if not scores.isfinite().all():
            return None
        if len(firsts) < len(order):  # of each document's passages the best
            scores = torch.from_numpy(np.maximum.reduceat(scores.numpy(), firsts, axis=1))
        keys = torch.cat([best[start : start + _QUERIES], _best_keys(scores, order[firsts], k)], dim=1)
        merged.append(keys.topk(min(k, keys.shape[1]), dim=1).values)
    return torch.cat(merged) if merged else best


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


def _unpack(keys: Tensor) -> tuple[Floats, Rows]:
    scores = _monotone((keys >> 32).to(torch.int32)).view(torch.float32)
    return scores.numpy(), (keys & 0xFFFFFFFF).numpy()


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
