"""Slices of a dataset's queries: by their length, or by a column of queries.jsonl such as the language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..data.dataset import queries_file, source_of
from ..data.jsonl import id_in, parse_object, read_lines
from ..errors import InputError
from ..types import Dataset

LENGTH = "length"
AUTOMATIC = ("language",)  # the slices of a recipe that names none: where a dataset lacks them, nothing is said
_WORDS = (5, 10, 20)  # the most words of all slices by length but the last
MOST = 12  # slices of one column; a column with more values is left out, as ids and urls are


def slices_of(dataset: Dataset, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """query_id -> its slices, such as `language de` or `length 6 to 10 words`, for every judged query that has any.

    names: `length`, and columns of queries.jsonl or of its `metadata`, whose values are texts, numbers or booleans. A
    column with more than 12 values is left out.
    """
    members: dict[str, dict[str, str]] = {name: {} for name in names}  # name -> query_id -> slice
    columns = [name for name in names if name != LENGTH]
    if LENGTH in members:
        members[LENGTH] = {query_id: _length(dataset.queries[query_id].content) for query_id in dataset.qrels}
    for query_id, values in _lines(dataset) if columns else ():
        if query_id in dataset.qrels:
            for name in columns:
                value = _value(values, name)
                if value is not None:
                    members[name][query_id] = f"{name} {value}"
    few = [by_query for by_query in members.values() if len(set(by_query.values())) <= MOST]
    slices = {query_id: tuple(part[query_id] for part in few if query_id in part) for query_id in dataset.qrels}
    return {query_id: listed for query_id, listed in slices.items() if listed}


def refuse_unknown_slices(names: Sequence[str], datasets: Sequence[Dataset]) -> None:
    """Raises InputError for a slice that no dataset has: a misspelt name would show nothing."""
    wanted = [name for name in names if name not in (LENGTH, *AUTOMATIC)]
    for name in wanted if datasets else ():
        if not any(slices_of(dataset, [name]) for dataset in datasets):
            known = sorted({key for dataset in datasets for key in _columns(dataset)})
            listed = f"; their columns: {', '.join(known[:MOST])}" if known else ""
            raise InputError(
                f"slices: no dataset has a column {name!r} with at most {MOST} values in queries.jsonl or its "
                f"metadata{listed}; `length` slices by the number of words"
            )


def group_means(
    groups: Mapping[str, Sequence[str]], values: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """group -> its number of queries and the mean of each measure over them. groups: query_id -> its groups."""
    members: dict[str, list[str]] = {}
    for query_id, of_query in groups.items():
        for group in of_query:
            members.setdefault(group, []).append(query_id)
    return {
        group: {
            "queries": len(query_ids),
            **{name: float(np.mean([of_query[q] for q in query_ids])) for name, of_query in values.items()},
        }
        for group, query_ids in sorted(members.items())
    }


def _length(text: str) -> str:
    words, least = len(text.split()), 0
    for most in _WORDS:
        if words <= most:
            return f"{LENGTH} {least} to {most} words"
        least = most + 1
    return f"{LENGTH} {least} words or more"


def _lines(dataset: Dataset) -> Iterator[tuple[str, dict[str, object]]]:
    path = queries_file(source_of(dataset))
    for number, raw in read_lines(path):
        if raw.strip():
            values = parse_object(raw, f"{path}:{number}")
            yield id_in(values, "_id", f"{path}:{number}"), values


def _value(values: Mapping[str, object], name: str) -> str | None:
    metadata = values.get("metadata")
    value = metadata.get(name) if isinstance(metadata, dict) else None
    value = values.get(name) if value is None else value
    return " ".join(str(value).split()) or None if isinstance(value, str | int | float) else None


def _columns(dataset: Dataset) -> set[str]:
    """The columns of the first query that could be slices."""
    first = next((values for _, values in _lines(dataset)), {})
    metadata = first.get("metadata")
    columns = {**first, **(metadata if isinstance(metadata, dict) else {})}
    return {name for name, value in columns.items() if isinstance(value, str | int | float)} - {"_id", "text", "title"}
