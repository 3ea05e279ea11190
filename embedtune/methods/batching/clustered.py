from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Pair
from .. import MethodSpec
from . import BatchContext, cut

SPEC = MethodSpec(needs=("query_embeddings",))


def clustered(
    pairs: Sequence[Pair],
    batch_size: int,
    context: BatchContext,
    *,
    doublings: int = 6,
    generator: torch.Generator,
) -> list[list[Pair]]:
    """Fills batches with clusters of similar queries that grow as training goes on (NGAME, arXiv 2207.04452).

    Queries are clustered by balanced, hierarchical 2-means on their embeddings. The clusters are shuffled, concatenated
    and cut into batches, so that part of a query's in-batch negatives belong to similar queries.

    doublings: a cluster holds 1 query at first, which is a plain shuffle, and up to 2^doublings in the last epoch;
        with a single epoch, clusters have that size at once.

    Departures: NGAME doubles at fixed epochs of a long training (10, 20, 25, 50, ... 200, so up to 2^9); here the
    doublings are spread evenly over context.progress. Every pair is used once. Raises InputError where
    context.query_embeddings is missing.
    """
    if context.query_embeddings is None:
        raise InputError("batching.clustered: needs the queries' embeddings")
    largest = 2 ** min(int(context.progress * (doublings + 1)), doublings)
    embeddings = context.query_embeddings.float()
    clusters = _halve(torch.randperm(len(pairs), generator=generator), embeddings, largest, generator)
    order = torch.randperm(len(clusters), generator=generator).tolist()
    return cut([pairs[index] for row in order for index in clusters[row].tolist()], batch_size)


def _halve(members: Tensor, embeddings: Tensor, largest: int, generator: torch.Generator) -> list[Tensor]:
    """Splits members (n,) in halves, again and again, until no part is larger than `largest`."""
    if len(members) <= largest:
        return [members]
    if largest == 1:
        return list(members[:, None])
    points = embeddings[members]  # (n, H)
    first, second = points[torch.randperm(len(points), generator=generator)[:2]]
    middle = (len(points) + 1) // 2
    order = torch.arange(len(points))
    for _ in range(10):
        before = order
        # The difference of a point's squared distances to two centres is linear in it: split at the median.
        order = (points @ (first - second)).argsort(descending=True, stable=True).cpu()
        first, second = points[order[:middle]].mean(dim=0), points[order[middle:]].mean(dim=0)
        if torch.equal(order, before):
            break
    near, far = members[order[:middle]], members[order[middle:]]
    return [*_halve(near, embeddings, largest, generator), *_halve(far, embeddings, largest, generator)]
