"""A run's log: the loss of every step, the learning curve, and how fast it converged."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..data.jsonl import parse_object, read_lines
from ..errors import InputError


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The validation measure over a run. seconds: spent in training steps until then, without validation itself."""

    measure: str
    steps: list[int]
    seconds: list[float]
    values: list[float]

    @property
    def best(self) -> float:
        return max(self.values)

    @property
    def best_step(self) -> int:
        return self.steps[self.values.index(self.best)]

    @property
    def area(self) -> float:
        """The curve's mean height: the area under it by trapezoids, from its first validation to its last, divided by
        that length in steps."""
        if len(self.steps) == 1:
            return self.values[0]
        points = list(zip(self.steps, self.values, strict=True))
        area = sum((end - start) * (low + high) / 2 for (start, low), (end, high) in pairwise(points))
        return area / (self.steps[-1] - self.steps[0])

    def at(self, step: int | None) -> float | None:
        """The value at a step; None where it was not validated."""
        return self.values[self.steps.index(step)] if step in self.steps else None

    def reaches(self, target: float) -> tuple[int, float] | None:
        """(steps, seconds) to the first validation that is not below `target`; None where there is none."""
        for step, seconds, value in zip(self.steps, self.seconds, self.values, strict=True):
            if value >= target:
                return step, seconds
        return None


@dataclass(kw_only=True)
class Learning:
    """A log: one entry a step in each list. curve: None where nothing was validated. seconds: of all steps. pairs:
    query-positive pairs trained on."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    pairs: float = 0.0
    curve: Curve | None = None


def read_learning(run: Path) -> Learning:
    """A run folder's log.jsonl: empty where there is none. A half-written last line is left out.

    Raises InputError with the line that is no event of a run.
    """
    learning = Learning()
    path = run / "log.jsonl"
    for number, raw in read_lines(path) if path.exists() else ():
        if not raw.endswith(b"\n"):  # a killed process may leave half a line at the end
            break
        try:
            _note(learning, parse_object(raw, f"{path}:{number}"))
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: is no event of a run ({error})") from None
    return learning


def _note(learning: Learning, event: dict[str, Any]) -> None:
    if event["event"] == "step":
        learning.steps.append(event["step"])
        learning.losses.append(event["loss"])
        learning.seconds += event["seconds"]
        learning.pairs += event["pairs_per_second"] * event["seconds"]
    elif event["event"] == "validation":
        learning.curve = learning.curve or Curve(measure=event["measure"], steps=[], seconds=[], values=[])
        learning.curve.steps.append(event["step"])
        learning.curve.seconds.append(learning.seconds)
        learning.curve.values.append(event["value"])


def read_curve(run: Path) -> Curve:
    """The curve from a run folder's log.jsonl. Raises InputError where nothing was validated."""
    curve = read_learning(run).curve
    if curve is None:
        path = run / "log.jsonl"
        raise InputError(f"{path}: no validation in it; set data.validation and train.validate_every in the recipe")
    return curve
