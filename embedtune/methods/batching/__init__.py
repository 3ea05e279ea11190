"""Batching decides which queries share a batch. One file is one way of batching.

    batching(pairs, batch_size, context, *, generator, OPTIONS) -> batches

pairs: an epoch's pairs, a query with its positives each. context: a BatchContext, what else may be known of them; what
takes work to compute is there where the SPEC `needs` it. batches: lists of the same pairs, of batch_size or one more,
each pair used once, and no batch of a single pair. The same generator state gives the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...types import Pair

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BatchContext:
    """What a batching method may know besides the pairs themselves.

    What takes work to know (lengths, embeddings) is there where the method's file names it as `needs` in its SPEC.

    query_texts: query_id -> text (and what stands for its image), so that equal queries can be kept apart.
    lengths: tokens of each pair's query and positives together, in pair order.
    query_embeddings: (n, H) one row a pair; document_embeddings: (n, H) the pair's first positive; both as scored
        (normalised where the similarity is cosine).
    dataset_of: query_id -> the label of the dataset that it came from.
    progress: 0 in the first epoch of training, 1 in the last; 1 where there is one only.
    """

    query_texts: Mapping[str, str] | None = None
    lengths: Sequence[int] | None = None
    query_embeddings: Tensor | None = None
    document_embeddings: Tensor | None = None
    dataset_of: Mapping[str, str] | None = None
    progress: float = 0.0


def cut(pairs: Sequence[Pair], batch_size: int) -> list[list[Pair]]:
    """Batches in the order given. The last one may be short, but a single left-over pair joins the one before it."""
    batches = [list(pairs[start : start + batch_size]) for start in range(0, len(pairs), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2].extend(batches.pop())
    return batches


def marks(pair: Pair, text: str | None) -> set[tuple[str, str]]:
    """What a pair must not share with another of its batch, or one would be masked for the other: query, documents,
    query text."""
    shared = {("query", pair.query_id), *(("document", doc_id) for doc_id in pair.positives)}
    return shared if text is None else shared | {("text", text)}
