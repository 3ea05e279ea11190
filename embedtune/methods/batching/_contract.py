"""The contract of batching methods, as functions that try one method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...types import Pair
from .._trial import (
    Contract,
    Trial,
    require,
)
from . import BatchContext


def trial_pairs() -> list[Pair]:
    """23 pairs: two of each query, one of the last."""
    return [Pair(query_id=f"q{number // 2}", positives=(f"d{number}",)) for number in range(23)]


def trial_context(pairs: Sequence[Pair]) -> BatchContext:
    generator = torch.Generator().manual_seed(5)
    queries = F.normalize(torch.randn(len(pairs), 4, generator=generator), dim=1)
    documents = F.normalize(queries + torch.randn(len(pairs), 4, generator=generator), dim=1)
    return BatchContext(
        query_texts={pair.query_id: f"text of {pair.query_id}" for pair in pairs},
        lengths=[7 * number % 13 for number in range(len(pairs))],
        query_embeddings=queries,
        document_embeddings=documents,
        dataset_of={pair.query_id: "ab"[int(pair.query_id[1:]) % 3 == 0] for pair in pairs},
        progress=0.5,
    )


def uses_every_pair_once(trial: Trial) -> None:
    """A batching uses every pair once, in batches of the right size, the same ones by the same seed."""
    everything = trial_pairs()
    for pairs in (everything, everything[:9], everything[:1], []):

        def batches(seed: int, pairs: list[Pair] = pairs) -> list[list[Pair]]:
            generator = torch.Generator().manual_seed(seed)
            made: list[list[Pair]] = trial.make()(pairs, 4, trial_context(pairs), generator=generator)
            return made

        first = batches(0)
        used = sorted((pair for batch in first for pair in batch), key=everything.index)
        sizes = [len(batch) for batch in first]
        require(used == pairs, f"does not use each of {len(pairs)} pairs once")
        # One more than asked for: a single pair that is left over joins the batch before it.
        require(all(size <= 5 for size in sizes), f"makes batches of {sizes} pairs where 4 were asked for")
        require(all(size > 1 for size in sizes) or len(pairs) == 1, "makes a batch of one pair, which has no negative")
        require(batches(0) == first, "makes other batches by the same seed")
        varies = len(pairs) < 2 or any(batches(seed) != first for seed in range(1, 5))
        require(varies, "makes the same batches by every seed")


def problem_of(batches: Any, pairs: Sequence[Any], batch_size: int, context: Any) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    if not isinstance(batches, list) or not all(isinstance(batch, list) for batch in batches):
        return f"returned {type(batches).__name__}, expected a list of batches, each a list of pairs"
    known = {(pair.query_id, pair.positives) for pair in pairs}
    foreign = [pair for batch in batches for pair in batch if (pair.query_id, pair.positives) not in known]
    return f"returned a pair of query {foreign[0].query_id!r}, which it was not given" if foreign else ""


def contracts(trial: Trial) -> list[Contract]:
    """The contracts of a batching."""
    return [uses_every_pair_once]
