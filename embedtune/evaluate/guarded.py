"""The verdict of a run's guard on out-of-domain sets: the file guard.json of a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError
from ..files import write_json

FILE = "guard.json"
HALF = "half of its queries"  # the value of chosen_on if the other half reports


@dataclass(frozen=True, kw_only=True)
class Point:
    """One alpha of the curve (0: the base model, 1: the tuned one).

    validation: the measure on the held-out training queries, None without any. sets: label of a guarded set -> the
    measure on its queries that choose. fits: whether every set keeps the budget.
    """

    alpha: float
    validation: float | None
    sets: dict[str, float]
    fits: bool


@dataclass(frozen=True, kw_only=True)
class GuardedSet:
    """One out-of-domain set, measured on the queries that report.

    chosen_on: the queries that chose alpha, None if none did. base, tuned: the means of the base model and of the model
    that is kept. unmixed: that of the tuned model before it was mixed, None if it was not. difference: tuned - base,
    with its 95% interval. missed: over the budget.
    """

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
    """largest_drop: the loss of the measure that each set may have. largest_flips: the share of queries that may go
    from right to wrong. weights: how they were mixed. chosen: the alpha of model/, None if nothing was mixed."""

    measure: str
    largest_drop: float
    largest_flips: float | None
    weights: str
    chosen: float | None
    curve: list[Point]
    sets: list[GuardedSet]


def read_guard(run: Path) -> Guarded | None:
    """Reads a run folder's guard.json; None for a run without a guard. Raises InputError for another content."""
    from pydantic import TypeAdapter, ValidationError

    path = run / FILE
    if not path.exists():
        return None
    try:
        return TypeAdapter(Guarded).validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: not written by this version of embedtune ({where}: {problem['msg']})") from None


def write_guard(run: Path, guarded: Guarded) -> None:
    write_json(run / FILE, asdict(guarded))
