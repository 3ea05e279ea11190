from __future__ import annotations

from collections.abc import Sequence

import torch

from ..types import Turn
from . import BatchContext, marks


def unique(
    turns: Sequence[Turn], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Turn]]:
    """Shuffles, and keeps turns that share a query, a positive or a query text out of each other's batch.

    Same aim as the no-duplicates sampler of sentence-transformers. Each turn goes to the first batch that has room and
    that it does not clash with. A batch of one turn has no negatives, so such a turn joins the last batch that it does
    not clash with, which then has one turn more than batch_size; where it clashes with all of them (a query with more
    turns than there are batches) it is left out of this epoch, which draws anew which ones are.

    context.query_texts: without it only ids are compared.
    """
    texts = context.query_texts or {}
    batches: list[list[Turn]] = []
    taken: list[set[tuple[str, str]]] = []  # what each batch already holds
    first_open = 0
    for index in torch.randperm(len(turns), generator=generator).tolist():
        own = marks(turns[index], texts.get(turns[index].query_id))
        place = first_open
        while place < len(batches) and (len(batches[place]) >= batch_size or not own.isdisjoint(taken[place])):
            place += 1
        if place == len(batches):
            batches.append([])
            taken.append(set())
        batches[place].append(turns[index])
        taken[place] |= own
        while first_open < len(batches) and len(batches[first_open]) >= batch_size:
            first_open += 1
    return _without_single_turns(batches, taken)


def _without_single_turns(batches: list[list[Turn]], taken: list[set[tuple[str, str]]]) -> list[list[Turn]]:
    full = [place for place, batch in enumerate(batches) if len(batch) > 1]
    for single in (place for place, batch in enumerate(batches) if len(batch) == 1):
        for place in reversed(full):
            if taken[single].isdisjoint(taken[place]):
                batches[place].extend(batches[single])
                taken[place] |= taken[single]
                full.remove(place)  # one turn more at most, so that memory stays as planned
                break
    return [batch for batch in batches if len(batch) > 1] or batches
