from __future__ import annotations

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.clustered import clustered
from embedtune.methods.batching.shuffle import shuffle
from embedtune.types import Pair

# Four tight groups of eight, spread over the order.
PAIRS = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(32)]
GROUPS = torch.arange(32) % 4
EMBEDDINGS = torch.nn.functional.normalize(
    torch.eye(4)[GROUPS] + 0.05 * torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), dim=1
)


def groups_of(progress: float, doublings: int = 3, seed: int = 0) -> list[list[int]]:
    context = BatchContext(query_embeddings=EMBEDDINGS, progress=progress)
    generator = torch.Generator().manual_seed(seed)
    batches = clustered(PAIRS, 8, context, doublings=doublings, generator=generator)
    return [[int(GROUPS[PAIRS.index(pair)]) for pair in batch] for batch in batches]


def test_at_the_end_a_batch_is_a_cluster() -> None:
    assert sorted(set(groups) == {groups[0]} for groups in groups_of(1.0)) == [True] * 4


def test_at_the_start_it_is_as_random_as_a_shuffle() -> None:
    mixed = [len(set(groups)) for seed in range(20) for groups in groups_of(0.0, seed=seed)]
    generator = torch.Generator()
    plain = [
        len({int(GROUPS[PAIRS.index(pair)]) for pair in batch})
        for seed in range(20)
        for batch in shuffle(PAIRS, 8, BatchContext(), generator=generator.manual_seed(seed))
    ]
    assert sum(mixed) / len(mixed) == pytest.approx(sum(plain) / len(plain), abs=0.25)


def test_clusters_grow_with_progress() -> None:
    def spread(progress: float) -> float:
        counts = [len(set(groups)) for seed in range(10) for groups in groups_of(progress, seed=seed)]
        return sum(counts) / len(counts)

    assert spread(0.0) > spread(0.4) > spread(0.6) > spread(0.9) == 1.0


def test_without_doublings_clusters_stay_single() -> None:
    assert any(len(set(groups)) > 1 for groups in groups_of(1.0, doublings=0))


def test_without_embeddings_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^batching.clustered: needs the queries' embeddings$"):
        clustered(PAIRS, 8, BatchContext(), generator=torch.Generator())
