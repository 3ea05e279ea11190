"""Stored vectors: made from embeddings, read back as numbers, searched. `storage` says what each precision holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..models.similarity import Similarity
from .exact import Floats, Rows, among_passages, exact_search, scored_block
from .storage import CANDIDATES, Quantize, Rescore, Storage, bytes_of

BLOCK = 65_536  # rows quantised at once
_LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True, kw_only=True)
class Form:
    """How rows of embeddings become stored vectors and are read back.

    ranges: (2, H) float32 the smallest and the largest value of each dimension, of int8 alone.
    """

    dimension: int
    quantize: Quantize
    similarity: Similarity
    ranges: Floats | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype({"none": "float32", "float16": "float16"}.get(self.quantize, "uint8"))

    @property
    def width(self) -> int:
        """The numbers of one stored vector."""
        return bytes_of(self.dimension, "binary") if self.quantize == "binary" else self.dimension

    def block(self, embeddings: Floats, start: int, stop: int) -> npt.NDArray[Any]:
        """(stop - start, width) stored vectors of the model's embeddings (D, at least H): cut, then as scored.

        Raises InputError for embeddings that are not finite, and for those that float16 cannot hold.
        """
        return self.codes(scored_block(embeddings[:, : self.dimension], start, stop, self.similarity, "document"))

    def codes(self, rows: Floats) -> npt.NDArray[Any]:
        """(n, width) stored vectors of rows (n, H) as they are."""
        if self.quantize == "none":
            return rows
        if self.quantize == "float16":
            if np.abs(rows).max(initial=0) > _LARGEST_FLOAT16:
                raise InputError("an embedding is too large for float16 (above 65504); use --quantize int8 or none")
            return rows.astype(np.float16)
        from sentence_transformers.util.quantization import quantize_embeddings

        precision: Any = {"int8": "uint8", "binary": "ubinary"}[self.quantize]
        return np.asarray(quantize_embeddings(rows, precision=precision, ranges=self.ranges))

    def read(self, codes: npt.NDArray[Any]) -> Floats:
        """(n, H) float32 of stored vectors (n, width)."""
        if self.ranges is not None:  # the middle of the step, as FAISS's scalar quantiser reads it
            low, high = self.ranges
            return np.asarray((codes + np.float32(0.5)) * ((high - low) / np.float32(255)) + low, dtype=np.float32)
        if self.quantize == "binary":
            bits = np.unpackbits(codes, axis=1, count=self.dimension).astype(np.float32)
            return (2 * bits - 1) / np.float32(np.sqrt(self.dimension))
        return np.asarray(codes, dtype=np.float32)

    def store(self, embeddings: Floats) -> Stored:
        """All of the model's embeddings (D, at least H)."""
        values = np.empty((len(embeddings), self.width), dtype=self.dtype)
        for start in range(0, len(embeddings), BLOCK):
            stop = min(start + BLOCK, len(embeddings))
            values[start:stop] = self.block(embeddings, start, stop)
        return Stored(form=self, values=values)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Stored vectors (D, width), whose rows are read back as float32 (n, H)."""

    form: Form
    values: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.values), self.form.dimension

    def __getitem__(self, rows: slice | Rows) -> Floats:
        return self.form.read(self.values[rows])


def forms_of(
    storage: Storage, dimension: int, similarity: Similarity, ranges: Floats | None
) -> tuple[Form, Form | None]:
    """The form that is searched, and the one that the candidates are scored with if it is another."""

    def form(quantize: Quantize) -> Form:
        of_int8 = ranges if quantize == "int8" else None
        return Form(dimension=dimension, quantize=quantize, similarity=similarity, ranges=of_int8)

    kept: dict[Rescore, Quantize] = {"int8": "int8", "float32": "none"}
    return form(storage.quantize), form(kept[storage.rescore]) if storage.rescore is not None else None


def ranges_of(embeddings: Floats, dimension: int, similarity: Similarity) -> Floats:
    """(2, H) the smallest and the largest value of each dimension over embeddings (D, at least H), cut, as scored."""
    low, high = np.full(dimension, np.inf, np.float32), np.full(dimension, -np.inf, np.float32)
    for start in range(0, len(embeddings), BLOCK):
        rows = scored_block(embeddings[:, :dimension], start, start + BLOCK, similarity, "document")
        low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
    return np.stack([low, high])


def outside(embeddings: Floats, form: Form) -> float:
    """The share of the values of embeddings (D, at least H) that lie outside the ranges of int8, and are clipped."""
    if form.ranges is None:
        return 0.0
    (low, high), count = form.ranges, 0
    for start in range(0, len(embeddings), BLOCK):
        rows = scored_block(embeddings[:, : form.dimension], start, start + BLOCK, form.similarity, "document")
        count += int(np.count_nonzero((rows < low) | (rows > high)))
    return count / max(1, len(embeddings) * form.dimension)


def search(
    queries: Floats,
    vectors: Stored,
    k: int,
    *,
    rescored_by: Stored | None = None,
    tie_order: Rows,
    removed: Rows | None = None,
) -> tuple[Floats, Rows]:
    """The k best documents of each query: scores (Q, k) and rows (Q, k), best first, equal scores by `tie_order`.

    queries: (Q, H) float32 as scored. rescored_by: the candidates' vectors for the last scoring. removed: rows that are
    never found. Rows of one number in tie_order are passages of one document, which is found once, by one of them.
    """
    if vectors.form.quantize != "binary" and rescored_by is None:
        return exact_search(queries, vectors, k, tie_order=tie_order, removed=removed)
    if (np.diff(tie_order) == 0).any():
        of_rows = np.argsort(np.argsort(tie_order, kind="stable"))

        def ranked(wide: int) -> tuple[Floats, Rows]:
            return search(queries, vectors, wide, rescored_by=rescored_by, tie_order=of_rows, removed=removed)

        return among_passages(ranked, k, len(vectors) - (0 if removed is None else len(removed)), tie_order)
    wide = max(k, CANDIDATES)
    if vectors.form.quantize == "binary":
        rows = _by_hamming(queries, vectors, wide, removed)
    else:
        _, rows = exact_search(queries, vectors, wide, tie_order=tie_order, removed=removed)
    return rescored(queries, rescored_by or vectors, rows, k, tie_order)


def _by_hamming(queries: Floats, vectors: Stored, k: int, removed: Rows | None) -> Rows:
    """(Q, min(k, D)) rows of the documents whose bits differ least from the query's."""
    import faiss

    kept = np.arange(len(vectors)) if removed is None else np.setdiff1d(np.arange(len(vectors)), removed)
    values = vectors.values if len(kept) == len(vectors) else vectors.values[kept]
    k = min(k, len(kept))
    if not k:
        raise InputError("there are no documents to search")
    if not len(queries):
        return np.empty((0, k), dtype=np.int64)
    _, nearest = faiss.knn_hamming(vectors.form.codes(queries), np.ascontiguousarray(values), k)
    return np.asarray(kept[nearest])


def rescored(queries: Floats, vectors: Stored, rows: Rows, k: int, tie_order: Rows) -> tuple[Floats, Rows]:
    """The k best of each query's candidates (Q, C), scored with these vectors. Row -1 is no candidate."""
    k = min(k, rows.shape[1])
    scores, best = np.full((len(rows), k), -np.inf, np.float32), np.full((len(rows), k), -1, np.int64)
    for query, candidates in enumerate(rows):
        there = candidates[candidates >= 0]
        # Summed row by row: a matrix product may give equal rows scores that differ in the last bit.
        values = (vectors[there] * queries[query]).sum(axis=1)
        order = np.lexsort((tie_order[there], values))[::-1][:k]
        scores[query, : len(order)], best[query, : len(order)] = values[order], there[order]
    return scores, best
