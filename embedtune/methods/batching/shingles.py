from __future__ import annotations

from collections.abc import Sequence

import torch

from ...types import Pair
from ..synthesis._english import FUNCTION_WORDS
from ..synthesis._words import WORD
from . import BatchContext, cut


def shingles(
    pairs: Sequence[Pair], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Pair]]:
    """Puts queries together that share a word, drawn afresh every epoch (random shingles of BSC, arXiv 2110.15725).

    Each pair draws one of its query's words that is not a function word (English); pairs are ordered by it, at random
    where it is the same, and cut into batches, which come in random order.

    Departures: the word comes from the query alone, as documents are longer; and the pairs of one query may meet in a
    batch, where its positives are not negatives of each other. Without texts (images) it is a plain shuffle.
    """
    texts = context.query_texts or {}
    order = torch.randperm(len(pairs), generator=generator).tolist()
    drawn = {index: _word(texts.get(pairs[index].query_id, ""), generator) for index in order}
    batches = cut([pairs[index] for index in sorted(order, key=drawn.__getitem__)], batch_size)
    return [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]


def _word(text: str, generator: torch.Generator) -> str:
    words = [word for match in WORD.finditer(text) if (word := match.group().lower()) not in FUNCTION_WORDS]
    return words[int(torch.randint(len(words), (), generator=generator))] if words else ""
