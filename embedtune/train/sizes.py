"""How large a run is: pairs, batches, steps, negatives, matrices. Without torch, so that preflight says what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from .. import methods
from ..data.split import split_qrels
from ..errors import InputError
from ..recipe import Recipe, Train, Validation
from ..types import Dataset

# Elements of one (Q, D) matrix: 256 MiB in float32. An objective holds some ten of its size at once for the backward
# pass. A larger batch is taken some queries at a time, which changes no result; smaller ones are faster in one piece.
LARGEST_MATRIX = 2**26


def training_queries(
    dataset: Dataset, validation: Validation | None, seed: int
) -> tuple[list[str], Mapping[str, Mapping[str, int]]]:
    """The query ids to train on, and the judgements held out for validation (empty without `data.validation`).

    Queries that share a positive stay on one side, so that no document of validation was trained on as a positive.
    seed: draws them where `data.validation.seed` does not.
    """
    judged = {q: grades for q, grades in dataset.qrels.items() if any(grade > 0 for grade in grades.values())}
    if validation is None:
        return list(judged), {}
    parts = split_qrels(judged, {"validation": validation.share}, seed=draws(validation, seed))
    return list(parts["train"]), parts["validation"]


def draws(validation: Validation, seed: int) -> int:
    """The seed that draws the held-out queries. seed: the run's."""
    return seed if validation.seed is None else validation.seed


def pair_count(dataset: Dataset, query_ids: Sequence[str], positives: Literal["each", "all"] | int) -> int:
    """Pairs of one epoch: one for each positive, or one for each query that has any."""
    counts = [sum(grade > 0 for grade in dataset.qrels[query_id].values()) for query_id in query_ids]
    return sum(counts) if positives == "each" else sum(count > 0 for count in counts)


def check_batch_size(dataset: Dataset, pairs: int, batch_size: int) -> None:
    """Raises InputError for an epoch without pairs, or with fewer than a batch."""
    if pairs == 0:
        raise InputError(f"{dataset.folder}: split {dataset.split} has no query with a positive document")
    if batch_size > pairs:
        raise InputError(
            f"train.batch_size: {batch_size} is more than the {pairs} pairs of an epoch; choose at most {pairs}"
        )


def batch_count(pairs: int, batch_size: int) -> int:
    """Batches that `methods.batching.cut` makes: a single left-over pair joins the batch before it."""
    full, rest = divmod(pairs, batch_size)
    return full + (rest > 1 or not full)


def steps_of(train: Train, batches_per_epoch: int) -> tuple[int, int]:
    """Optimizer steps of the first stage (projections alone; 0 without one), and of both stages."""

    def steps(epochs: float) -> int:
        return -(-max(1, round(batches_per_epoch * epochs)) // train.accumulate)

    first = steps(train.projections_first.epochs) if train.projections_first is not None else 0
    both = first + steps(train.epochs)
    return first, min(both, train.max_steps) if train.max_steps is not None else both


def own_negatives(recipe: Recipe) -> int:
    """Mined negatives that the sampling draws for a query; 0 without mining."""
    if not recipe.negatives.mining:
        return 0
    sampling = recipe.negatives.sampling
    return int(methods.describe("sampling", sampling.name).with_defaults(sampling.options)["count"])


def columns(recipe: Recipe) -> int:
    """About how many documents a batch has: positives, the queries' own negatives, and those made."""
    live = recipe.negatives.live.depth if recipe.negatives.live is not None else 0
    return recipe.train.batch_size * (1 + own_negatives(recipe) + live + len(recipe.synthesis))


def comparing(recipe: Recipe) -> list[str]:
    """The recipe's methods that compare queries with each other; with one, a batch of any size is one piece.

    Each as a recipe names it, with the options under which it treats each query by itself, where there are any.
    """
    vectors = [c for c in recipe.synthesis if methods.describe("synthesis", c.name).spec.kind == "vectors"]
    families = {
        "filtering": recipe.negatives.filtering,
        "synthesis": vectors,
        "weighting": recipe.weighting,
        "loss": recipe.loss,
    }
    names = []
    for family, chosen in families.items():
        for method in chosen:
            if not methods.by_query(family, method.name, method.options):
                by_query = methods.describe(family, method.name).spec.by_query
                options = by_query.items() if isinstance(by_query, dict) else ()
                unless = ", ".join(f"{key}: {value}" for key, value in options)
                names.append(f"{family}.{method.name}" + (f" (which with {unless} does not)" if unless else ""))
    return names
