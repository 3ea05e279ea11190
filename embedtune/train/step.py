"""One batch from ids to gradients: encode, score, filter, weight, loss, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .. import methods
from ..encode.encoder import Encoder
from ..encode.prepared import Prepared
from ..encode.similarity import scored
from ..errors import InputError
from ..recipe import Recipe
from ..scorers import EncoderScores
from ..types import Item, Items, Role, Scores
from .batch import Batch
from .gradients import Embedded, backward, embed, without_negligible
from .made import maker_of
from .negatives import Teacher
from .roles import asks_within_roles, limits_of, within_roles

Observe = Callable[[Scores], dict[str, float]]
"""Sees a batch's scores, without gradient; says what it has for the log."""


class Tokens:
    """Prepared items by id: each text is tokenised once while it stays among the `most` used last.

    What is large or slow to make (images, a frozen tower's output) the encoder itself keeps, by content; of such items
    only what their set says of them is held here.
    """

    def __init__(self, encoder: Encoder, items: Items, role: Role, most: int = 200_000) -> None:
        self._encoder, self._role, self._most = encoder, role, most
        self._item = lru_cache(maxsize=most)(items.__getitem__)
        self._held: OrderedDict[str, Prepared] = OrderedDict()

    def hold(self, items: Sequence[Item]) -> None:
        """Prepares items that are in no set, to be asked for by id at once."""
        fresh = [item for item in items if item.id not in self._held]
        self._held.update(zip([i.id for i in fresh], self._encoder.prepare(fresh, self._role), strict=True))

    def __call__(self, ids: Sequence[str]) -> list[Prepared]:
        absent = [self._item(item_id) for item_id in dict.fromkeys(ids) if item_id not in self._held]
        fresh = dict(zip([item.id for item in absent], self._encoder.prepare(absent, self._role), strict=True))
        found = [fresh.get(item_id) or self._held[item_id] for item_id in ids]
        self._held.update((item.id, fresh[item.id]) for item in absent if not self._encoder.keeps(item))
        for item_id in ids:
            if item_id in self._held:
                self._held.move_to_end(item_id)
        while len(self._held) > max(self._most, len(ids)):
            self._held.popitem(last=False)
        return found


@dataclass
class Objective:
    """The recipe's filters, makers of negatives, weightings and losses, in place.

    texts make documents before they are encoded; vectors make columns from embeddings. dimensions: the embeddings'
    prefixes that every loss is also taken on.
    """

    filters: list[Any]
    texts: list[tuple[str, Any]]
    vectors: list[Any]
    weightings: list[Any]
    losses: list[tuple[str, float, Any]]
    dimensions: list[int] = field(default_factory=list)
    modules: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    teacher: Teacher | None = None
    # the limits of filters that also decide between items of one role, by the filters' places; where a loss asks
    limits: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe) -> Objective:
        filters = [methods.bind("filtering", c.name, c.options) for c in recipe.negatives.filtering]
        weightings = [methods.bind("weighting", c.name, c.options) for c in recipe.weighting]
        losses = [(c.name, c.weight, methods.bind("loss", c.name, c.options)) for c in recipe.loss]
        made = [
            (methods.describe("synthesis", c.name).kind, c.name, methods.bind("synthesis", c.name, c.options))
            for c in recipe.synthesis
        ]
        vectors = [make for kind, _, make in made if kind == "vectors"]
        trained = {
            f"{family}-{i}": method
            for family, found in (
                ("filtering", filters),
                ("synthesis", vectors),
                ("weighting", weightings),
                ("loss", [m for _, _, m in losses]),
            )
            for i, method in enumerate(found)
            if isinstance(method, nn.Module)
        }
        texts = [(name, make) for kind, name, make in made if kind == "texts"]
        dimensions, modules = recipe.matryoshka, nn.ModuleDict(trained)
        limits = limits_of(recipe, filters) if any(asks_within_roles(loss) for _, _, loss in losses) else {}
        objective = cls(filters, texts, vectors, weightings, losses, dimensions, modules, limits=limits)
        if recipe.matryoshka and any(True for _ in objective.modules.buffers()):
            raise InputError("matryoshka: not with a method that keeps state from step to step: it is of one dimension")
        return objective

    def __call__(self, scores: Scores, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted sum of the losses, and its named parts for the log, which stay on the device.

        generator: for vectors that are drawn; in the same state on every process.
        """
        keep = alone = scores.candidate
        for place, decide in enumerate(self.filters):
            verdict = decide(scores)
            keep = keep & verdict
            alone = alone if place in self.limits else alone & verdict
        scores = within_roles(scores, alone, list(self.limits.values()))
        dropped = scores.candidate.sum() - keep.sum()
        for make in self.vectors:
            scores, keep = make(scores, keep, generator=generator)
        log_weights = torch.zeros_like(scores.student, dtype=torch.float32)
        for weigh in self.weightings:
            log_weights = log_weights + weigh(scores, keep)
        parts: dict[str, Tensor | float] = {"dropped": dropped} if self.filters else {}
        if scores.made is not None:
            parts["made"] = scores.made.sum()
        total = scores.student.new_zeros(())
        for name, weight, compute in self.losses:
            loss, details = compute(scores, keep, log_weights)
            total = total + weight * loss
            if len(self.losses) > 1:
                parts[name] = loss.detach()
            parts |= details
        return total, parts


def accumulate_gradients(
    encoder: Encoder,
    objective: Objective,
    batch: Batch,
    tokens: tuple[Tokens, Tokens],
    accelerator: Accelerator,
    *,
    chunk_size: int | None,
    divide_by: int,
    progress: float,
    generator: torch.Generator,
    observe: Observe | None = None,
    keep: float | None = None,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Adds this batch's gradient, divided by `divide_by`, to the weights' .grad; returns the loss and its parts, which
    `fetched` makes numbers of: nothing here waits for the device, but for methods that decide by what they see.

    keep: the share of the squared gradient norm, over items, that is carried back; absent, all of it.

    Every process encodes its share of the batch and sees all embeddings, so all compute the same loss; the weights'
    gradients are then this process's part, and their sum over processes is the gradient of the whole batch.
    """
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    tokens[1].hold(batch.made)
    towers = [
        embed(encoder, tokens[0](batch.query_ids[mine]), "query", chunk_size=chunk_size),
        embed(encoder, tokens[1](batch.doc_ids[mine]), "document", chunk_size=chunk_size),
    ]
    queries = gathered(towers[0], len(batch.query_ids), accelerator)
    documents = gathered(towers[1], len(batch.doc_ids), accelerator)
    loss, parts = over_prefixes(encoder, objective, batch, queries, documents, progress, generator)
    if observe is not None:
        parts |= observe(scores_of(encoder, batch, queries.detach(), documents.detach(), progress))
    scaled = loss / divide_by if accelerator.scaler is None else accelerator.scaler.scale(loss / divide_by)
    if scaled.requires_grad:
        scaled.backward()
        gradients = [_gradient(all_values)[mine] for all_values in (queries, documents)]
        if keep is not None:
            towers, parts["skipped"] = without_negligible(encoder, towers, gradients, keep, chunk_size)
        backward(encoder, towers, gradients)
    return loss.detach(), parts


def fetched(values: Sequence[Tensor | float]) -> list[float]:
    """As numbers, brought from the device all at once: the one wait for it."""
    tensors = [value.detach().reshape(()) for value in values if isinstance(value, Tensor)]
    widest = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    numbers = iter(torch.stack([tensor.to(widest) for tensor in tensors]).tolist() if tensors else ())
    return [next(numbers) if isinstance(value, Tensor) else float(value) for value in values]


def over_prefixes(
    encoder: Encoder,
    objective: Objective,
    batch: Batch,
    queries: Tensor,
    documents: Tensor,
    progress: float,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """The mean of the objective on whole embeddings and on each prefix of them. The parts are the whole's."""
    taught = _taught(objective, batch, queries.device)
    found = []
    for dimensions in (queries.shape[1], *objective.dimensions):
        if dimensions > queries.shape[1]:
            raise InputError(f"matryoshka: {dimensions} dimensions are more than the model's {queries.shape[1]}")
        scores = scores_of(encoder, batch, queries[:, :dimensions], documents[:, :dimensions], progress)
        found.append(objective(replace(scores, **taught), generator))
    return torch.stack([loss for loss, _ in found]).mean(), found[0][1]


def _taught(objective: Objective, batch: Batch, device: torch.device) -> dict[str, Any]:
    """The teacher's part of Scores; it knows the corpus alone, so what was made for the batch has no score (NaN)."""
    if objective.teacher is None:
        return {}
    made = len(batch.made)
    ids = batch.query_ids, batch.doc_ids[: len(batch.doc_ids) - made]
    found = {"teacher": nn.functional.pad(objective.teacher.matrix(*ids), (0, made), value=torch.nan)}
    if objective.limits and isinstance(objective.teacher, EncoderScores):
        queries, documents = objective.teacher.same_role(*ids)
        found["teacher_queries"] = queries
        found["teacher_documents"] = nn.functional.pad(documents, (0, made, 0, made), value=torch.nan)
    return {name: values.to(device) for name, values in found.items()}


def scores_of(encoder: Encoder, batch: Batch, queries: Tensor, documents: Tensor, progress: float) -> Scores:
    """The batch's scores from its embeddings (Q, H) and (D, H), in float32."""
    device = queries.device
    made = {item.id for item in batch.made}
    q, d = scored(queries, encoder.similarity), scored(documents, encoder.similarity)
    return Scores(
        student=q @ d.T,
        positive=batch.positive.to(device),
        candidate=batch.candidate.to(device),
        own=batch.own.to(device),
        queries=q,
        documents=d,
        query_ids=batch.query_ids,
        doc_ids=tuple("" if item_id in made else item_id for item_id in batch.doc_ids),
        positive_ids=batch.positive_ids,
        made=torch.tensor([item_id in made for item_id in batch.doc_ids], device=device) if made else None,
        made_by=tuple(maker_of(item_id) if item_id in made else "" for item_id in batch.doc_ids) if made else (),
        made_queries=batch.made_queries.to(device) if batch.made_queries.any() else None,
        progress=progress,
    )


def gathered(tower: Embedded, count: int, accelerator: Accelerator) -> Tensor:
    """(count, H) all processes' embeddings in the batch's order, as a leaf. Process r holds rows r, r + world, ..."""
    world = accelerator.num_processes
    if world == 1:
        return tower.values
    share = -(-count // world)
    own = tower.values.detach()
    padded = own.new_zeros(share, own.shape[1])
    padded[: len(own)] = own
    stacked: Tensor = accelerator.gather(padded).view(world, share, -1)
    return stacked.transpose(0, 1).reshape(world * share, -1)[:count].clone().requires_grad_()


def _gradient(values: Tensor) -> Tensor:
    return values.grad if values.grad is not None else torch.zeros_like(values)


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Sums .grad over processes, in buckets. A parameter that no process used keeps no gradient."""
    if accelerator.num_processes == 1:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=accelerator.device)
    everywhere = accelerator.reduce(used, "sum")
    bucket: list[nn.Parameter] = []
    for parameter, uses in zip(parameters, everywhere.tolist(), strict=True):
        if uses == 0:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= 8_000_000:
            _sum_bucket(bucket, accelerator)
            bucket = []
    _sum_bucket(bucket, accelerator)


def _sum_bucket(bucket: list[nn.Parameter], accelerator: Accelerator) -> None:
    if not bucket:
        return
    gradients = [p.grad for p in bucket if p.grad is not None]
    flat = accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), "sum")
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))
