"""What a run trains on at each step, and how fast: pairs, batches, stages, learning rates.

All of it is a pure function of the data, the recipe, the seed and the step. Every generator is made from the seed and
what it is for, so a resumed run needs no generator's state to continue exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from .. import methods
from ..data.images import identity
from ..data.mixture import label_in
from ..errors import InputError
from ..methods.batching import BatchContext
from ..models.compose import projections
from ..models.encoder import Encoder, Prepare
from ..models.prepared import blocks
from ..models.scorers import EncoderScores
from ..recipe import Recipe
from ..seeds import generator_for
from ..types import Dataset, Item, Items, Pair, Role
from .sizes import check_batch_size, pair_count, steps_of


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


Facts = Callable[[Sequence[Pair]], dict[str, Any]]
"""The pairs of an epoch -> the fields of BatchContext that take work to know."""


def facts_for(recipe: Recipe, encoder: Encoder, dataset: Dataset, query_ids: Sequence[str]) -> Facts | None:
    """Computes what the recipe's batching method needs to know of pairs; None where it needs nothing.

    Embeddings are those of the base weights for the whole run, so that a resumed run makes the same batches.
    """
    needs = methods.describe("batching", recipe.batching.name).spec.needs
    if not needs:
        return None
    positives = {d for q in query_ids for d, grade in dataset.qrels[q].items() if grade > 0}
    tokens: dict[tuple[Role, str], int] = {}
    if "lengths" in needs:
        tokens |= _tokens_of(encoder, dataset.queries, query_ids, "query")
        tokens |= _tokens_of(encoder, dataset.corpus, sorted(positives), "document")
    scores = EncoderScores(encoder, dataset, positives) if {*needs} - {"lengths"} else None

    def facts(pairs: Sequence[Pair]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if "lengths" in needs:
            fields["lengths"] = [
                tokens["query", pair.query_id] + sum(tokens["document", doc_id] for doc_id in pair.positives)
                for pair in pairs
            ]
        if scores is not None and "query_embeddings" in needs:
            fields["query_embeddings"] = scores.on_device(scores.queries([pair.query_id for pair in pairs]))
        if scores is not None and "document_embeddings" in needs:
            fields["document_embeddings"] = scores.on_device(scores.documents([pair.positives[0] for pair in pairs]))
        return fields

    return facts


def _tokens_of(encoder: Encoder, items: Items, ids: Sequence[str], role: Role) -> dict[tuple[Role, str], int]:
    """How many tokens each item has for the model."""
    lengths = {}
    for block in blocks(items[item_id] for item_id in ids):
        for item, prepared in zip(block, encoder.prepare(block, role), strict=True):
            lengths[role, item.id] = prepared.length
    return lengths


def _text_and_image(query: Item) -> str:
    """What two queries of one batch must not have in common."""
    return query.content if query.image is None else f"{query.content}\0{identity(query.image)}"


@dataclass(frozen=True)
class Position:
    """The batch that comes next, by epoch and by its number in the epoch. Both count from 0."""

    epoch: int
    number: int


class Plan:
    """The batches of a run by position, and how many optimizer steps the run takes.

    pairs: of one epoch. first: steps of the first stage; steps: of both stages.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, query_ids: Sequence[str], facts: Facts | None = None) -> None:
        self._recipe, self._dataset, self._query_ids, self._facts = recipe, dataset, list(query_ids), facts
        self._batching: Any = methods.bind("batching", recipe.batching.name, recipe.batching.options)
        self.epoch = lru_cache(maxsize=2)(self._epoch)
        self.pairs = pair_count(dataset, query_ids, recipe.data.positives)
        check_batch_size(dataset, self.pairs, recipe.train.batch_size)
        self.batches_per_epoch = len(self.epoch(0))
        self.first, self.steps = steps_of(recipe.train, self.batches_per_epoch)

    def _epoch(self, epoch: int) -> list[list[Pair]]:
        train = self._recipe.train
        epochs = train.epochs + (train.projections_first.epochs if train.projections_first else 0)
        pairs = pairs_of_epoch(self._dataset, self._query_ids, self._recipe.data.positives, train.seed, epoch)
        texts = {query_id: _text_and_image(self._dataset.queries[query_id]) for query_id in self._query_ids}
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

    def after(self, position: Position) -> Position:
        """The position that follows; an epoch ends with its last batch."""
        if position.number + 1 < len(self.epoch(position.epoch)):
            return Position(position.epoch, position.number + 1)
        return Position(position.epoch + 1, 0)

    def batch(self, position: Position) -> list[Pair]:
        return self.epoch(position.epoch)[position.number]


@dataclass(kw_only=True)
class Stages:
    """Which part of a model is trained at a step, and how fast.

    A composed model may first train its projections alone, while its towers are frozen.
    """

    recipe: Recipe
    first: int  # steps of the first stage
    steps: int  # of both stages
    towers: Prepare | None = None  # the towers' outputs, for the stages in which they are frozen
    later: list[nn.Parameter]  # trained in the second stage only

    def begin(self, step: int, encoder: Encoder) -> float:
        """Freezes what the step's stage freezes; returns the step's learning rate."""
        train, in_first = self.recipe.train, step < self.first
        if self.first > 0:
            encoder.cached_towers = self.towers if in_first else None
            for parameter in self.later:
                parameter.requires_grad_(not in_first)
        stage = train.projections_first
        start, stop = (0, self.first) if in_first else (self.first, self.steps)
        return learning_rate(
            step - start,
            steps=stop - start,
            peak=stage.learning_rate if in_first and stage is not None else train.learning_rate,
            warmup=train.warmup,
            schedule=train.schedule,
        )


def stages_of(recipe: Recipe, plan: Plan, encoder: Encoder, trained: Iterable[nn.Parameter]) -> Stages:
    """encoder: with its towers frozen, where a stage freezes them. trained: its parameters that the optimizer has."""
    later: list[nn.Parameter] = []
    if plan.first:
        first = {parameter for module in projections(encoder.model) for parameter in module.parameters()}
        later = [parameter for parameter in trained if parameter not in first]
    return Stages(recipe=recipe, first=plan.first, steps=plan.steps, towers=encoder.cached_towers, later=later)


def learning_rate(
    step: int, *, steps: int, peak: float, warmup: float | int, schedule: Literal["linear", "cosine", "constant"]
) -> float:
    """The rate for `step` (from 0) of `steps`: linear warm-up from 0 to `peak`, then constant, or down to 0.

    warmup: a share of the steps (float) or a number of them (int). The same as transformers' schedules at every step,
    so that a run can be compared with one of sentence-transformers.
    """
    rising = round(warmup * steps) if isinstance(warmup, float) else warmup
    if step < rising:
        return peak * step / rising
    if schedule == "constant":
        return peak
    share = (steps - step) / max(1, steps - rising)  # 1 just after warm-up, 1/steps at the last step
    return peak * (share if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * share)))
