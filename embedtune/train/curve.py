"""The learning curve of a run, and how fast it converged: read from its log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..errors import InputError


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The validation measure over a run. seconds: spent in training steps until then, validation itself left out."""

    measure: str
    steps: list[int]
    seconds: list[float]
    values: list[float]

    @property
    def best(self) -> float:
        return max(self.values)

    @property
    def area(self) -> float:
        """The curve's mean height: the area under it by trapezoids, from its first validation to its last, divided by
        that length in steps."""
        if len(self.steps) == 1:
            return self.values[0]
        points = list(zip(self.steps, self.values, strict=True))
        whole = sum((right - left) * (a + b) / 2 for (left, a), (right, b) in pairwise(points))
        return whole / (self.steps[-1] - self.steps[0])

    def reaches(self, target: float) -> tuple[int, float] | None:
        """(steps, seconds) to the first validation that is not below `target`; None where there is none."""
        for step, seconds, value in zip(self.steps, self.seconds, self.values, strict=True):
            if value >= target:
                return step, seconds
        return None


def read_curve(run: Path) -> Curve:
    """The curve from a run folder's log.jsonl. Raises InputError where nothing was validated."""
    path, seconds, measure = run / "log.jsonl", 0.0, ""
    points: list[tuple[int, float, float]] = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for event in map(json.loads, lines):
        if event["event"] == "step":
            seconds += event["seconds"]
        elif event["event"] == "validation":
            measure = event["measure"]
            points.append((event["step"], seconds, event["value"]))
    if not points:
        raise InputError(f"{path}: no validation in it; set data.validation and train.validate_every in the recipe")
    return Curve(
        measure=measure,
        steps=[step for step, _, _ in points],
        seconds=[spent for _, spent, _ in points],
        values=[value for _, _, value in points],
    )
