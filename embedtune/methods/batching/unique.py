from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ...types import Pair
from . import BatchContext, marks


@dataclass
class _Batch:
    pairs: list[Pair] = field(default_factory=list)
    taken: set[tuple[str, str]] = field(default_factory=set)  # the pairs' marks, all different


def unique(
    pairs: Sequence[Pair], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Pair]]:
    """Shuffles, and keeps pairs that share a query, a positive or a query text in different batches.

    Same aim as the no-duplicates sampler of sentence-transformers. Each pair goes to the first batch that has room and
    that it does not clash with. A batch of one pair has no negatives, so such a pair joins another batch (which then
    has one pair more than batch_size) or, where it clashes with all of them, is joined by a pair from one. Where that
    too is impossible (a query with many more pairs than there are others) it is left out of this epoch; the next
    epoch draws again which one that is.

    context.query_texts: without it only ids are compared.
    """
    texts = context.query_texts or {}
    held = [marks(pair, texts.get(pair.query_id)) for pair in pairs]
    batches: list[_Batch] = []
    first_open = 0
    for index in torch.randperm(len(pairs), generator=generator).tolist():
        batch_index = first_open
        while batch_index < len(batches) and (
            len(batches[batch_index].pairs) >= batch_size or not held[index].isdisjoint(batches[batch_index].taken)
        ):
            batch_index += 1
        if batch_index == len(batches):
            batches.append(_Batch())
        _add(batches[batch_index], pairs[index], held[index])
        while first_open < len(batches) and len(batches[first_open].pairs) >= batch_size:
            first_open += 1
    held_by_pair = dict(zip(pairs, held, strict=True))
    for single in [batch for batch in batches if len(batch.pairs) == 1]:
        if not _joins(single, batches, batch_size):
            _is_joined(single, batches, held_by_pair)
    return [batch.pairs for batch in batches if len(batch.pairs) > 1] or [batch.pairs for batch in batches]


def _add(batch: _Batch, pair: Pair, pair_marks: set[tuple[str, str]]) -> None:
    batch.pairs.append(pair)
    batch.taken |= pair_marks


def _joins(single: _Batch, batches: list[_Batch], batch_size: int) -> bool:
    """The single pair moves to the last batch that it does not clash with, if there is one."""
    for batch in reversed(batches):
        if 1 < len(batch.pairs) <= batch_size and single.taken.isdisjoint(batch.taken):
            _add(batch, single.pairs.pop(), single.taken)
            return True
    return False


def _is_joined(single: _Batch, batches: list[_Batch], held_by_pair: dict[Pair, set[tuple[str, str]]]) -> None:
    """A pair that does not clash with the single one moves to it from the last batch that can spare it."""
    for batch in reversed(batches):
        for pair in batch.pairs if len(batch.pairs) > 2 else ():
            if held_by_pair[pair].isdisjoint(single.taken):
                batch.pairs.remove(pair)
                batch.taken -= held_by_pair[pair]
                _add(single, pair, held_by_pair[pair])
                return
