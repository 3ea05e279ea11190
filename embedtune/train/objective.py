"""What a batch's embeddings are held to: the recipe's filters, makers of negatives, weightings and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import methods
from ..errors import InputError
from ..methods.loss._pairs import MEAN_OVER, WithoutNegatives
from ..models.scorers import EncoderScores
from ..models.similarity import Similarity, scored
from ..recipe import Recipe
from ..types import Scores
from .batch import Batch
from .bound import comparing
from .made import maker_of
from .negatives import Teacher
from .roles import asks_within_roles, limits_of, within_roles
from .slices import Parts, Term, added, joined, part_of

Observe = Callable[[Scores], dict[str, float]]
"""Sees a batch's scores, without gradient; says what it has for the log."""


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
    # the methods that compare queries with each other, for which a batch is taken whole whatever its size
    comparing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Recipe) -> Objective:
        filters = [methods.bind("filtering", c.name, c.options) for c in recipe.negatives.filtering]
        weightings = [methods.bind("weighting", c.name, c.options) for c in recipe.weighting]
        losses = [(c.name, c.weight, methods.bind("loss", c.name, c.options)) for c in recipe.loss]
        made = [
            (methods.describe("synthesis", c.name).spec.kind, c.name, methods.bind("synthesis", c.name, c.options))
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
        limits = limits_of(recipe) if any(asks_within_roles(loss) for _, _, loss in losses) else {}
        objective = cls(filters, texts, vectors, weightings, losses, dimensions, modules, limits=limits)
        objective.comparing = comparing(recipe)
        if recipe.matryoshka and any(True for _ in objective.modules.buffers()):
            raise InputError("matryoshka: not with a method that keeps state from step to step: it is of one dimension")
        return objective

    def __call__(self, scores: Scores, generator: torch.Generator, *, whole: bool = True) -> tuple[list[Term], Parts]:
        """Each loss, with its named parts for the log, and the parts that are no loss's; all stays on the device.

        generator: for vectors that are drawn; in the same state on every process. whole: these are all of the batch's
        queries, so that it is an error if none of them has a negative left.
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
        parts: Parts = {"dropped": dropped} if self.filters else {}
        if scores.made is not None:
            parts["made"] = scores.made.sum()
        terms = []
        for _, _, compute in self.losses:
            try:
                value, details = compute(scores, keep, log_weights)
            except WithoutNegatives as error:
                if whole:
                    raise
                terms.append(Term(scores.student.new_zeros(()), 0, {"rows_without_negatives": error.queries}, error))
            else:
                over = details.pop(MEAN_OVER, 1) if whole else details.pop(MEAN_OVER)  # without it slices mean nothing
                terms.append(Term(value, over, details))
        return terms, parts

    def total(self, by_prefix: Sequence[Sequence[Tensor]]) -> Tensor:
        """The weighted sum of the losses' values, its mean over the prefixes."""
        sums = []
        for values in by_prefix:
            sums.append(torch.zeros((), device=values[0].device if values else None))
            for (_, weight, _), value in zip(self.losses, values, strict=True):
                sums[-1] = sums[-1] + weight * value
        return torch.stack(sums).mean()

    def said(self, terms: Sequence[Term], parts: Parts) -> Parts:
        """All parts for the log, with each loss's value where there are several."""
        for (name, _, _), term in zip(self.losses, terms, strict=True):
            parts = parts | ({name: term.value.detach()} if len(self.losses) > 1 else {}) | term.parts
        return parts


@dataclass(frozen=True)
class EncodedBatch:
    """A batch with its embeddings, queries (Q, H) and documents (D, H), and what else its scores depend on."""

    batch: Batch
    queries: Tensor
    documents: Tensor
    similarity: Similarity
    progress: float

    def of(self, rows: Sequence[int]) -> EncodedBatch:
        """These queries with all documents."""
        queries = self.queries[rows.start : rows.stop] if isinstance(rows, range) else self.queries[list(rows)]
        return replace(self, batch=self.batch.of(rows), queries=queries)

    def prefix(self, dimensions: int) -> EncodedBatch:
        if dimensions > self.queries.shape[1]:
            raise InputError(f"matryoshka: {dimensions} dimensions are more than the model's {self.queries.shape[1]}")
        return replace(self, queries=self.queries[:, :dimensions], documents=self.documents[:, :dimensions])

    def detached(self) -> EncodedBatch:
        return replace(self, queries=self.queries.detach(), documents=self.documents.detach())


def over_prefixes(objective: Objective, encoded: EncodedBatch, generator: torch.Generator) -> tuple[Tensor, Parts]:
    """The mean of the objective on whole embeddings and on each prefix of them. The parts are the whole's."""
    by_prefix, parts = _terms(objective, encoded, generator)
    total = objective.total([[term.value for term in terms] for terms in by_prefix])
    return total, objective.said(by_prefix[0], parts)


def over_slices(
    objective: Objective,
    encoded: EncodedBatch,
    generator: torch.Generator,
    slices: Sequence[range],
    differentiate: Callable[[Tensor], None],
) -> tuple[Tensor, Parts]:
    """The same of a batch whose objective treats each query by itself, from some queries at a time.

    Twice: first without a graph, for how many queries each mean is over; then each slice's part of the whole is given
    to `differentiate`, and its graph is freed. The scores cost little beside the encoding.
    """

    def terms_of(rows: range) -> tuple[list[list[Term]], Parts]:
        return _terms(objective, encoded.of(rows), generator, whole=False)

    with torch.no_grad():
        found = [terms_of(rows) for rows in slices]
    everything = [
        [joined(of_loss) for of_loss in zip(*of_slices, strict=True)]
        for of_slices in zip(*(by_prefix for by_prefix, _ in found), strict=True)
    ]
    for rows in slices:
        by_prefix, _ = terms_of(rows)
        differentiate(
            objective.total(
                [
                    [part_of(term.value, term, whole) for term, whole in zip(terms, wholes, strict=True)]
                    for terms, wholes in zip(by_prefix, everything, strict=True)
                ]
            )
        )
    parts = added([parts for _, parts in found])
    if "made" in parts:  # columns are the same in every slice
        parts["made"] = found[0][1]["made"]
    loss = objective.total([[term.value for term in terms] for terms in everything])
    return loss, objective.said(everything[0], parts)


def observed(observe: Observe, encoded: EncodedBatch, slices: Sequence[range]) -> dict[str, float]:
    """What an observer has for the log, of a batch that it sees in slices: a query's first pair alone counts."""
    query_ids = encoded.batch.query_ids
    first: dict[str, int] = {}
    for row, query_id in enumerate(query_ids):
        first.setdefault(query_id, row)
    found = []
    for rows in slices:
        some = [row for row in rows if first[query_ids[row]] == row] if len(slices) > 1 else rows
        found.append(observe(scores_of(encoded.of(some))))
    return added(found)


def _terms(
    objective: Objective, encoded: EncodedBatch, generator: torch.Generator, *, whole: bool = True
) -> tuple[list[list[Term]], Parts]:
    """The losses by prefix, that of all dimensions first, and its other parts."""
    taught = _taught(objective, encoded.batch, encoded.queries.device)
    found = []
    for part in (encoded, *map(encoded.prefix, objective.dimensions)):
        found.append(objective(replace(scores_of(part), **taught), generator, whole=whole))
    return [terms for terms, _ in found], found[0][1]


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


def scores_of(encoded: EncodedBatch) -> Scores:
    """The batch's scores, in float32."""
    batch, device = encoded.batch, encoded.queries.device
    made = {item.id for item in batch.made}
    q, d = scored(encoded.queries, encoded.similarity), scored(encoded.documents, encoded.similarity)
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
        progress=encoded.progress,
    )
