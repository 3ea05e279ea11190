"""One search by several processes of a launch: they take blocks of its queries, through the cache (models/store.py).

Nobody waits in a collective: a process that comes late finds blocks that others have searched, and one that never comes
leaves its blocks to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from .. import distributed
from ..files import fingerprint_of
from ..models import store
from .exact import QUERIES, Floats, Rows, Searcher

WORTH = 2**32  # multiplications: a smaller search takes less time than its sharing


def is_shared(queries: int, documents: tuple[int, ...]) -> bool:
    """Whether so many queries against documents (D, H) are worth sharing, and there are processes to share with."""
    return distributed.count() > 1 and queries > QUERIES and queries * documents[0] * documents[1] >= WORTH


def search_together(searcher: Searcher, queries: Floats, k: int, *parts: str) -> tuple[Floats, Rows]:
    """`searcher.search(queries, k)`, to the bit, with the work shared by all processes that ask for the same.

    parts: fingerprints of everything that the results depend on besides k, the same in each process. The results stay
    in the cache, beside the embeddings that they come from.
    """
    if not is_shared(len(queries), searcher.shape):
        return searcher.search(queries, k)
    k = min(k, searcher.count)
    key = store.Key(encoder=fingerprint_of("search", str(k), *parts), role="query", items=parts[0], count=len(queries))
    size = QUERIES * -(-len(queries) // (2 * distributed.count() * QUERIES))  # some two blocks for each process

    def keys_of(rows: Floats) -> Floats:
        return searcher.keys(rows, k).cpu().numpy().view(np.float32)

    def blocks() -> Iterator[store.Block]:
        for start in range(0, len(queries), size):
            rows = queries[start : start + size]
            yield store.whole_block(start, start + len(rows), partial(keys_of, rows))

    keys = np.array(store.cached(key, (len(queries), 2 * k), blocks)).view(np.int64)  # each key is two floats there
    return searcher.unpack(torch.from_numpy(keys))
