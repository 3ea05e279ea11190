"""The contract of miners: what they return. They are not tried on small data."""

from __future__ import annotations

from typing import Any


def problem_of(sourced: Any, dataset: Any, encoder: Any) -> str:
    """What is wrong with what a call with these arguments returned; empty where nothing is."""
    if not isinstance(sourced, dict) or not all(isinstance(run, dict) for run in sourced.values()):
        return f"returned {type(sourced).__name__}, expected {{source: {{query_id: {{doc_id: score}}}}}}"
    for source, run in sourced.items():
        for query_id, ranked in run.items():
            unknown = [doc_id for doc_id in ranked if doc_id not in dataset.corpus]
            if query_id not in dataset.queries or unknown:
                name = f"query {query_id!r}" if query_id not in dataset.queries else f"document {unknown[0]!r}"
                return f"its source {source!r} names the {name}, which is not in {dataset.folder}"
    return ""
