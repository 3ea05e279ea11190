"""What the guard found, as guard.json keeps it: the tuned model mixed with its base, and what each mixture costs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError


@dataclass(frozen=True, kw_only=True)
class Point:
    """One alpha of the curve (0: the base model, 1: the tuned one), label -> value of the measure.

    in_domain: on the sets that the recipe trains for. choosing: on the queries of the guarded sets that choose.
    """

    alpha: float
    in_domain: dict[str, float]
    choosing: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class GuardedSet:
    """One out-of-domain set, on the queries that report: the base model, the tuned one, and the one chosen.

    low, high: the interval of mixed - base. held: whether the loss stays within the budget.
    """

    label: str
    base: float
    unmixed: float
    mixed: float
    low: float | None
    high: float | None
    queries: int
    held: bool


@dataclass(frozen=True, kw_only=True)
class Guard:
    """budget: how much of the measure may be lost on a set. chosen: the alpha that model/ has."""

    measure: str
    budget: float
    chosen: float
    curve: list[Point]
    sets: list[GuardedSet]


def read_guard(run: Path) -> Guard | None:
    """A run folder's guard.json; None where the run was not guarded. Raises InputError where it is not one."""
    path = run / "guard.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Guard(
            measure=found["measure"],
            budget=found["budget"],
            chosen=found["chosen"],
            curve=[Point(**point) for point in found["curve"]],
            sets=[GuardedSet(**of_set) for of_set in found["sets"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no guard's result of this version of embedtune ({error})") from None
