"""The flags of sentence-transformers' mine_hard_negatives, as options of a recipe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from .. import methods
from ..errors import InputError
from . import Chosen, Negatives, Recipe


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags that were given. Without any the recipe does not change."""

    num_negatives: int | None = None
    range_min: int | None = None
    range_max: int | None = None
    relative_margin: float | None = None
    absolute_margin: float | None = None
    max_score: float | None = None
    sampling_strategy: Literal["top", "random"] | None = None
    teacher: str | None = None


def adjusted(recipe: Recipe, flags: Flags) -> Recipe:
    """The recipe with the flags in place of its own options. Without a miner it gets `dense`.

    relative_margin m: filter positive_ratio, at_most 1 - m (s < p - |p| m). absolute_margin: filter positive_margin.
    max_score: filter absolute. range_max: the miners' depth. range_min: the number of kept candidates to skip. A
    candidate exactly at a limit is dropped here, and kept by sentence-transformers. Raises InputError for numbers that
    contradict each other.
    """
    _check(flags)
    negatives = recipe.negatives
    mining = negatives.mining or [Chosen(name="dense")]
    if flags.range_max is not None:
        mining = [_with_depth(chosen, flags.range_max) for chosen in mining]
    filtering = {chosen.name: chosen for chosen in negatives.filtering}
    for name, option, value in (
        ("positive_ratio", "at_most", None if flags.relative_margin is None else 1 - flags.relative_margin),
        ("positive_margin", "margin", flags.absolute_margin),
        ("absolute", "below", flags.max_score),
    ):
        if value is not None:
            filtering[name] = Chosen(name=name, options={option: value})
    changed = dataclasses.replace(
        negatives,
        mining=mining,
        filtering=list(filtering.values()),
        sampling=_sampling(negatives, flags),
        teacher=flags.teacher or negatives.teacher,
    )
    return dataclasses.replace(recipe, negatives=changed)


def _check(flags: Flags) -> None:
    least, most, count = flags.range_min or 0, flags.range_max, flags.num_negatives
    if count is not None and count < 1:
        raise InputError(f"--num-negatives: must be at least 1, got {count}")
    if least < 0:
        raise InputError(f"--range-min: must be 0 or more, got {least}")
    if most is not None and most - least < (count or 1):
        raise InputError(f"--range-max {most}: leaves fewer than {count or 1} after the first {least}; raise it")
    if (flags.range_min is not None or flags.sampling_strategy) and count is None:
        raise InputError("--range-min and --sampling-strategy choose among --num-negatives; give that too")


def _with_depth(chosen: Chosen, depth: int) -> Chosen:
    if "depth" not in {option.name for option in methods.describe("mining", chosen.name).options}:
        raise InputError(f"--range-max: mining.{chosen.name} has no depth; leave the flag out")
    return dataclasses.replace(chosen, options={**chosen.options, "depth": depth})


def _sampling(negatives: Negatives, flags: Flags) -> Chosen:
    count, first = flags.num_negatives, (flags.range_min or 0) + 1
    if count is None:
        return negatives.sampling
    if flags.sampling_strategy == "random":
        window = {"last": flags.range_max} if flags.range_max is not None else {}
        return Chosen(name="window", options={"count": count, "first": first, **window})
    if first > 1:
        return Chosen(name="window", options={"count": count, "first": first, "last": first + count - 1})
    if flags.sampling_strategy == "top":
        return Chosen(name="top", options={"count": count})
    return dataclasses.replace(negatives.sampling, options={**negatives.sampling.options, "count": count})
