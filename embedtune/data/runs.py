"""Runs of any retrieval system: TREC's six columns, three columns of scores or ranks, and JSON."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..types import Run
from .jsonl import read_json, read_lines
from .tables import suffix_of
from .trec import read_run

ThirdColumn = Literal["rank", "score"]


@dataclass(frozen=True)
class RunFile:
    """A run's file. third_column: what the last of 3 columns holds; None where its lines show it."""

    path: Path
    third_column: ThirdColumn | None = None


def load_run(file: str | Path | RunFile, *, split: str = "test") -> Run:
    """Reads a run of 6 columns (`query Q0 document rank score tag`), of 3, or of JSON (BEIR, ranx, mteb's predictions).

    The last of 3 columns is MS MARCO's rank where it counts each query's lines from 1 (or 0) on, which is said, and a
    score where it does not only rise. A rank becomes 1 / rank. split: the one that is taken from mteb's predictions.
    Raises InputError as `read_run` does, where 3 columns may be either, and for JSON that is no run.
    """
    if not isinstance(file, RunFile):
        file = RunFile(Path(file))
    if suffix_of(file.path) == ".json":
        return _from_json(file.path, split)
    run = read_run(file.path)
    first = next((raw for _, raw in read_lines(file.path) if raw.strip()), b"")
    if len(first.split()) != 3:
        return run
    if (file.third_column or _third_column(file.path, run)) == "score":
        return run
    return {query_id: _by_rank(file.path, ranks) for query_id, ranks in run.items()}


def _third_column(path: Path, run: Run) -> ThirdColumn:
    """What the order of each query's lines says. Raises InputError where it says both."""
    listed = {query_id: list(numbers.values()) for query_id, numbers in run.items() if len(numbers) > 1}
    rising = {query_id: all(b > a for a, b in pairwise(numbers)) for query_id, numbers in listed.items()}
    counted = all(sorted(numbers) in _counts(len(numbers)) for numbers in listed.values())
    if not listed or not (all(rising.values()) or (counted and any(map(_falls_and_rises, listed.values())))):
        return "score"
    if counted and all(rising.values()):
        message = "%s: column 3 counts each query's lines, so it is read as a rank (--third-column score if it is not)"
        logging.getLogger(__name__).warning(message, path)
        return "rank"
    query_id, numbers = next(iter(listed.items()))
    shown = " ".join(f"{number:g}" for number in numbers[:5])
    raise InputError(
        f"{path}: column 3 may be a rank or a score (query {query_id!r}: {shown}); give --third-column "
        "rank or --third-column score (third_column of the miner `run`), or write TREC's 6 columns"
    )


def _counts(length: int) -> tuple[list[float], list[float]]:
    """The ranks of so many lines, from 0 on and from 1 on."""
    return [float(rank) for rank in range(length)], [float(rank) for rank in range(1, length + 1)]


def _falls_and_rises(numbers: list[float]) -> bool:
    """Whether numbers are in no order: neither only falling nor only rising."""
    steps = {b > a for a, b in pairwise(numbers)}
    return len(steps) == 2


def _by_rank(path: Path, ranks: Mapping[str, float]) -> dict[str, float]:
    first = 1 if 0.0 in ranks.values() else 0
    for doc_id, rank in ranks.items():
        if rank < 0 or not rank.is_integer():
            raise InputError(f"{path}: the rank of document {doc_id!r} must be a whole number from 0 on, got {rank:g}")
    return {doc_id: 1 / (rank + first) for doc_id, rank in ranks.items()}


def _from_json(path: Path, split: str) -> Run:
    """`query -> document -> score`, or mteb's `subset -> split -> query -> document -> score`."""
    content = read_json(path)
    if isinstance(content, dict) and "mteb_model_meta" in content:
        content = _of_mteb(path, {name: part for name, part in content.items() if name != "mteb_model_meta"}, split)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected an object of queries, each with its documents and their scores")
    return {query_id: _scores(path, query_id, scored) for query_id, scored in content.items()}


def _of_mteb(path: Path, subsets: Mapping[str, Any], split: str) -> Any:
    splits = {(subset, name): run for subset, by_split in subsets.items() for name, run in by_split.items()}
    chosen = [key for key in splits if key[1] == split] if len(splits) > 1 else list(splits)
    if len(chosen) != 1:
        listed = ", ".join(map(".".join, splits)) or "nothing"
        command = ".".join(f'"{part}"' for part in next(iter(splits), ()))
        raise InputError(f"{path}: mteb's predictions of {listed}; keep one: jq '.{command}' {path.name} > run.json")
    return splits[chosen[0]]


def _scores(path: Path, query_id: str, scored: Any) -> dict[str, float]:
    if not isinstance(scored, dict):
        raise InputError(f"{path}: query {query_id!r}: expected documents with their scores, got {str(scored)[:40]}")
    for doc_id, score in scored.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(
                f"{path}: query {query_id!r}: the score of document {doc_id!r} must be a finite number, got "
                f"{str(score)[:40]}"
            )
    return {doc_id: float(score) for doc_id, score in scored.items()}
