from __future__ import annotations

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.neighbours import neighbours
from embedtune.methods.batching.shuffle import shuffle
from embedtune.types import Pair

PAIRS = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(32)]
GROUPS = torch.arange(32) % 4
GENERATOR = torch.Generator().manual_seed(0)
EMBEDDINGS = torch.nn.functional.normalize(torch.eye(4)[GROUPS] + 0.05 * torch.randn(32, 4, generator=GENERATOR), dim=1)
CONTEXT = BatchContext(query_embeddings=EMBEDDINGS, document_embeddings=EMBEDDINGS)


def batches_of(
    select: int, depth: int = 8, pairs: list[Pair] = PAIRS, context: BatchContext = CONTEXT
) -> list[list[Pair]]:
    return neighbours(pairs, 8, context, select=select, depth=depth, generator=torch.Generator().manual_seed(0))


def test_neighbours_share_a_batch() -> None:
    for batch in batches_of(select=7):
        assert len({int(GROUPS[PAIRS.index(pair)]) for pair in batch}) == 1


def test_selecting_none_is_a_plain_shuffle() -> None:
    plain = shuffle(PAIRS, 8, BatchContext(), generator=torch.Generator().manual_seed(0))
    assert batches_of(select=0) == plain


def test_half_are_the_nearest() -> None:
    """A query at 0 degrees, documents ever farther: the nearest two of four are always there."""
    angles = torch.cat([torch.zeros(1), torch.linspace(0.1, 1.5, 31)])
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    context = BatchContext(query_embeddings=embeddings, document_embeddings=embeddings)
    for seed in range(5):
        batches = neighbours(PAIRS, 5, context, select=4, depth=12, generator=torch.Generator().manual_seed(seed))
        places = [PAIRS.index(pair) for pair in batches[0]]
        order = (embeddings @ embeddings[places[0]]).argsort(descending=True)[1:12].tolist()
        assert set(order[:2]) <= set(places)
        assert set(places[1:]) <= set(order)


def test_a_pair_of_the_same_query_or_document_is_no_neighbour() -> None:
    pairs = [
        Pair(query_id=f"q{n % 16}", positives=(f"d{n}",)) for n in range(32)
    ]  # n and n + 16: group and query equal
    for batch in batches_of(select=7, pairs=pairs):
        seed = batch[0]
        assert all(pair.query_id != seed.query_id for pair in batch[1:4])


def test_without_embeddings_it_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^batching.neighbours: needs the embeddings of queries and of their positives$"
    ):
        neighbours(PAIRS, 8, BatchContext(), generator=torch.Generator())


def test_all_nearest_makes_the_groups_of_bsc() -> None:
    """Pair n's query finds the documents of its tens first: with nearest 1, each group is a seed and its nearest."""
    count = 12
    pairs = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(count)]
    places = torch.tensor([[float(n // 3 == group) + 0.01 * n for group in range(4)] for n in range(count)])
    context = BatchContext(query_embeddings=places, document_embeddings=places)
    made = neighbours(pairs, 3, context, select=2, nearest=1.0, generator=torch.Generator().manual_seed(0))
    groups = [{int(pair.query_id[1:]) // 3 for pair in batch} for batch in made]
    assert sorted(groups, key=min) == [{0}, {1}, {2}, {3}]
    with pytest.raises(InputError, match=r"^batching.neighbours.nearest: expected 0 to 1, got 1.5$"):
        neighbours(pairs, 3, context, nearest=1.5, generator=torch.Generator())
