from __future__ import annotations

import torch

from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.shingles import shingles
from embedtune.types import Pair

WORDS = ["river", "engine", "music", "garden"]


def batches(texts: dict[str, str], size: int, seed: int = 0) -> list[list[str]]:
    pairs = [Pair(query_id=query_id, positives=(f"d{query_id}",)) for query_id in texts]
    made = shingles(pairs, size, BatchContext(query_texts=texts), generator=torch.Generator().manual_seed(seed))
    return [[pair.query_id for pair in batch] for batch in made]


def test_queries_that_share_their_only_word_share_a_batch() -> None:
    texts = {f"q{n}": f"what is the {WORDS[n % 4]}" for n in range(16)}
    made = batches(texts, 4)
    assert sorted(len({texts[query_id] for query_id in batch}) for batch in made) == [1, 1, 1, 1]
    assert [texts[batch[0]] for batch in made] != sorted(texts[batch[0]] for batch in made)  # in random order


def test_the_word_is_drawn_afresh() -> None:
    texts = {"a": "river engine", "b": "river", "c": "engine", "d": "engine"}
    partners = {
        next(other for other in batch if other != "a")
        for seed in range(30)
        for batch in batches(texts, 2, seed)
        if "a" in batch
    }
    assert partners == {"b", "c", "d"}


def test_without_texts_it_is_a_shuffle() -> None:
    texts = {f"q{n}": "" for n in range(9)}
    made = batches(texts, 3)
    assert sorted(query_id for batch in made for query_id in batch) == sorted(texts)
    assert made != batches(texts, 3, seed=1)
