from __future__ import annotations

import torch

from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.shuffle import shuffle
from embedtune.types import Pair


def test_a_random_order_is_cut_and_a_single_left_over_joins() -> None:
    pairs = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(13)]
    batches = shuffle(pairs, 4, BatchContext(), generator=torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [4, 4, 5]
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0)).tolist()
    assert [pair for batch in batches for pair in batch] == [pairs[index] for index in order]
