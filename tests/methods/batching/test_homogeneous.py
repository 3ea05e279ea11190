from __future__ import annotations

from collections import Counter

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.homogeneous import homogeneous
from embedtune.types import Pair


def mixed(sizes: dict[str, int]) -> tuple[list[Pair], BatchContext]:
    pairs = [
        Pair(query_id=f"{label}{n}", positives=(f"{label}{n}",)) for label, size in sizes.items() for n in range(size)
    ]
    return pairs, BatchContext(dataset_of={pair.query_id: pair.query_id[0] for pair in pairs})


def labels_of(batches: list[list[Pair]]) -> list[str]:
    return ["".join(pair.query_id[0] for pair in batch) for batch in batches]


def batches_of(sizes: dict[str, int], size: int, seed: int = 0, **options: object) -> list[list[Pair]]:
    pairs, context = mixed(sizes)
    generator = torch.Generator().manual_seed(seed)
    return homogeneous(pairs, size, context, generator=generator, **options)  # type: ignore[arg-type]


def test_a_batch_is_of_one_dataset() -> None:
    labels = labels_of(batches_of({"a": 16, "b": 8}, 4))
    assert sorted(labels) == ["aaaa"] * 4 + ["bbbb"] * 2


def test_sub_batches_of_several_datasets_share_a_batch() -> None:
    found = {label for seed in range(10) for label in labels_of(batches_of({"a": 16, "b": 16}, 4, seed, sub_batch=2))}
    assert found == {"aaaa", "aabb", "bbaa", "bbbb"}


def test_at_one_every_pair_is_used_and_above_the_large_are_cut_down() -> None:
    sizes = {"a": 10, "b": 1000}
    assert Counter("".join(labels_of(batches_of(sizes, 5)))) == sizes
    damped = Counter("".join(labels_of(batches_of(sizes, 5, temperature=2.0))))
    assert damped == {"a": 10, "b": 100}  # shares of 10^.5 and 1000^.5
    even = Counter("".join(labels_of(batches_of(sizes, 5, temperature=1e9))))
    assert even == {"a": 10, "b": 10}


def test_what_is_cut_is_drawn_anew() -> None:
    used = [
        {pair.query_id for batch in batches_of({"a": 10, "b": 1000}, 5, seed, temperature=2.0) for pair in batch}
        for seed in (0, 1)
    ]
    assert len(used[0] ^ used[1]) > 100


def test_datasets_of_one_pair_share_a_batch() -> None:
    assert sorted(sorted(label) for label in labels_of(batches_of({"a": 1, "b": 1, "c": 4}, 4))) == [
        ["a", "b"],
        ["c", "c", "c", "c"],
    ]
    assert [len(batch) for batch in batches_of({"a": 1, "c": 4}, 4)] == [5]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"^batching.homogeneous.sub_batch: 3 does not divide the batch size 4$"):
        batches_of({"a": 4}, 4, sub_batch=3)
    with pytest.raises(InputError, match=r"^batching.homogeneous.temperature: must be at least 1, got 0.5$"):
        batches_of({"a": 4}, 4, temperature=0.5)
    with pytest.raises(
        InputError, match=r"^batching.homogeneous: mixes several datasets; name them in data.train as a list$"
    ):
        homogeneous([], 4, BatchContext(), generator=torch.Generator())
