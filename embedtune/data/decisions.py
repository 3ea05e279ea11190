"""What people decided on the judging page: one JSON line for each pair of a query and a document."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import InputError
from ..files import first_line
from ..types import Run
from .jsonl import LineError, read_lines

BEGIN = '{"query_id":'  # of every line that the page writes
AT_LEAST = 0.5  # between the scores of the two decisions
Decisions = dict[tuple[str, str], bool | None]  # (query_id, doc_id) -> relevant; None where the person was unsure


@dataclass(frozen=True, kw_only=True)
class _Line:
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    query_id: str
    doc_id: str
    relevant: bool | None
    by: str = ""


_LINE = TypeAdapter(_Line)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two people agree on the pairs that both decided.

    pairs: how many those are. alike: how many of them both decided alike. kappa: Cohen's kappa; None where each
    person gave one answer only.
    """

    pairs: int
    alike: int
    kappa: float | None


def holds_decisions(path: str | Path) -> bool:
    """Whether a file is one that the judging page wrote, by its first bytes."""
    file = Path(path)
    return file.is_file() and first_line(file).replace(" ", "").startswith(BEGIN)


def read_decisions(path: str | Path) -> Decisions:
    """One person's decisions. Raises InputError with the line that is none, and where a pair is decided twice."""
    decisions: Decisions = {}
    for where, line in _lines(Path(path)):
        pair = (line.query_id, line.doc_id)
        if pair in decisions:
            raise LineError(where, "duplicate", f"query {pair[0]!r} and document {pair[1]!r} are decided twice")
        decisions[pair] = line.relevant
    if not decisions:
        raise InputError(f"{path}: no decisions; expected the file that the page of `embedtune audit --html` saves")
    return decisions


def run_of_decisions(path: str | Path) -> Run:
    """Decisions as scores: 1 for relevant, 0 for not relevant; pairs that the person was unsure of are left out."""
    run: Run = {}
    for (query_id, doc_id), relevant in read_decisions(path).items():
        if relevant is not None:
            run.setdefault(query_id, {})[doc_id] = float(relevant)
    return run


def agreed(people: Sequence[Decisions]) -> tuple[dict[tuple[str, str], bool], list[tuple[str, str]]]:
    """(what everybody who was sure of a pair decided alike, the pairs on which they disagree)."""
    answers: dict[tuple[str, str], set[bool]] = {}
    for decisions in people:
        for pair, relevant in decisions.items():
            if relevant is not None:
                answers.setdefault(pair, set()).add(relevant)
    alike = {pair: relevant == {True} for pair, relevant in answers.items() if len(relevant) == 1}
    return alike, [pair for pair, relevant in answers.items() if len(relevant) > 1]


def agreement(first: Decisions, second: Decisions) -> Agreement:
    """Cohen's kappa (1960) over relevant, not relevant and unsure, on the pairs that both people saw."""
    both = [(first[pair], second[pair]) for pair in first if pair in second]
    alike = sum(one == other for one, other in both)
    counts = [Counter(column) for column in zip(*both, strict=True)]
    chance = sum(counts[0][answer] * counts[1][answer] for answer in counts[0]) / len(both) ** 2 if both else 1.0
    kappa = None if math.isclose(chance, 1) else (alike / len(both) - chance) / (1 - chance)
    return Agreement(pairs=len(both), alike=alike, kappa=kappa)


def agreements(people: dict[str, Decisions]) -> Iterator[tuple[str, str, Agreement]]:
    """(first name, second name, their agreement) for every two people."""
    for (name, first), (other, second) in combinations(people.items(), 2):
        yield name, other, agreement(first, second)


def _lines(path: Path) -> Iterator[tuple[str, _Line]]:
    for number, raw in read_lines(path):
        where = f"{path}:{number}"
        try:
            yield where, _LINE.validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            problem = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise LineError(where, "malformed line", f"not a decision of the judging page ({problem})") from None
