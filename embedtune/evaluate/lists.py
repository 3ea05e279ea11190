"""Ranking where every query has its own candidates: the one mechanism under MMEB, ARO, SugarCrepe and ScienceQA.

A protocol's reader builds tasks; each is evaluated into the same results as retrieval over a corpus.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import fingerprint_of, fingerprint_of_file
from ..models.similarity import as_scored
from ..types import Item, Qrels, Run
from .measures import mean, per_query
from .results import Evaluation, write
from .retrieval import dimensions_of

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reported:
    """What is written of a run: scores and judgements by what is counted, and measure -> counted thing -> value."""

    run: Run
    qrels: Qrels
    values: dict[str, dict[str, float]]


@dataclass(kw_only=True)
class Task:
    """Queries with their candidates. Contents that occur several times, under no id or the same, are encoded once.

    label: as results name it. measures: what the protocol counts. groups: query_id -> the categories it belongs to.
    asked: query_id -> the row of its content in `queries`; candidates: query_id -> the rows in `documents`.
    report: for a protocol that counts something else than queries: what it makes of the run. shown: how what is
    counted is shown to a reader, where that is not the query's own text and the name of its image.
    """

    label: str
    folder: Path
    measures: tuple[str, ...]
    queries: list[Item] = field(default_factory=list)
    documents: list[Item] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, npt.NDArray[np.int32]] = field(default_factory=dict)
    qrels: Qrels = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    report: Callable[[Run], Reported] | None = None
    shown: dict[str, str] = field(default_factory=dict)
    _rows: dict[tuple[object, ...], int] = field(default_factory=dict, init=False, repr=False)

    def add(
        self,
        query_id: str,
        query: Item,
        candidates: Iterable[tuple[Item, int]],
        groups: tuple[str, ...] = (),
    ) -> None:
        """Adds a query. candidates: each with its relevance; one that is there already, by content, is left out."""
        self.asked[query_id] = self._row("query", query)
        rows: dict[int, int] = {}
        for item, relevance in candidates:
            rows.setdefault(self._row("document", item), relevance)
        self.candidates[query_id] = np.fromiter(rows, dtype=np.int32, count=len(rows))
        self.qrels[query_id] = {self.documents[row].id: grade for row, grade in rows.items() if grade}
        if groups:
            self.groups[query_id] = groups

    def _row(self, role: str, item: Item) -> int:
        held = self.queries if role == "query" else self.documents
        key = (role, item.id, item.text, item.image, item.instruction)
        if key not in self._rows:
            self._rows[key] = len(held)
            name = item.id or fingerprint_of(item.text, item.image.name if item.image else "", str(len(held)))[:16]
            held.append(dataclasses.replace(item, id=name))
        return self._rows[key]

    @property
    def fingerprint(self) -> str:
        """Of everything that is asked, pictures included."""
        of_image = cache(fingerprint_of_file)

        def content(item: Item) -> str:
            image = of_image(item.image) if item.image is not None else ""
            return fingerprint_of(item.text, image, item.instruction or "")

        queries, documents = [[content(item) for item in items] for items in (self.queries, self.documents)]
        known = {item.id: place for place, item in enumerate(self.documents)}
        lines = [
            fingerprint_of(
                query_id,
                queries[self.asked[query_id]],
                *(documents[row] for row in rows.tolist()),
                json.dumps(sorted((documents[known[d]], grade) for d, grade in self.qrels[query_id].items())),
            )
            for query_id, rows in self.candidates.items()
        ]
        return fingerprint_of(*lines)


def evaluate_task(
    encoder: Encoder,
    task: Task,
    *,
    truncate_dim: int | None = None,
    output: Path | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks each query's own candidates. Writes `output/<label>/` as retrieval does, where a folder is given."""
    run = scores_of(encoder, task, truncate_dim, on_progress)
    if task.report is not None:
        reported = task.report(run)
    else:
        reported = Reported(run, task.qrels, per_query(list(task.measures), task.qrels, run))
    evaluation = Evaluation(
        label=task.label,
        dataset=task.label,
        split="test",
        model=encoder.name,
        folder=str(task.folder.resolve()),
        fingerprints={"data": task.fingerprint, "model": encoder.fingerprint},
        queries=len(reported.qrels),
        measures=mean(reported.values),
        protocol={
            "dimensions": truncate_dim or encoder.dimension,
            "ties": sum(_tied(scores) for scores in run.values()),
        },
        per_query=reported.values,
        run=reported.run,
        qrels=reported.qrels,
        groups=dict(_group_means(task.groups, reported.values)),
        texts=task.shown | {query_id: _shown(task.queries[row]) for query_id, row in task.asked.items()},
    )
    if output is not None:
        write(evaluation, output)
    return evaluation


def scores_of(encoder: Encoder, task: Task, truncate_dim: int | None, on_progress: Progress | None) -> Run:
    """query_id -> doc_id -> score, for each query's candidates."""
    dimensions_of(encoder, truncate_dim)
    queries = _embedded(encoder, task.queries, "query", truncate_dim, None)
    documents = _embedded(encoder, task.documents, "document", truncate_dim, on_progress)
    run: Run = {}
    for query_id, rows in task.candidates.items():
        scores = documents[rows] @ queries[task.asked[query_id]]  # (K,)
        names = [task.documents[row].id for row in rows.tolist()]
        run[query_id] = dict(zip(names, scores.tolist(), strict=True))
    return run


def _embedded(
    encoder: Encoder, items: Sequence[Item], role: Any, truncate_dim: int | None, on_progress: Progress | None
) -> Floats:
    rows = encoder.encode(items, role, on_progress=on_progress)[:, :truncate_dim]
    if not np.isfinite(rows).all():
        bad = items[int(np.argmin(np.isfinite(rows).all(axis=1)))]
        raise InputError(f"{encoder.name}: its embedding of {role} {bad.id!r} is not finite: the model is broken")
    return as_scored(rows, encoder.similarity)


def _shown(item: Item) -> str:
    return " ".join(filter(None, [item.image.name if item.image else "", item.text]))


def _tied(scores: Mapping[str, float]) -> bool:
    """Whether the best score is shared."""
    return sorted(scores.values(), reverse=True)[:2].count(max(scores.values())) > 1


def _group_means(
    groups: Mapping[str, tuple[str, ...]], values: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[str, dict[str, float]]]:
    """group -> its number of queries and the mean of each measure over them."""
    members: dict[str, list[str]] = {}
    for query_id, of_query in groups.items():
        for group in of_query:
            members.setdefault(group, []).append(query_id)
    for group, query_ids in sorted(members.items()):
        means = {name: float(np.mean([of_query[q] for q in query_ids])) for name, of_query in values.items()}
        yield group, {"queries": len(query_ids), **means}
