"""Shared by miners: the queries to mine for, and rankings without the judged positives."""

from __future__ import annotations

from ...errors import InputError
from ...types import Dataset, Qrels, Run


def queries_of(dataset: Dataset) -> list[str]:
    """The judged queries that have a positive."""
    return [query_id for query_id, judged in dataset.qrels.items() if any(grade > 0 for grade in judged.values())]


def positives_of(qrels: Qrels, query_id: str) -> list[str]:
    return [doc_id for doc_id, grade in qrels[query_id].items() if grade > 0]


def most_positives(dataset: Dataset) -> int:
    """The largest number of positives of a query, which its candidates may contain."""
    return max(sum(grade > 0 for grade in judged.values()) for judged in dataset.qrels.values())


def ranks(run: Run, qrels: Qrels, *, first: int, depth: int) -> Run:
    """Each query's candidates of ranks `first` to `depth`, positives not counted."""
    rankings: Run = {}
    for query_id, scores in run.items():
        positives = set(positives_of(qrels, query_id))
        others = [(doc_id, score) for doc_id, score in scores.items() if doc_id not in positives]
        rankings[query_id] = dict(others[first - 1 : depth])
    return rankings


def check_ranks(name: str, first: int, depth: int) -> None:
    if not 1 <= first <= depth:
        raise InputError(f"mining.{name}: expected 1 <= first <= depth, got first {first}, depth {depth}")


def by_rank(doc_ids: list[str]) -> dict[str, float]:
    """Scores that express the order only: 1, 1/2, 1/3, ..."""
    return {doc_id: 1 / rank for rank, doc_id in enumerate(doc_ids, start=1)}
