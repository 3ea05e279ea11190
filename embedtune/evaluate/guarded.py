"""What a guard found: the file guard.json of a run folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError
from ..files import write_json

FILE = "guard.json"
HALF = "half of its queries"  # chosen_on: the other half reports


@dataclass(frozen=True, kw_only=True)
class Point:
    """One alpha of the curve (0: the base model, 1: the tuned one).

    validation: the measure on the training queries that were held out, None without any. sets: on the queries of each
    guarded set that choose. fits: whether every set keeps the budget there.
    """

    alpha: float
    validation: float | None
    sets: dict[str, float]
    fits: bool


@dataclass(frozen=True, kw_only=True)
class GuardedSet:
    """One out-of-domain set, on the queries that report: the base model, the tuned one before it was mixed (None where
    nothing was), and the one that is kept. difference: kept - base, with its interval. missed: over the budget."""

    label: str
    queries: int
    chosen_on: str | None
    base: float
    tuned: float
    unmixed: float | None
    difference: float
    low: float | None
    high: float | None
    negative_flips: float
    missed: bool


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """largest_drop: how much of the measure may be lost on a set; largest_flips: the share of queries that may go
    wrong. weights: how they were mixed. chosen: the alpha that model/ has,
    None where weights were not mixed."""

    measure: str
    largest_drop: float
    largest_flips: float | None
    weights: str
    chosen: float | None
    curve: list[Point]
    sets: list[GuardedSet]


def read_guard(run: Path) -> Guarded | None:
    """A run folder's guard.json; None where the run was not guarded. Raises InputError where it is not one."""
    path = run / FILE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Guarded(
            measure=found["measure"],
            largest_drop=found["largest_drop"],
            largest_flips=found["largest_flips"],
            weights=found["weights"],
            chosen=found["chosen"],
            curve=[Point(**point) for point in found["curve"]],
            sets=[GuardedSet(**of_set) for of_set in found["sets"]],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no guard's result of this version of embedtune ({error})") from None


def write_guard(run: Path, guarded: Guarded) -> None:
    write_json(run / FILE, asdict(guarded))
