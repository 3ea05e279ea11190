"""Why each candidate was kept or dropped: one JSON line per candidate, beside the run that was mined."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..data.jsonl import parse_object, read_lines
from ..errors import InputError

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # json.dumps makes one for each line
NUMBERS = {"rank", "mined", "score", "positive_score", "teacher", "positive_teacher"}
"""The keys of a line that hold numbers."""


# Neither is frozen: to make a frozen one takes more than twice as long, and there are millions.
@dataclass(kw_only=True, slots=True)
class Verdict:
    """What one filter said. value: the number that it compared; limit: with what (where it compares with one)."""

    name: str
    keep: bool
    value: float | None = None
    limit: float | None = None


@dataclass(kw_only=True, slots=True)
class Evidence:
    """One candidate of one query.

    source, rank: who brought it and at which rank there; also: other sources that found it, with their ranks.
    mined: the source's score, in the source's units.
    score, positive_score: the model's scores of the candidate and of the query's lowest-scored positive.
    teacher, positive_teacher: the same by the teacher, where there is one.
    positive_id: the lowest-scored positive, by the teacher where there is one.
    positives_teacher: the teacher's score of every positive, on the first line of a query that has several; with one,
        positive_teacher says it. Once a query, for on each candidate's line it would make up most of the file.
    """

    query_id: str
    doc_id: str
    source: str
    rank: int
    also: dict[str, int] = field(default_factory=dict)
    mined: float
    score: float
    positive_id: str
    positive_score: float
    teacher: float | None = None
    positive_teacher: float | None = None
    positives_teacher: dict[str, float] = field(default_factory=dict)
    keep: bool = True
    filters: tuple[Verdict, ...] = ()

    @property
    def judged(self) -> float:
        """The score that decided."""
        return self.score if self.teacher is None else self.teacher

    @property
    def positive_judged(self) -> float:
        return self.positive_score if self.positive_teacher is None else self.positive_teacher

    @property
    def gap(self) -> float:
        """How far the positive lies above the candidate; below 0 the candidate scores better."""
        return self.positive_judged - self.judged


# All values at once, not one by one, for the same reason.
_VALUES = {kind: attrgetter(*kind.__slots__) for kind in (Verdict, Evidence)}


@dataclass(frozen=True)
class Files:
    """The files of one mining: the run, the evidence beside it, and what it was made from and came to."""

    run: Path

    @property
    def evidence(self) -> Path:
        return self.run.with_suffix(".jsonl")

    @property
    def summary(self) -> Path:
        return self.run.with_suffix(".json")

    @property
    def complete(self) -> bool:
        """The summary is written last."""
        return self.summary.exists()


def files_of(path: str | Path) -> Files:
    """The files that belong to a run, or to its evidence. Raises InputError where there is no evidence."""
    named = Path(path)
    files = Files(named.with_suffix(".run") if named.suffix in (".jsonl", ".json") else named)
    if not files.evidence.exists():
        raise InputError(f"{path}: no evidence ({files.evidence.name}) beside it; mine it with `embedtune mine`")
    return files


def as_line(evidence: Evidence) -> str:
    # Not asdict, which copies every value: among millions of candidates that is most of the time.
    values = _fields(evidence) | {"filters": [_fields(verdict) for verdict in evidence.filters]}
    for key in ("also", "teacher", "positive_teacher", "positives_teacher"):
        if not values[key] and values[key] != 0:
            del values[key]
    return _ENCODER.encode(values)


def _fields(value: Evidence | Verdict) -> dict[str, Any]:
    return dict(zip(value.__slots__, _VALUES[type(value)](value), strict=True))


def read_evidence(path: Path) -> Iterator[Evidence]:
    """Line by line. Raises InputError with the line that is none."""
    for number, raw in read_lines(path):
        where = f"{path}:{number}"
        values: dict[str, Any] = parse_object(raw, where)
        positives = values.get("positives_teacher", {})
        if not isinstance(positives, dict):
            raise InputError(f"{where}: positives_teacher must hold doc_id: score, got {positives!r}")
        numbers = [(name, values[name]) for name in NUMBERS & values.keys()]
        numbers += [(f"positives_teacher {doc_id!r}", score) for doc_id, score in positives.items()]
        for name, number in numbers:
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise InputError(f"{where}: {name} must be a finite number, got {number!r}")
        try:
            verdicts = tuple(Verdict(**verdict) for verdict in values.pop("filters", ()))
            yield Evidence(**values, filters=verdicts)
        except TypeError as error:
            raise InputError(f"{where}: is no evidence of `embedtune mine` ({error})") from None
