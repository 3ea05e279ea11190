"""Exact search: the inner product of every query with every document, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..models.similarity import Similarity, as_scored
from ..types import Role, Run

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
    tie_order: (D,) a permutation of 0..D-1; of equal scores the document with the larger number comes first. None: the
    lower row comes first. The block size changes neither scores nor order.
    removed: rows that are never found.

    Raises InputError for embeddings or scores that are not finite, for no documents and for dimensions that differ.
    """
    allowed = np.ones(len(documents), dtype=bool)
    if removed is not None:
        allowed[removed] = False
    k = min(k, int(allowed.sum()))
    if not allowed.any():
        raise InputError("there are no documents to search")
    if queries.shape[1] != documents.shape[1]:
        raise InputError(f"queries have {queries.shape[1]} dimensions and documents have {documents.shape[1]}")
    order = np.arange(len(documents) - 1, -1, -1) if tie_order is None else tie_order
    asked = torch.from_numpy(scored_block(queries, 0, len(queries), similarity, "query"))
    size = max(1, min(_DOCUMENTS, _NUMBERS // max(1, documents.shape[1])))
    best = torch.empty((len(queries), 0), dtype=torch.int64)  # (Q, up to k) keys, best first
    for start in range(0, len(documents), size):
        rows = np.flatnonzero(allowed[start : start + size]) + start
        whole = len(rows) == min(size, len(documents) - start)
        block = documents[start : start + size] if whole else documents[rows]
        part = torch.from_numpy(as_scored(np.require(block, np.float32, "W"), similarity))
        merged = _better(best, asked, part, torch.from_numpy(order[rows]), k)
        if merged is None:
            scored_block(documents, start, start + size, similarity, "document")  # names the row that is not finite
            raise InputError("a score is not finite: embeddings are too large; the model or its precision is broken")
        best = merged
    scores, positions = _unpack(best)
    row_of = np.empty(len(order), dtype=np.int64)
    row_of[order] = np.arange(len(order))
    return scores, row_of[positions]


def scored_block(embeddings: Vectors, start: int, stop: int, similarity: Similarity, role: Role) -> Floats:
    """(stop - start, H) float32 rows as they are scored: a copy. Raises InputError for rows that are not finite."""
    rows = np.array(embeddings[start:stop], dtype=np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = start + int(np.argmin(finite))
        raise InputError(f"the embedding of {role} row {row} is not finite: the model is broken, or its precision is")
    return as_scored(rows, similarity)


def _better(best: Tensor, queries: Tensor, documents: Tensor, order: Tensor, k: int) -> Tensor | None:
    """The best k of the best so far and a block of documents, as keys (Q, up to k); None if a score is not finite."""
    merged = []
    for start in range(0, len(queries), _QUERIES):
        scores = queries[start : start + _QUERIES] @ documents.T  # (Q, D) of this block
        if not scores.isfinite().all():
            return None
        keys = torch.cat([best[start : start + _QUERIES], _best_keys(scores, order, k)], dim=1)
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
