"""The guard: what tuning cost on foreign sets, held to a budget, and the mixture of weights that keeps it.

What chooses never reports. Where weights are mixed, a seeded half of each guard set's queries chooses how far to go
from the base model to the tuned one, and only the other half is reported; a set with a validation split of its own
chooses by that and reports in full. The in-domain side of the choice is the recipe's validation share of the training
queries, where it has one.
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

VALIDATION = ("validation", "dev")  # what a set's own split for choosing is called
Values = dict[str, float]  # query_id -> value


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A guard set: what reports, and (where weights are mixed) what chooses. chosen_on: says which queries choose."""

    reporting: Dataset
    choosing: Dataset | None = None
    chosen_on: str | None = None


def watch(dataset: Dataset, guard: Guard) -> Watched:
    """Deals a guard set's queries out to choosing and reporting. Raises InputError for a set with one judged query."""
    if not guard.interpolate:
        return Watched(reporting=dataset)
    own = next((name for name in VALIDATION if name in splits_of(dataset.folder) and name != dataset.split), None)
    if own is not None:
        return Watched(reporting=dataset, choosing=load_dataset(source_of(dataset), own), chosen_on=f"its split {own}")
    query_ids = sorted(q for q, judged in dataset.qrels.items() if any(grade > 0 for grade in judged.values()))
    if len(query_ids) < 2:
        raise InputError(f"evaluate.guard: {dataset.folder} has one judged query; it cannot both choose and report")
    random.Random(f"guard {dataset.name}").shuffle(query_ids)
    chosen = set(query_ids[: len(query_ids) // 2])
    return Watched(
        reporting=_half(dataset, [q for q in dataset.qrels if q not in chosen]),
        choosing=_half(dataset, [q for q in dataset.qrels if q in chosen]),
        chosen_on=HALF,
    )


def _half(dataset: Dataset, query_ids: Sequence[str]) -> Dataset:
    """The same data, fewer queries: under the whole's fingerprint, so that results can be compared with others'."""
    return dataclasses.replace(subset(dataset, query_ids), fingerprint=dataset.fingerprint)


def refuse_overlap(training: Dataset, guarded: Sequence[Dataset]) -> None:
    """Raises InputError where a guard set shares a judged query or a positive document with the training data, by id
    within the same corpus or by text: what was trained on says nothing about what was forgotten."""
    seen = Relevance(training)
    queries = {seen.query_key(q): q for q, positives in seen.positives.items() if positives}
    documents = {seen.document_key(d): d for positives in seen.positives.values() for d in positives}
    for dataset in guarded:
        own = Relevance(dataset)
        judged = [q for q, positives in own.positives.items() if positives]
        positives = {d for found in own.positives.values() for d in found}
        shared = [("query", q, queries[key]) for q in judged if (key := own.query_key(q)) in queries]
        shared += [
            ("positive", d, documents[key]) for d in sorted(positives) if (key := own.document_key(d)) in documents
        ]
        if shared:
            kind, its, other = shared[0]
            raise InputError(
                f"evaluate.guard: {dataset.folder} (split {dataset.split}) overlaps with the training data: "
                f"{len(shared)} of its queries and positives were trained on, first its {kind} {its!r}, which is "
                f"{other!r} in {training.folder}; guard by a set that was not trained on"
            )


def refuse_distilled(folder: str, guarded: Sequence[Dataset]) -> None:
    """Raises InputError where the base model is distilled on a guard set's own queries: they would only show that."""
    held = {item_key(query): query.id for query in load_texts(folder)[1]}
    for dataset in guarded:
        own = Relevance(dataset)
        shared = [(q, held[key]) for q in dataset.qrels if (key := own.query_key(q)) in held]
        if shared:
            raise InputError(
                f"evaluate.guard: {len(shared)} queries of {dataset.folder} (split {dataset.split}) are in "
                f"stay_close.distill.data, first {shared[0][0]!r}, which is {shared[0][1]!r} in {folder}; hold the "
                "model by other text than what guards it"
            )


def fits(guard: Guard, base: Mapping[str, Values], mixed: Mapping[str, Values]) -> bool:
    """Whether every set keeps the budget: label -> query_id -> value of the base model and of the mixture."""
    return not any(over_budget(guard, paired_quickly(base[label], values)) for label, values in mixed.items())


def paired_quickly(base: Values, other: Values) -> tuple[float, float]:
    """The mean difference and the share of negative flips, without a test."""
    count = len(base)
    difference = sum(other[q] - value for q, value in base.items()) / count
    return difference, sum(value >= 0.5 > other[q] for q, value in base.items()) / count


def over_budget(guard: Guard, found: tuple[float, float]) -> bool:
    difference, flips = found
    return difference < -guard.largest_drop - TIE or (
        guard.largest_flips is not None and flips > guard.largest_flips + TIE
    )


def choose(points: Sequence[Point]) -> Point:
    """Of the alphas that keep the budget the one that validates best, or, where nothing validates, the largest.

    Equal values: the larger alpha. Where none keeps the budget, the smallest alpha.
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
) -> list[Point]:
    """Every alpha's point, from 0 up. measure: (alpha, dataset) -> each query's value; validate: alpha -> value."""
    chosen_by = [w.choosing for w in watched if w.choosing is not None]
    base = {dataset.label: measure(0.0, dataset) for dataset in chosen_by}
    points = []
    for alpha in sorted(set(guard.alphas)):
        values = base if alpha == 0 else {dataset.label: measure(alpha, dataset) for dataset in chosen_by}
        points.append(
            Point(
                alpha=alpha,
                validation=validate(alpha) if validate is not None else None,
                sets={label: sum(found.values()) / len(found) for label, found in values.items()},
                fits=fits(guard, base, values),
            )
        )
    return points


def verdicts(
    recipe: Recipe,
    watched: Sequence[Watched],
    base: Mapping[str, Evaluation],
    tuned: Mapping[str, Evaluation],
    unmixed: Mapping[str, Evaluation],
) -> list[GuardedSet]:
    """What each set says of the chosen model; the evaluations are by label."""
    guard, name = guard_of(recipe)
    found = []
    for w in watched:
        label = w.reporting.label
        pair: Paired = paired(base[label].per_query[name], tuned[label].per_query[name])
        found.append(
            GuardedSet(
                label=label,
                queries=pair.queries,
                chosen_on=w.chosen_on,
                base=pair.baseline,
                tuned=pair.value,
                unmixed=unmixed[label].measures[name] if label in unmixed else None,
                difference=pair.difference,
                low=pair.low,
                high=pair.high,
                negative_flips=pair.negative_flips,
                missed=over_budget(guard, (pair.difference, pair.negative_flips)),
            )
        )
    return found


def conclude(recipe: Recipe, points: Sequence[Point], found: Sequence[GuardedSet], folder: Path) -> list[str]:
    """Writes guard.json; returns a sentence for each set that is over its budget."""
    guard, name = guard_of(recipe)
    guarded = Guarded(
        measure=name,
        largest_drop=guard.largest_drop,
        largest_flips=guard.largest_flips,
        weights=guard.weights,
        chosen=choose(points).alpha if points else None,
        curve=list(points),
        sets=list(found),
    )
    write_guard(folder, guarded)
    return [sentence(guard, name, one) for one in found if one.missed]


def guard_of(recipe: Recipe) -> tuple[Guard, str]:
    """The recipe's guard and the measure that it watches."""
    guard = recipe.evaluate.guard
    assert guard is not None
    return guard, guard.measure or recipe.evaluate.measure


def sentence(guard: Guard, name: str, found: GuardedSet) -> str:
    """Which set lost how much, with its interval, against which budget."""
    said = f"{found.label}: {name} {found.base:.4f} -> {found.tuned:.4f}, {found.difference:+.4f}"
    if found.low is not None:
        said += f" (95% interval {found.low:+.4f} to {found.high:+.4f})"
    budget = f"the budget is a drop of {guard.largest_drop:g}"
    if guard.largest_flips is not None:
        said += f", {found.negative_flips:.1%} of its queries are no longer right"
        budget += f" and {guard.largest_flips:.1%} of the queries"
    return f"{said}; {budget}"
