from __future__ import annotations

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.length import length
from embedtune.types import Pair

PAIRS = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(24)]
LENGTHS = [7 * n % 24 for n in range(24)]  # all different


def spans(window: int) -> list[int]:
    batches = length(PAIRS, 4, BatchContext(lengths=LENGTHS), window=window, generator=torch.Generator().manual_seed(0))
    return [max(values) - min(values) for values in ([LENGTHS[PAIRS.index(pair)] for pair in b] for b in batches)]


def test_one_window_over_everything_sorts_it_whole() -> None:
    assert spans(window=6) == [3] * 6


def test_a_larger_window_saves_more_padding() -> None:
    assert sum(spans(1)) > sum(spans(3)) > sum(spans(6))


def test_without_lengths_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^batching.length: needs the pairs' lengths in tokens$"):
        length(PAIRS, 4, BatchContext(), generator=torch.Generator())
