"""The guard: what tuning costs on foreign sets, against a budget, and which mixture of weights keeps the budget.

Queries that choose never report. Where weights are mixed, a seeded half of each guard set's queries chooses the
mixture, and the other half is reported; a set with a validation split chooses by that split and reports in full. In
domain, the choice goes by the recipe's validation queries, where it has some.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.dataset import load_dataset, load_texts, source_of, splits_of, subset
from ..data.relevance import Relevance, item_key
from ..errors import InputError
from ..evaluate.guarded import HALF, Guarded, GuardedSet, Point, write_guard
from ..evaluate.results import Evaluation
from ..evaluate.significance import TIE, Paired, paired
from ..recipe import Guard, Recipe
from ..types import Dataset

VALIDATION = ("validation", "dev")  # names of the split by which a set chooses
Values = dict[str, float]  # query_id -> value


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A guard set: what reports and, where weights are mixed, what chooses. chosen_on: which queries choose."""

    reporting: Dataset
    choosing: Dataset | None = None
    chosen_on: str | None = None


def watch(dataset: Dataset, guard: Guard) -> Watched:
    """Splits a guard set's queries into choosing and reporting. Raises InputError for a set with one judged query."""
    if not guard.interpolate:
        return Watched(reporting=dataset)
    split = next((name for name in VALIDATION if name in splits_of(dataset.folder) and name != dataset.split), None)
    if split is not None:
        choosing = load_dataset(source_of(dataset), split)
        return Watched(reporting=dataset, choosing=choosing, chosen_on=f"its split {split}")
    query_ids = sorted(q for q, judged in dataset.qrels.items() if any(grade > 0 for grade in judged.values()))
    if len(query_ids) < 2:
        raise InputError(f"evaluate.guard: {dataset.folder} has one judged query; it cannot both choose and report")
    random.Random(f"guard {dataset.name}").shuffle(query_ids)
    chosen = set(query_ids[: len(query_ids) // 2])
    return Watched(
        reporting=_part(dataset, [q for q in dataset.qrels if q not in chosen]),
        choosing=_part(dataset, [q for q in dataset.qrels if q in chosen]),
        chosen_on=HALF,
    )


def _part(dataset: Dataset, query_ids: Sequence[str]) -> Dataset:
    """The same data with fewer queries, under the whole's fingerprint, so that results can be compared with others'."""
    return dataclasses.replace(subset(dataset, query_ids), fingerprint=dataset.fingerprint)


def refuse_overlap(training: Dataset, guarded: Sequence[Dataset]) -> None:
    """Raises InputError where a guard set shares a judged query or a positive document with the training data.

    They are compared by text, and by id within the same corpus. Data that was trained on does not show forgetting.
    """
    seen = Relevance(training)
    queries = {seen.query_key(q): q for q, positives in seen.positives.items() if positives}
    documents = {seen.document_key(d): d for positives in seen.positives.values() for d in positives}
    for dataset in guarded:
        relevance = Relevance(dataset)
        judged = [q for q, positives in relevance.positives.items() if positives]
        positives = sorted({d for listed in relevance.positives.values() for d in listed})
        keys = [("query", q, queries.get(relevance.query_key(q))) for q in judged]
        keys += [("positive", d, documents.get(relevance.document_key(d))) for d in positives]
        shared = [key for key in keys if key[2] is not None]
        if shared:
            kind, its, other = shared[0]
            raise InputError(
                f"evaluate.guard: {dataset.folder} (split {dataset.split}) overlaps with the training data: "
                f"{len(shared)} of its queries and positives were trained on, first its {kind} {its!r}, which is "
                f"{other!r} in {training.folder}; guard by a set that was not trained on"
            )


def refuse_distilled(folder: str, guarded: Sequence[Dataset]) -> None:
    """Raises InputError where the base model is distilled on a guard set's own queries: they would only show that."""
    distilled = {item_key(query): query.id for query in load_texts(folder)[1]}
    for dataset in guarded:
        relevance = Relevance(dataset)
        shared = [(q, distilled[key]) for q in dataset.qrels if (key := relevance.query_key(q)) in distilled]
        if shared:
            raise InputError(
                f"evaluate.guard: {len(shared)} queries of {dataset.folder} (split {dataset.split}) are in "
                f"stay_close.distill.data, first {shared[0][0]!r}, which is {shared[0][1]!r} in {folder}; hold the "
                "model by other text than what guards it"
            )


def fits(guard: Guard, base: Mapping[str, Values], mixed: Mapping[str, Values]) -> bool:
    """Whether every set keeps the budget; base, mixed: label -> each query's value."""
    return not any(over_budget(guard, *change(base[label], values)) for label, values in mixed.items())


def change(base: Values, other: Values) -> tuple[float, float]:
    """The mean difference and the share of queries that were right (at least 0.5) and no longer are."""
    count = len(base)
    difference = sum(other[q] - value for q, value in base.items()) / count
    return difference, sum(value >= 0.5 > other[q] for q, value in base.items()) / count


def over_budget(guard: Guard, difference: float, flips: float) -> bool:
    return difference < -guard.largest_drop - TIE or (
        guard.largest_flips is not None and flips > guard.largest_flips + TIE
    )


def choose(points: Sequence[Point]) -> Point:
    """The alpha within the budget that validates best; without validation, or with equal values, the largest.

    Where none keeps the budget, the smallest alpha.
    """
    fitting = [point for point in points if point.fits]
    if not fitting:
        return min(points, key=lambda point: point.alpha)
    return max(fitting, key=lambda point: (point.validation or 0.0, point.alpha))


def curve(
    guard: Guard,
    watched: Sequence[Watched],
    measure: Callable[[float, Dataset], Values],
    validate: Callable[[float], float] | None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> list[Point]:
    """Every alpha's point, from 0 up.

    measure: (alpha, dataset) -> each query's value. validate: alpha -> value in domain; its set is the last one
    of each alpha. on_progress: told before each set.
    """
    chosen_by = [w.choosing for w in watched if w.choosing is not None]
    points: list[Point] = []
    alphas, count = sorted(set(guard.alphas)), len(chosen_by) + (validate is not None)

    def told(number: int, position: int) -> None:
        detail = f"alpha {number + 1} of {len(alphas)}, set {position + 1} of {count}"
        if on_progress is not None:
            on_progress(number * count + position, len(alphas) * count, detail)

    def values_at(number: int, alpha: float) -> dict[str, Values]:
        by_label = {}
        for position, dataset in enumerate(chosen_by):
            told(number, position)
            by_label[dataset.label] = measure(alpha, dataset)
        return by_label

    base = values_at(0, 0.0)
    for number, alpha in enumerate(alphas):
        by_label = base if alpha == 0 else values_at(number, alpha)
        if validate is not None:
            told(number, count - 1)
        points.append(
            Point(
                alpha=alpha,
                validation=validate(alpha) if validate is not None else None,
                sets={label: sum(values.values()) / len(values) for label, values in by_label.items()},
                fits=fits(guard, base, by_label),
            )
        )
    return points


def conclude(
    recipe: Recipe,
    watched: Sequence[Watched],
    points: Sequence[Point],
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    folder: Path,
) -> list[str]:
    """Writes guard.json; returns a sentence for each set that is over its budget.

    points: the curve, where weights were mixed. evaluations: of `base`, `tuned` and, where mixed, `unmixed`, by label.
    """
    guard = recipe.evaluate.guard
    assert guard is not None
    measure = guard.measure or recipe.evaluate.measure
    sets = [guarded_set(guard, measure, one, evaluations) for one in watched]
    guarded = Guarded(
        measure=measure,
        largest_drop=guard.largest_drop,
        largest_flips=guard.largest_flips,
        weights=guard.weights,
        chosen=choose(points).alpha if points else None,
        curve=list(points),
        sets=sets,
    )
    write_guard(folder, guarded)
    return [sentence(guard, measure, one) for one in sets if one.missed]


def guarded_set(
    guard: Guard, measure: str, watched: Watched, evaluations: Mapping[str, Mapping[str, Evaluation]]
) -> GuardedSet:
    """What one set says of the chosen model."""
    label = watched.reporting.label
    values = {which: by_label[label] for which, by_label in evaluations.items() if label in by_label}
    pair: Paired = paired(values["base"].per_query[measure], values["tuned"].per_query[measure])
    return GuardedSet(
        label=label,
        queries=pair.queries,
        chosen_on=watched.chosen_on,
        base=pair.baseline,
        tuned=pair.value,
        unmixed=values["unmixed"].measures[measure] if "unmixed" in values else None,
        difference=pair.difference,
        low=pair.low,
        high=pair.high,
        negative_flips=pair.negative_flips,
        missed=over_budget(guard, pair.difference, pair.negative_flips),
    )


def sentence(guard: Guard, measure: str, one: GuardedSet) -> str:
    """Which set lost how much, with its interval, against which budget."""
    text = f"{one.label}: {measure} {one.base:.4f} -> {one.tuned:.4f}, {one.difference:+.4f}"
    if one.low is not None:
        text += f" (95% interval {one.low:+.4f} to {one.high:+.4f})"
    budget = f"the budget is a drop of {guard.largest_drop:g}"
    if guard.largest_flips is not None:
        text += f", {one.negative_flips:.1%} of its queries are no longer right"
        budget += f" and {guard.largest_flips:.1%} of the queries"
    return f"{text}; {budget}"
