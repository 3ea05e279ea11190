"""From a batch's scores to its loss: teacher, filters, made negatives, weightings, losses, all by the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .. import methods
from ..errors import InputError
from ..methods.loss._pairs import MEAN_OVER, REFUSED, WithoutNegatives, other_queries
from ..models.scorers import EncoderScores
from ..recipe import Recipe
from ..types import Scores
from . import sizes

Parts = dict[str, Tensor | float]
"""Named numbers for the log."""
SumOver = Callable[[Sequence[Tensor | float]], Tensor]
"""The sums of these numbers over all processes, on the device."""
Observe = Callable[[Scores], dict[str, float]]
"""Sees a batch's scores, without gradient; returns numbers for the log."""
WITHIN_ROLES = {"query_query", "document_document"}


class Teacher(Protocol):
    """Another model's scores of a batch's pairs. An encoder also has `same_role` (EncoderScores)."""

    def matrix(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> Tensor:
        """(Q, D) scores, NaN where the teacher has none."""


class Scored(Protocol):
    """A batch that has its embeddings."""

    @property
    def query_ids(self) -> tuple[str, ...]: ...

    def scores(self, rows: Sequence[int] | None = None, dimensions: int | None = None) -> Scores:
        """The scores of some queries (None: all) with all documents, on the embeddings' first dimensions."""


@dataclass(frozen=True)
class Term:
    """One loss on some queries.

    value: the mean over `over` queries or pairs, as the loss counts. refused: the loss's error where none of these
    queries has a negative; the value is 0 then.
    """

    value: Tensor
    over: Tensor | int
    parts: Parts
    refused: WithoutNegatives | None = None

    def share(self, value: Tensor | float, whole: Term) -> Tensor:
        """What a mean over this term's queries adds to the mean over all of `whole`'s."""
        share: Tensor = value * self.over / torch.as_tensor(whole.over).clamp(min=1)
        return share


@dataclass
class Objective:
    """The recipe's filters, makers of negatives, weightings and losses, bound to their options.

    texts: make documents before they are encoded. vectors: make columns from embeddings. losses: name, weight, method.
    dimensions: every loss is also taken on the embeddings' first so many dimensions. modules: the methods with state.
    limits: by the filter's index, the limit of each filter that also decides between items of one role, where a loss
    compares those. comparing: the methods that compare queries with each other, for which a batch is one piece.
    """

    filters: list[Any]
    texts: list[tuple[str, Any]]
    vectors: list[Any]
    weightings: list[Any]
    losses: list[tuple[str, float, Any]]
    dimensions: list[int] = field(default_factory=list)
    modules: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    teacher: Teacher | None = None
    limits: dict[int, Any] = field(default_factory=dict)
    comparing: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, recipe: Recipe) -> Objective:
        """Raises InputError for a combination of methods that cannot work."""
        filters = [methods.bind("filtering", c.name, c.options) for c in recipe.negatives.filtering]
        weightings = [methods.bind("weighting", c.name, c.options) for c in recipe.weighting]
        losses = [(c.name, c.weight, methods.bind("loss", c.name, c.options)) for c in recipe.loss]
        made: dict[str | None, list[tuple[str, Any]]] = {"texts": [], "vectors": []}
        for chosen in recipe.synthesis:
            maker = methods.bind("synthesis", chosen.name, chosen.options)
            made[methods.describe("synthesis", chosen.name).spec.kind].append((chosen.name, maker))
        vectors = [maker for _, maker in made["vectors"]]
        families = {
            "filtering": filters,
            "synthesis": vectors,
            "weighting": weightings,
            "loss": [loss for _, _, loss in losses],
        }
        with_state = {
            f"{family}-{i}": method
            for family, bound in families.items()
            for i, method in enumerate(bound)
            if isinstance(method, nn.Module)
        }
        within_roles = any(WITHIN_ROLES & set(getattr(loss, "directions", ())) for _, _, loss in losses)
        objective = cls(
            filters=filters,
            texts=made["texts"],
            vectors=vectors,
            weightings=weightings,
            losses=losses,
            dimensions=recipe.matryoshka,
            modules=nn.ModuleDict(with_state),
            limits=limits_of(recipe) if within_roles else {},
            comparing=sizes.comparing(recipe),
        )
        if recipe.matryoshka and any(True for _ in objective.modules.buffers()):
            raise InputError("matryoshka: not with a method that keeps state between steps: it is of one dimension")
        return objective

    def __call__(self, scores: Scores, generator: torch.Generator, *, whole: bool = True) -> tuple[list[Term], Parts]:
        """A term for each loss, and the numbers for the log that belong to no loss; all stays on the device.

        generator: for vectors that are drawn; in the same state on every process. whole: the scores hold all of the
        batch's queries, so that it is an error if none of them has a negative.
        """
        keep = others = scores.candidate  # (Q, D)
        for index, decide in enumerate(self.filters):
            verdict = decide(scores)
            keep = keep & verdict
            others = others if index in self.limits else others & verdict
        scores = within_roles(scores, others, list(self.limits.values()))
        dropped = scores.candidate.sum() - keep.sum()
        for make in self.vectors:
            scores, keep = make(scores, keep, generator=generator)
        log_weights = torch.zeros_like(scores.student, dtype=torch.float32)
        for weigh in self.weightings:
            log_weights = log_weights + weigh(scores, keep)
        parts: Parts = {"dropped": dropped} if self.filters else {}
        if scores.made is not None:
            parts["made"] = scores.made.sum()
        return [self._term(compute, scores, keep, log_weights, whole) for _, _, compute in self.losses], parts

    def _term(self, compute: Any, scores: Scores, keep: Tensor, log_weights: Tensor, whole: bool) -> Term:
        try:
            value, parts = compute(scores, keep, log_weights)
        except WithoutNegatives as error:
            if whole:
                raise
            return Term(scores.student.new_zeros(()), 0, {"rows_without_negatives": error.queries}, error)
        over = parts.pop(MEAN_OVER, 1) if whole else parts.pop(MEAN_OVER)  # slices cannot be joined without it
        return Term(value, over, parts)

    def terms(
        self, batch: Scored, generator: torch.Generator, rows: Sequence[int] | None = None
    ) -> tuple[list[list[Term]], Parts]:
        """The terms on all dimensions, then on each prefix; and the numbers for the log that belong to no loss."""
        scores = self.taught(batch.scores(rows))
        results = [self(scores, generator, whole=rows is None)]
        for dimensions in self.dimensions:
            prefix = batch.scores(rows, dimensions)
            fields = ("teacher", "teacher_queries", "teacher_documents")
            prefix = replace(prefix, **{name: getattr(scores, name) for name in fields})
            results.append(self(prefix, generator, whole=rows is None))
        return [terms for terms, _ in results], results[0][1]

    def taught(self, scores: Scores) -> Scores:
        """The scores with the teacher's. It knows the corpus alone: what was made for the batch has no score (NaN)."""
        if self.teacher is None:
            return scores
        doc_ids = [doc_id for doc_id in scores.doc_ids if doc_id]
        made, device = len(scores.doc_ids) - len(doc_ids), scores.student.device
        pairs = self.teacher.matrix(scores.query_ids, doc_ids).to(device)
        scores = replace(scores, teacher=nn.functional.pad(pairs, (0, made), value=torch.nan))
        if not self.limits or not isinstance(self.teacher, EncoderScores):
            return scores
        queries, documents = self.teacher.same_role(scores.query_ids, doc_ids)
        documents = nn.functional.pad(documents.to(device), (0, made, 0, made), value=torch.nan)
        return replace(scores, teacher_queries=queries.to(device), teacher_documents=documents)

    def total(self, by_prefix: Iterable[Iterable[Tensor]]) -> Tensor:
        """The weighted sum of the losses' values, its mean over the prefixes."""
        sums = []
        for values in by_prefix:
            weighted = (weight * value for (_, weight, _), value in zip(self.losses, values, strict=True))
            sums.append(sum(weighted, start=torch.zeros(())))
        return torch.stack(sums).mean()

    def logged(self, terms: Sequence[Term], parts: Parts) -> Parts:
        """All numbers for the log, with each loss's value where there are several."""
        refused = added({REFUSED: term.parts[REFUSED]} for term in terms if REFUSED in term.parts)
        for (name, _, _), term in zip(self.losses, terms, strict=True):
            parts = parts | ({name: term.value.detach()} if len(self.losses) > 1 else {}) | term.parts
        return parts | refused


def loss_of(objective: Objective, batch: Scored, generator: torch.Generator) -> tuple[Tensor, Parts]:
    """The loss of a whole batch, and the numbers for the log (those on all dimensions)."""
    by_prefix, parts = objective.terms(batch, generator)
    total = objective.total([term.value for term in terms] for terms in by_prefix)
    return total, objective.logged(by_prefix[0], parts)


def loss_in_slices(
    objective: Objective,
    batch: Scored,
    generator: torch.Generator,
    slices: Sequence[Sequence[int]],
    differentiate: Callable[[Tensor], None],
    sum_over: SumOver | None = None,
) -> tuple[Tensor, Parts]:
    """The same for an objective that treats each query by itself, from some queries at a time.

    sum_over: given where the slices are one process's queries (or none), and other processes have the others. The loss
    and its gradient, and the numbers for the log, are then what these queries add to those of the whole batch.

    Each of several slices is computed twice: first without a graph, for how many queries each mean is over; then its
    part of the whole is given to `differentiate`, and its graph is freed. Scores cost little beside the encoding.
    """
    alone = len(slices) == 1  # one piece needs no second time
    with torch.set_grad_enabled(alone):
        of_slices = [objective.terms(batch, generator, rows) for rows in slices]
    prefixes, losses = range(1 + len(objective.dimensions)), range(len(objective.losses))
    of_losses = [[[terms[p][n] for terms, _ in of_slices] for n in losses] for p in prefixes]
    over = {} if sum_over is None else over_processes(of_losses, sum_over)
    by_prefix = [[joined(of_losses[p][n], over.get((p, n))) for n in losses] for p in prefixes]
    for rows in slices:
        by_slice, _ = of_slices[0] if alone else objective.terms(batch, generator, rows)
        shares = [
            [term.share(term.value, whole) for term, whole in zip(terms, wholes, strict=True)]
            for terms, wholes in zip(by_slice, by_prefix, strict=True)
        ]
        differentiate(objective.total(shares))
    parts = added([parts for _, parts in of_slices])
    if "made" in parts:  # all slices have the same columns
        parts["made"] = of_slices[0][1]["made"]
    loss = objective.total([term.value for term in terms] for terms in by_prefix)
    return loss, objective.logged(by_prefix[0], parts)


def over_processes(of_losses: list[list[list[Term]]], sum_over: SumOver) -> dict[tuple[int, int], Tensor]:
    """By prefix and loss: how many queries or pairs the mean is over, on all processes.

    Raises WithoutNegatives, on every process, where no query of any has a negative.
    """
    keys = [(p, n) for p, terms in enumerate(of_losses) for n in range(len(terms))]
    numbers: list[Tensor | float] = []
    for p, n in keys:
        terms = of_losses[p][n]
        refused = [term.refused.queries for term in terms if term.refused is not None]
        numbers += [sum((torch.as_tensor(t.over) for t in terms), start=torch.tensor(0)), len(terms) - len(refused)]
        numbers.append(sum(refused))
    sums = sum_over(numbers).long().view(-1, 3)
    for row, (p, n) in enumerate(keys):
        if all(term.refused is not None for term in of_losses[p][n]):  # else there is one here, and nothing to wait for
            _, others, queries = sums[row].tolist()
            if not others and queries:
                raise WithoutNegatives(int(queries))
    return {key: sums[row, 0] for row, key in enumerate(keys)}


def slices_of(positive: Tensor) -> list[range]:
    """The rows of (Q, D) in consecutive slices of at least one query.

    The matrix of a slice's positive pairs (one a query at least) with all documents and one column more stays within
    LARGEST_MATRIX.
    """
    pairs = positive.sum(dim=1).clamp(min=1).tolist()
    largest = sizes.LARGEST_MATRIX // (positive.shape[1] + 1)
    starts, held = [0], 0
    for row, count in enumerate(pairs):
        if held and held + count > largest:
            starts.append(row)
            held = 0
        held += count
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True)]


def observed(observe: Observe, batch: Scored, slices: Sequence[range]) -> Parts:
    """The observer's numbers for the log. A query that stands in two slices is seen once, as in one piece."""
    if len(slices) == 1:
        return dict(observe(batch.scores()))
    first: dict[str, int] = {}
    for row, query_id in enumerate(batch.query_ids):
        first.setdefault(query_id, row)
    return added(observe(batch.scores([row for row in rows if first[batch.query_ids[row]] == row])) for rows in slices)


def joined(terms: Sequence[Term], over: Tensor | None = None) -> Term:
    """The term of all queries, from those of the slices.

    over: what the mean is over, where the slices are not the whole batch; the term then holds what they add to it.
    Counts among the parts add up; other parts are means over the queries. Raises WithoutNegatives where no query of any
    slice has a negative.
    """
    if over is None:
        refused = [term.refused for term in terms if term.refused is not None]
        if len(refused) == len(terms):
            raise WithoutNegatives(sum(error.queries for error in refused))
        over = sum((torch.as_tensor(term.over) for term in terms), start=torch.zeros(()).long())
    whole = Term(torch.zeros(()), over, {})
    value = sum((term.share(term.value.detach(), whole) for term in terms), start=whole.value)
    parts = added(
        {name: part if is_count(part) else term.share(part, whole) for name, part in term.parts.items()}
        for term in terms
    )
    return Term(value, over, parts | ({REFUSED: (over == 0).long()} if REFUSED in parts else {}))


def is_count(value: Tensor | float) -> bool:
    return not value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, int)


def added(parts: Iterable[Mapping[str, Tensor | float]]) -> Parts:
    """The sums by name."""
    sums: Parts = {}
    for part in parts:
        for name, value in part.items():
            sums[name] = sums[name] + value if name in sums else value
    return sums


def mean_parts(parts: Sequence[Parts]) -> Parts:
    """The mean of each number over the batches of one step; a count that a batch does not name is 0 there."""
    batches = {name: sum(name in part for part in parts) for part in parts for name in part}
    return {
        name: total / (len(parts) if any(is_count(part[name]) for part in parts if name in part) else batches[name])
        for name, total in added(parts).items()
    }


def limits_of(recipe: Recipe) -> dict[int, Any]:
    """By the filter's index: the limit of each filter that also decides within a role (`same_role` in its SPEC)."""
    return {
        index: methods.bind_limit(chosen.name, chosen.options)
        for index, chosen in enumerate(recipe.negatives.filtering)
        if methods.describe("filtering", chosen.name).spec.same_role
    }


def within_roles(scores: Scores, keep: Tensor, limits: Sequence[Any]) -> Scores:
    """Scores with the other queries, and the other documents, that the limits leave as negatives.

    keep: (Q, D) what the filters without a limit kept.
    """
    if not limits or scores.teacher_queries is None or scores.teacher_documents is None:
        return scores
    rows, columns = scores.positive.nonzero(as_tuple=True)
    queries, documents = other_queries(scores, keep), keep[rows]
    for limit in limits:
        bar = limit(scores)  # (Q, 1)
        queries = queries & ~(scores.teacher_queries > bar)
        documents = documents & ~(scores.teacher_documents[columns] > bar[rows])
    return replace(scores, kept_queries=queries, kept_documents=documents)
