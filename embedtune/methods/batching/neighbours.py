from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError
from ...search.exact import Searcher
from ...types import Pair
from .. import MethodSpec
from . import BatchContext, cut, marks

SPEC = MethodSpec(needs=("query_embeddings", "document_embeddings"))


def neighbours(
    pairs: Sequence[Pair],
    batch_size: int,
    context: BatchContext,
    *,
    select: int = 64,
    depth: int = 128,
    nearest: float = 0.5,
    generator: torch.Generator,
) -> list[list[Pair]]:
    """Puts a query in a batch with the pairs whose documents are similar to it (Sample4Geo, arXiv 2303.11851).

    Unused pairs are taken in random order; each brings up to `select` unused ones from the `depth` pairs whose
    positives its query scores highest, the share `nearest` of them the nearest ones, the rest random. SaHa
    (2508.00955) builds batches in the same way, from the queries of the documents retrieved. select 0 is a plain
    shuffle; select 9, depth 200 and nearest 1 make the groups of BSC (2110.15725).

    Departures: Sample4Geo drops the last batch, here every pair is used once; and a pair that shares a query, a
    positive or a query text with the seed is no neighbour, as it would be masked. Raises InputError where
    context.query_embeddings or context.document_embeddings is missing.
    """
    if context.query_embeddings is None or context.document_embeddings is None:
        raise InputError("batching.neighbours: needs the embeddings of queries and of their positives")
    if not 0 <= nearest <= 1:
        raise InputError(f"batching.neighbours.nearest: expected 0 to 1, got {nearest}")
    texts = context.query_texts or {}
    known = [marks(pair, texts.get(pair.query_id)) for pair in pairs]
    near = _nearest(context.query_embeddings.float(), context.document_embeddings.float(), depth if select else 0)
    unused = set(range(len(pairs)))
    ordered: list[int] = []
    for seed in torch.randperm(len(pairs), generator=generator).tolist():
        if seed not in unused:
            continue
        unused.discard(seed)
        ordered.append(seed)
        room = min(select, -len(ordered) % batch_size)  # neighbours that still fit beside their seed
        free = [
            pair_index
            for pair_index in near[seed].tolist()
            if pair_index in unused and known[pair_index].isdisjoint(known[seed])
        ]
        first = math.ceil(room * nearest)
        others = free[first:]
        drawn = torch.randperm(len(others), generator=generator)[: room - len(free[:first])].tolist()
        chosen = [*free[:first], *(others[index] for index in drawn)]
        ordered += chosen
        unused.difference_update(chosen)
    return cut([pairs[index] for index in ordered], batch_size)


def _nearest(queries: Tensor, documents: Tensor, depth: int) -> Tensor:
    """(n, depth) for each query, the pairs whose documents score highest, best first, searched where they are."""
    if not depth or not len(documents):
        return torch.empty((len(queries), 0), dtype=torch.int64)
    searcher = Searcher(documents.cpu().numpy(), device=documents.device)
    return torch.from_numpy(searcher.search(queries.cpu().numpy(), depth)[1])
