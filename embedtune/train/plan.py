"""Which pairs an epoch has, and in which batches: a pure function of the data, the recipe, the seed and the epoch.

Nothing random is kept between epochs or steps: every generator is made from the seed and what it is for, so a resumed
run needs no generator's state to go on exactly as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch

from .. import methods
from ..data.images import identity
from ..data.mixture import label_in
from ..errors import InputError
from ..methods.batching import BatchContext
from ..recipe import Recipe
from ..seeds import generator_for
from ..types import Dataset, Item, Pair


def pairs_of_epoch(
    dataset: Dataset, query_ids: Sequence[str], positives: Literal["each", "all"] | int, seed: int, epoch: int
) -> list[Pair]:
    """The pairs of one epoch, in the queries' order. Queries without a positive have none."""
    generator = generator_for(seed, "positives", epoch)
    pairs = []
    for query_id in query_ids:
        judged = [doc_id for doc_id, grade in dataset.qrels[query_id].items() if grade > 0]
        if positives == "each":
            pairs += [Pair(query_id=query_id, positives=(doc_id,)) for doc_id in judged]
        elif judged:
            if isinstance(positives, int) and positives < len(judged):
                drawn = torch.randperm(len(judged), generator=generator)[:positives].sort().values.tolist()
                judged = [judged[i] for i in drawn]
            pairs.append(Pair(query_id=query_id, positives=tuple(judged)))
    return pairs


def _same_as(query: Item) -> str:
    """What must not meet itself in a batch: the text, and the picture where there is one."""
    return query.content if query.image is None else f"{query.content}\0{identity(query.image)}"


Facts = Callable[[Sequence[Pair]], dict[str, Any]]
"""The pairs of an epoch -> fields of BatchContext."""


@dataclass(frozen=True)
class Place:
    """Where a batch stands: its epoch and its number in it."""

    epoch: int
    number: int


class Plan:
    """The batches of a run, by step, and how many optimizer steps it takes."""

    def __init__(self, recipe: Recipe, dataset: Dataset, query_ids: Sequence[str], facts: Facts | None = None) -> None:
        """facts: what the batching method NEEDS to know of pairs."""
        self._recipe, self._dataset, self._query_ids, self._facts = recipe, dataset, list(query_ids), facts
        self._batching: Any = methods.bind("batching", recipe.batching.name, recipe.batching.options)
        self.epoch = lru_cache(maxsize=2)(self._epoch)
        self.pairs = len(pairs_of_epoch(dataset, query_ids, recipe.data.positives, recipe.train.seed, 0))
        if self.pairs == 0:
            raise InputError(f"{dataset.folder}: split {dataset.split} has no query with a positive document")
        if recipe.train.batch_size > self.pairs:
            raise InputError(
                f"train.batch_size: {recipe.train.batch_size} is more than the {self.pairs} pairs of an epoch; "
                f"choose at most {self.pairs}"
            )
        self.batches_per_epoch = len(self.epoch(0))
        train, first = recipe.train, recipe.train.projections_first
        self.first = self._steps(first.epochs) if first is not None else 0  # steps of the first stage
        self.steps = self.first + self._steps(train.epochs)
        if train.max_steps is not None:
            self.steps = min(self.steps, train.max_steps)

    def _steps(self, epochs: float) -> int:
        return -(-max(1, round(self.batches_per_epoch * epochs)) // self._recipe.train.accumulate)

    def _epoch(self, epoch: int) -> list[list[Pair]]:
        train = self._recipe.train
        epochs = train.epochs + (train.projections_first.epochs if train.projections_first else 0)
        pairs = pairs_of_epoch(self._dataset, self._query_ids, self._recipe.data.positives, train.seed, epoch)
        texts = {query_id: _same_as(self._dataset.queries[query_id]) for query_id in self._query_ids}
        facts = self._facts(pairs) if self._facts is not None else {}
        labels = {query_id: label_in(query_id) for query_id in self._query_ids} if self._dataset.parts else None
        last = math.ceil(epochs) - 1
        progress = min(1.0, epoch / last) if last > 0 else 1.0
        context = BatchContext(query_texts=texts, dataset_of=labels, progress=progress, **facts)
        generator = generator_for(train.seed, "batches", epoch)
        batches: list[list[Pair]] = self._batching(pairs, train.batch_size, context, generator=generator)
        if not batches:
            raise InputError(f"batching.{self._recipe.batching.name} made no batch of the {len(pairs)} pairs")
        return batches

    def after(self, place: Place) -> Place:
        """The place that follows; an epoch ends where its batches do."""
        if place.number + 1 < len(self.epoch(place.epoch)):
            return Place(place.epoch, place.number + 1)
        return Place(place.epoch + 1, 0)

    def batch(self, place: Place) -> list[Pair]:
        return self.epoch(place.epoch)[place.number]
