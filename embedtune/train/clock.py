"""The time that a run still takes: by the work of its phases, and by how fast each has gone so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

PhaseKind = Literal["mining", "validation", "training", "mixing", "evaluation", "bm25"]
ORDER: tuple[PhaseKind, ...] = ("mining", "validation", "training", "mixing", "evaluation", "bm25")
FINISHING: tuple[PhaseKind, ...] = ("mixing", "evaluation", "bm25")  # begin when all kinds before them are done
SOONEST = 2.0  # seconds before which no time is told
PRIOR = 0.05  # the share of a kind's work that goes at the whole run's pace, until its own is known


@dataclass(frozen=True, kw_only=True)
class PhaseWork:
    """The work of all phases of a kind, in tokens that are encoded once: parts, one for each time that it runs."""

    kind: PhaseKind
    parts: tuple[float, ...]

    @property
    def tokens(self) -> float:
        return sum(self.parts)


@dataclass(kw_only=True)
class _Course:
    """How far a kind is: parts that are done, the share of the present one, and what was watched of it."""

    work: PhaseWork
    done: int = 0
    share: float = 0.0
    seconds: float = 0.0
    watched: float = 0.0  # tokens

    @property
    def behind(self) -> float:
        """Tokens that are done."""
        parts = self.work.parts
        return sum(parts[: self.done]) + (self.share * parts[self.done] if self.done < len(parts) else 0.0)


class RunClock:
    """Told which phase begins and how far it is, it tells the seconds that are left of the whole run."""

    def __init__(self, phases: Sequence[PhaseWork], now: Callable[[], float] = time.monotonic) -> None:
        self._courses = {phase.kind: _Course(work=phase) for phase in phases}
        self._now, self._last = now, now()
        self._present: PhaseKind | None = None

    def begin(self, kind: PhaseKind | None, share: float = 0.0) -> None:
        """A phase begins, at a share of it that was done before. None: something without a place in the plan.

        Training goes on after validation and mining; any other phase that is left is done.
        """
        self._tick()
        present = self._courses.get(self._present) if self._present else None
        if present is not None and self._present != "training":
            self._move(present, 1.0)
            present.done, present.share = min(present.done + 1, len(present.work.parts)), 0.0
        self._present = kind
        earlier = ORDER[: ORDER.index(kind)] if kind in FINISHING else ()
        for before in earlier:
            if before in self._courses:
                self._courses[before].done, self._courses[before].share = len(self._courses[before].work.parts), 0.0
        mining = self._courses.get("mining")
        if kind == "training" and mining is not None and len(mining.work.parts) == 1:
            mining.done, mining.share = 1, 0.0
        course = self._courses.get(kind) if kind else None
        if course is not None:
            course.share = max(course.share, share)

    def at(self, share: float) -> None:
        """The present phase is so far."""
        self._tick()
        course = self._courses.get(self._present) if self._present else None
        if course is not None:
            self._move(course, share)

    @property
    def share(self) -> float:
        """The share of the whole run's work that is done."""
        total = sum(course.work.tokens for course in self._courses.values())
        return sum(course.behind for course in self._courses.values()) / total if total else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds; None while too little has been seen."""
        seconds = sum(course.seconds for course in self._courses.values())
        watched = sum(course.watched for course in self._courses.values())
        if seconds < SOONEST or not watched:
            return None
        pace, total = seconds / watched, 0.0
        for course in self._courses.values():
            prior = PRIOR * course.work.tokens
            own_pace = (course.seconds + pace * prior) / (course.watched + prior) if prior else pace
            total += own_pace * (course.work.tokens - course.behind)
        return total

    def _tick(self) -> None:
        now = self._now()
        if self._present in self._courses:
            self._courses[self._present].seconds += now - self._last
        self._last = now

    def _move(self, course: _Course, share: float) -> None:
        if course.done < len(course.work.parts) and share > course.share:
            course.watched += (share - course.share) * course.work.parts[course.done]
            course.share = min(1.0, share)


def in_words(seconds: float) -> str:
    """About how long, without false digits: `25 s`, `4 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
