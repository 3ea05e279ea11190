from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.methods.batching import BatchContext, marks
from embedtune.methods.batching.unique import unique
from embedtune.types import Pair


def batches_of(pairs: list[Pair], size: int, seed: int = 0, texts: dict[str, str] | None = None) -> list[list[Pair]]:
    context = BatchContext(query_texts=texts)
    return unique(pairs, size, context, generator=torch.Generator().manual_seed(seed))


def clashes(batch: list[Pair], texts: dict[str, str] | None = None) -> bool:
    held = [marks(pair, (texts or {}).get(pair.query_id)) for pair in batch]
    return any(held[i] & held[j] for i in range(len(held)) for j in range(i))


def test_pairs_of_one_query_or_one_document_are_kept_apart() -> None:
    pairs = [Pair(query_id=f"q{n % 5}", positives=(f"d{n % 7}",)) for n in range(30)]
    for seed in range(10):
        batches = batches_of(pairs, 4, seed)
        assert not any(clashes(batch) for batch in batches)
        assert sorted((t.query_id, t.positives) for b in batches for t in b) == sorted(
            (t.query_id, t.positives) for t in pairs
        )


def test_equal_query_texts_are_kept_apart() -> None:
    pairs = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(8)]
    texts = {f"q{n}": f"text {n // 2}" for n in range(8)}
    assert any(clashes(batch, texts) for seed in range(10) for batch in batches_of(pairs, 4, seed))
    assert not any(clashes(batch, texts) for seed in range(10) for batch in batches_of(pairs, 4, seed, texts))


def test_batches_are_full_where_nothing_clashes() -> None:
    pairs = [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(23)]
    assert [len(batch) for batch in batches_of(pairs, 5)] == [5, 5, 5, 5, 3]
    assert [len(batch) for batch in batches_of(pairs[:21], 5)] == [5, 5, 5, 6]  # one left over joins the last


def test_what_clashes_with_every_batch_is_left_out_and_changes_by_epoch() -> None:
    """Ten pairs of one query need ten batches, and there is company for six."""
    pairs = [Pair(query_id="often", positives=(f"o{n}",)) for n in range(10)]
    pairs += [Pair(query_id=f"q{n}", positives=(f"d{n}",)) for n in range(6)]
    left_out = set()
    for seed in range(5):
        batches = batches_of(pairs, 3, seed)
        assert [len(batch) for batch in batches] == [2] * 6
        assert not any(clashes(batch) for batch in batches)
        left_out.add(frozenset(t.positives for t in pairs) - {t.positives for b in batches for t in b})
    assert len(left_out) > 1


def test_a_single_pair_that_clashes_with_all_gets_company() -> None:
    pairs = [
        Pair(query_id=query, positives=(f"{query}{n}",))
        for query, count in (("a", 3), ("b", 2), ("c", 2))
        for n in range(count)
    ]
    for seed in range(10):
        batches = batches_of(pairs, 3, seed)
        assert sum(len(batch) for batch in batches) == 7
        assert all(1 < len(batch) <= 3 and not clashes(batch) for batch in batches)


def test_a_single_query_keeps_its_pairs() -> None:
    pairs = [Pair(query_id="only", positives=(f"d{n}",)) for n in range(3)]
    assert [len(batch) for batch in batches_of(pairs, 2)] == [1, 1, 1]


@settings(max_examples=60)
@given(
    numbers=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40, unique=True),
    size=st.integers(2, 8),
    seed=st.integers(0, 5),
)
def test_never_a_clash_never_twice(numbers: list[tuple[int, int]], size: int, seed: int) -> None:
    pairs = [Pair(query_id=f"q{query}", positives=(f"d{document}",)) for query, document in numbers]
    batches = batches_of(pairs, size, seed)
    used = [pair for batch in batches for pair in batch]
    assert len(used) == len(set(used)) <= len(pairs)
    assert not any(clashes(batch) for batch in batches)
    assert all(len(batch) <= size + 1 for batch in batches)
