from __future__ import annotations

import torch

from ...models.encoder import Encoder, Progress
from ...seeds import generator_for
from ...types import Dataset
from . import Sourced
from ._ranking import by_rank, positives_of, queries_of


def random(
    dataset: Dataset, encoder: Encoder, *, depth: int = 100, seed: int = 0, on_progress: Progress | None = None
) -> Sourced:
    """Draws documents at random: easy negatives to compare with or to mix in (DPR, arXiv 2004.04906).

    depth: how many a query. The draw depends on the seed and the query's id alone. Scores are 1/rank: they only order.
    """
    doc_ids, run = dataset.corpus.ids, {}
    for query_id in queries_of(dataset):
        positives = set(positives_of(dataset.qrels, query_id))
        wanted = min(len(doc_ids), depth + len(positives))
        drawn = _draw(len(doc_ids), wanted, generator_for(seed, "mining.random", query_id))
        run[query_id] = by_rank([doc_ids[row] for row in drawn if doc_ids[row] not in positives][:depth])
    return {"random": run}


def _draw(rows: int, count: int, generator: torch.Generator) -> list[int]:
    """`count` different rows, in random order. Duplicates are drawn again, so that a large corpus is not permuted."""
    if 2 * count >= rows:
        return torch.randperm(rows, generator=generator)[:count].tolist()
    sample: dict[int, None] = {}
    while len(sample) < count:
        sample.update(dict.fromkeys(torch.randint(rows, (count,), generator=generator).tolist()))
    return list(sample)[:count]
