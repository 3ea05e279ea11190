"""Protocols with candidates for each query (MMEB, ARO, SugarCrepe, Winoground, ScienceQA): tasks, suites and means.

A protocol's reader builds tasks; each is evaluated into the same results as retrieval over a corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import check_file, fingerprint_of, fingerprint_of_file, write_json
from ..search.storage import dimensions_of
from ..types import Dataset, Item, Qrels, Role, Run
from .measures import per_query
from .results import MEANS, MEANS_FILE, Evaluation, write
from .retrieval import Retrieval, evaluate
from .slices import group_means

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Reported:
    """The counted units of a protocol that counts something else than queries: their scores, judgements and values."""

    run: Run
    qrels: Qrels
    values: dict[str, dict[str, float]]  # measure -> unit -> value


@dataclass(kw_only=True)
class Task:
    """Queries with their candidates. A content that occurs several times, under no id or the same id, is encoded once.

    label: its name in the results. measures: those that the protocol counts. groups: query_id -> its categories.
    asked: query_id -> the row of its content in `queries`; candidates: query_id -> the rows in `documents`. report: for
    a protocol that counts something else than queries: makes the counted units from the run. shown: unit -> how it is
    shown to a reader, if that is not the query's own text and the name of its image.
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
        self, query_id: str, query: Item, candidates: Iterable[tuple[Item, int]], groups: tuple[str, ...] = ()
    ) -> None:
        """Adds a query. candidates: each with its relevance; a second one of the same content is left out."""
        self.asked[query_id] = self._row(self.queries, query)
        relevance: dict[int, int] = {}
        for item, grade in candidates:
            relevance.setdefault(self._row(self.documents, item), grade)
        self.candidates[query_id] = np.fromiter(relevance, dtype=np.int32, count=len(relevance))
        self.qrels[query_id] = {self.documents[row].id: grade for row, grade in relevance.items() if grade}
        if groups:
            self.groups[query_id] = groups

    def _row(self, items: list[Item], item: Item) -> int:
        key = (items is self.queries, item.id, item.text, item.image, item.instruction)
        if key not in self._rows:
            self._rows[key] = len(items)
            name = item.id or fingerprint_of(item.text, item.image.name if item.image else "", str(len(items)))[:16]
            items.append(replace(item, id=name))
        return self._rows[key]

    @property
    def fingerprint(self) -> str:
        """Of all queries, candidates and judgements, the bytes of images included."""
        of_image = cache(fingerprint_of_file)

        def content(item: Item) -> str:
            image = of_image(item.image) if item.image is not None else ""
            return fingerprint_of(item.text, image, item.instruction or "")

        queries, documents = [[content(item) for item in items] for items in (self.queries, self.documents)]
        rows = {item.id: row for row, item in enumerate(self.documents)}
        lines = [
            fingerprint_of(
                query_id,
                queries[self.asked[query_id]],
                *(documents[row] for row in candidates.tolist()),
                json.dumps(sorted((documents[rows[d]], grade) for d, grade in self.qrels[query_id].items())),
            )
            for query_id, candidates in self.candidates.items()
        ]
        return fingerprint_of(*lines)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One value of a mean: a task's, or that of one of its groups."""

    label: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The tasks that a folder holds by a protocol, corpora to retrieve from, and the means that the protocol reports.

    means: title -> (its parts that are here, the number of all its parts). notes: sentences for the reader.
    """

    protocol: str
    tasks: list[Task]
    means: dict[str, tuple[list[Part], int]] = field(default_factory=dict)
    corpora: list[Dataset] = field(default_factory=list)
    corpus_measure: str = "nDCG@5"
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Of all its results."""
        return [task.label for task in self.tasks] + [corpus.label for corpus in self.corpora]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over sets of equal weight. parts: how many sets are here; of: how many the protocol has."""

    title: str
    measures: dict[str, float]
    parts: int
    of: int


def evaluate_suite(
    encoder: Encoder,
    suite: Suite,
    *,
    truncate_dim: int | None = None,
    output: Path | None = None,
    on_progress: Progress | None = None,
) -> list[Evaluation]:
    """The evaluations of all tasks and corpora; with an output they are written there, and the means beside them."""
    evaluations = [
        evaluate_task(encoder, task, truncate_dim=truncate_dim, output=output, on_progress=on_progress)
        for task in suite.tasks
    ]
    evaluations += [
        evaluate(
            encoder,
            dataset,
            measures=suite.corpus_measure,
            retrieval=Retrieval(truncate_dim=truncate_dim),
            output=output,
            on_progress=on_progress,
        )
        for dataset in suite.corpora
    ]
    if output is not None and suite.means:
        check_file(output / f"{suite.protocol}{MEANS}", MEANS_FILE, overwrite=True)
        write_json(output / f"{suite.protocol}{MEANS}", [asdict(mean) for mean in means_of(suite, evaluations)])
    return evaluations


def means_of(suite: Suite, evaluations: Sequence[Evaluation]) -> list[Mean]:
    """The means that the protocol reports, over the parts that are here."""
    by_label = {evaluation.label: evaluation for evaluation in evaluations}
    means = []
    for title, (parts, of) in suite.means.items():
        values = [by_label[p.label].measures if p.group is None else by_label[p.label].groups[p.group] for p in parts]
        names = [name for name in values[0] if name != "queries" and all(name in value for value in values)]
        measures = {name: float(np.mean([value[name] for value in values])) for name in names}
        means.append(Mean(title=title, measures=measures, parts=len(parts), of=of))
    return means


def evaluate_task(
    encoder: Encoder,
    task: Task,
    *,
    truncate_dim: int | None = None,
    output: Path | None = None,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Ranks each query's own candidates. With an output, also writes `output/<label>/` as retrieval does."""
    dimensions = dimensions_of(encoder.name, encoder.dimension, truncate_dim)
    queries = _embedded(encoder, task.queries, "query", dimensions, None)
    documents = _embedded(encoder, task.documents, "document", dimensions, on_progress)
    run: Run = {}
    for query_id, rows in task.candidates.items():
        scores = documents[rows] @ queries[task.asked[query_id]]  # (K,)
        run[query_id] = {task.documents[row].id: s for row, s in zip(rows.tolist(), scores.tolist(), strict=True)}
    if task.report is not None:
        reported = task.report(run)
    else:
        reported = Reported(run, task.qrels, per_query(list(task.measures), task.qrels, run))
    evaluation = Evaluation(
        dataset=task.label,
        split="test",
        model=encoder.name,
        folder=str(task.folder.resolve()),
        fingerprints={"data": task.fingerprint, "model": encoder.fingerprint},
        per_query=reported.values,
        run=reported.run,
        qrels=reported.qrels,
        protocol={"dimensions": dimensions, "ties": sum(_tied(scores) for scores in run.values())},
        groups=group_means(task.groups, reported.values),
        texts=task.shown | {query_id: _shown(task.queries[row]) for query_id, row in task.asked.items()},
    )
    if output is not None:
        write(evaluation, output)
    return evaluation


def _embedded(
    encoder: Encoder, items: Sequence[Item], role: Role, dimensions: int, on_progress: Progress | None
) -> Floats:
    from ..models.similarity import as_scored  # imports torch

    rows = encoder.encode(items, role, on_progress=on_progress)[:, :dimensions]  # (n, H)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        item = items[int(np.argmin(finite))]
        raise InputError(f"{encoder.name}: its embedding of {role} {item.id!r} is not finite: the model is broken")
    return as_scored(rows, encoder.similarity)


def _shown(item: Item) -> str:
    return " ".join(filter(None, [item.image.name if item.image else "", item.text]))


def _tied(scores: Mapping[str, float]) -> bool:
    """Whether the best score is shared."""
    return list(scores.values()).count(max(scores.values())) > 1
