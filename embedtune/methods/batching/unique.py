from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ...types import Turn
from . import BatchContext, marks


@dataclass
class _Batch:
    turns: list[Turn] = field(default_factory=list)
    taken: set[tuple[str, str]] = field(default_factory=set)  # the turns' marks, all different


def unique(
    turns: Sequence[Turn], batch_size: int, context: BatchContext, *, generator: torch.Generator
) -> list[list[Turn]]:
    """Shuffles, and keeps turns that share a query, a positive or a query text out of each other's batch.

    Same aim as the no-duplicates sampler of sentence-transformers. Each turn goes to the first batch that has room and
    that it does not clash with. A batch of one turn has no negatives, so such a turn joins another batch (which then
    has one turn more than batch_size) or, where it clashes with all of them, is joined by a turn from one. Where that
    too is impossible (a query with many more turns than there are others) it is left out of this epoch; the next
    epoch draws anew which one that is.

    context.query_texts: without it only ids are compared.
    """
    texts = context.query_texts or {}
    held = [marks(turn, texts.get(turn.query_id)) for turn in turns]
    batches: list[_Batch] = []
    first_open = 0
    for index in torch.randperm(len(turns), generator=generator).tolist():
        place = first_open
        while place < len(batches) and (
            len(batches[place].turns) >= batch_size or not held[index].isdisjoint(batches[place].taken)
        ):
            place += 1
        if place == len(batches):
            batches.append(_Batch())
        _add(batches[place], turns[index], held[index])
        while first_open < len(batches) and len(batches[first_open].turns) >= batch_size:
            first_open += 1
    own = dict(zip(turns, held, strict=True))
    for single in [batch for batch in batches if len(batch.turns) == 1]:
        if not _joins(single, batches, batch_size):
            _is_joined(single, batches, own)
    return [batch.turns for batch in batches if len(batch.turns) > 1] or [batch.turns for batch in batches]


def _add(batch: _Batch, turn: Turn, turn_marks: set[tuple[str, str]]) -> None:
    batch.turns.append(turn)
    batch.taken |= turn_marks


def _joins(single: _Batch, batches: list[_Batch], batch_size: int) -> bool:
    """The single turn moves to the last batch that it does not clash with, if there is one."""
    for batch in reversed(batches):
        if 1 < len(batch.turns) <= batch_size and single.taken.isdisjoint(batch.taken):
            _add(batch, single.turns.pop(), single.taken)
            return True
    return False


def _is_joined(single: _Batch, batches: list[_Batch], own: dict[Turn, set[tuple[str, str]]]) -> None:
    """A turn that does not clash with the single one moves to it from the last batch that can spare it."""
    for batch in reversed(batches):
        for turn in batch.turns if len(batch.turns) > 2 else ():
            if own[turn].isdisjoint(single.taken):
                batch.turns.remove(turn)
                batch.taken -= own[turn]
                _add(single, turn, own[turn])
                return
