"""What a mining kept and dropped, and why, from its evidence alone; and what another cut would do."""

from __future__ import annotations

import dataclasses
import heapq
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import methods
from ..data.dataset import load_dataset, load_training
from ..data.trec import read_run, write_qrels
from ..errors import InputError
from ..files import check_file
from ..recipe import Chosen, Data, split_of
from ..recipe.strict_yaml import parse
from ..types import Dataset, Scores
from .evidence import Evidence, MiningFiles, files_of, read_evidence
from .filters import AppliedFilter, applied, verdicts_of

BINS = 20


@dataclass(kw_only=True)
class OfQuery:
    """One query's counts."""

    query_id: str
    candidates: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class OfFilter:
    """What one filter did: candidates it dropped, and the range of its limits."""

    name: str
    candidates: int = 0
    dropped: int = 0
    alone: int = 0  # dropped by no other filter
    lowest_limit: float | None = None
    highest_limit: float | None = None
    positives_beyond: int = 0  # candidates whose query's own positive does not stay below the limit
    widest_margin: float | None = None  # between a limit and its query's lowest positive


@dataclass(kw_only=True)
class OfSource:
    """What one source brought: candidates that it found at its turn, those of them that were kept, and how many others
    had found as well."""

    name: str
    candidates: int = 0
    kept: int = 0
    shared: int = 0


@dataclass(frozen=True, kw_only=True)
class Audit:
    """suspects: kept candidates, those nearest to (or above) their query's lowest positive first.
    caught: dropped candidates, the same way round, the nearest one of each query: likely false negatives.
    gaps: (bin's lower edge, upper edge, kept, dropped), gap = positive's score - candidate's, by whoever judged.
    scores: (lower edge, upper edge, positives, kept, dropped), the scores themselves; one positive a query, its lowest.
    warnings: where a limit means nothing on the scale of the scores."""

    queries: list[OfQuery]
    sources: list[OfSource]
    filters: list[OfFilter]
    suspects: list[Evidence]
    caught: list[Evidence]
    gaps: list[tuple[float, float, int, int]]
    scores: list[tuple[float, float, int, int, int]]
    warnings: list[str]


class Nearest:
    """The candidates nearest to their query's lowest positive, or furthest above it."""

    def __init__(self, count: int) -> None:
        self._count, self._seen = count, 0
        self._heap: list[tuple[float, int, Evidence]] = []

    def add(self, candidate: Evidence) -> None:
        self._seen += 1
        heapq.heappush(self._heap, (-candidate.gap, -self._seen, candidate))
        if len(self._heap) > self._count:
            heapq.heappop(self._heap)

    @property
    def found(self) -> list[Evidence]:
        return [candidate for _, _, candidate in sorted(self._heap, reverse=True)]


def audit(path: str | Path, *, threshold: Chosen | None = None, suspects: int = 10) -> Audit:
    """Reads the evidence of a mining (its run or .jsonl), in bounded memory.

    threshold: tries this filter in place of the filter of that name, or besides the others; nothing is encoded.
    suspects: how many of the kept, and of the dropped, are named.
    Raises InputError where there is no evidence, and where the filter needs what evidence does not hold.
    """
    queries: list[OfQuery] = []
    filters: dict[str, OfFilter] = {}
    sources: dict[str, OfSource] = {}
    doubtful, caught = Nearest(suspects), Nearest(suspects)
    scores, gaps, keeps, positives = array("d"), array("d"), array("b"), array("d")
    for query_id, found in decided(files_of(path), threshold):
        counts = OfQuery(query_id=query_id)
        queries.append(counts)
        positives.append(found[0].positive_reference)
        for candidate in found:
            _count(candidate, counts, filters, sources)
            scores.append(candidate.reference)
            gaps.append(candidate.gap)
            keeps.append(candidate.keep)
            if candidate.keep:
                doubtful.add(candidate)
        if dropped := [candidate for candidate in found if not candidate.keep]:
            caught.add(min(dropped, key=lambda candidate: candidate.gap))
    if not queries:
        raise InputError(f"{path}: the evidence is empty")
    kept = np.array(keeps, dtype=bool)
    return Audit(
        queries=queries,
        sources=list(sources.values()),
        filters=list(filters.values()),
        suspects=doubtful.found,
        caught=caught.found,
        gaps=_histogram(np.array(gaps)[kept], np.array(gaps)[~kept]),
        scores=_histogram(np.array(positives), np.array(scores)[kept], np.array(scores)[~kept]),
        warnings=[text for f in filters.values() for text in _warnings(f, min(scores), max(scores))],
    )


def decided(files: MiningFiles, threshold: Chosen | None = None) -> Iterator[tuple[str, list[Evidence]]]:
    """Each query's candidates; with a threshold, as they would be kept and dropped by it."""
    judge = applied([threshold])[0] if threshold is not None else None
    for query_id, found in groupby(read_evidence(files.evidence), key=lambda candidate: candidate.query_id):
        candidates = list(found)
        yield query_id, candidates if judge is None else _judged_again(candidates, judge)


def _judged_again(candidates: list[Evidence], judge: AppliedFilter) -> list[Evidence]:
    """The same columns that the filter saw when mining, but for one positive, the lowest, that stands for all."""
    first = candidates[0]
    own = torch.arange(len(candidates) + 1)[None] > 0
    teacher = None
    if first.teacher is not None and first.positive_teacher is not None:
        teacher = torch.tensor([[first.positive_teacher, *(c.reference for c in candidates)]])
    scores = Scores(
        student=torch.tensor([[first.positive_score, *(c.score for c in candidates)]]),
        positive=~own,
        candidate=own,
        own=own,
        teacher=teacher,
        query_ids=(first.query_id,),
        doc_ids=(first.positive_id, *(c.doc_id for c in candidates)),
    )
    verdicts = verdicts_of(judge, scores)[1:]
    again = []
    for candidate, verdict in zip(candidates, verdicts, strict=True):
        said = [v for v in candidate.filters if v.name != judge.name]
        keep = verdict.keep and all(v.keep for v in said)
        again.append(dataclasses.replace(candidate, keep=keep, filters=(*said, verdict)))
    return again


def parse_threshold(text: str) -> Chosen:
    """`positive_ratio=0.9` sets a filter's first option; `{name: guide, margin: 0.1}` any.

    Raises InputError for an unknown filter or option, and for a filter that learns (it has no fixed threshold).
    """
    name, separator, value = text.partition("=")
    if separator and not text.lstrip().startswith("{"):
        method = methods.describe("filtering", name)
        if method.symbol != method.name and name != "judge":
            raise InputError(f"--threshold {name}: learns while training, so it has no fixed threshold")
        options = method.options
        given: Any = {"name": name, options[0].name: parse(value, f"--threshold {name}")}
    else:
        given = parse(text, "--threshold")
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise InputError(f"--threshold {text}: expected FILTER=NUMBER, as in positive_ratio=0.9")
    chosen = {key: number for key, number in given.items() if key != "name"}
    problems = methods.check("filtering", given["name"], chosen)
    if problems:
        raise InputError("; ".join(f"--threshold {given['name']}.{key}: {message}" for key, message in problems))
    return Chosen(name=given["name"], options=chosen)


def dataset_of(files: MiningFiles, name: str | None = None) -> Dataset:
    """The data that was mined, as the summary beside the run says, or as named."""
    said = _folders(files)
    if name is not None:
        splits = {split_of(folder)[1] for folder in said}
        return load_dataset(name, splits.pop() if split_of(name)[1] is None and len(splits) == 1 else None)
    if not said:
        raise InputError(f"{files.run}: no {files.summary.name} beside it says which data it is of; give --data DIR")
    return load_training(Data(train=said))


def refuse_other_data(found: Audit, dataset: Dataset) -> None:
    """Raises InputError where a suspect's query or documents are not in the dataset."""
    for s in found.suspects:
        of_corpus = [("document", doc_id, dataset.corpus) for doc_id in (s.positive_id, s.doc_id)]
        for kind, item_id, known in [("query", s.query_id, dataset.queries), *of_corpus]:
            if item_id not in known:
                raise InputError(f"{dataset.folder}: {kind} {item_id!r} is not in it; give --data what was mined")


def _folders(files: MiningFiles) -> list[str]:
    """The dataset folders (`DIR:split`) that were mined."""
    if not files.complete:
        return []
    found: list[str] = json.loads(files.summary.read_text(encoding="utf-8")).get("data", {}).get("folders", [])
    return found


def relabel(path: str | Path, dataset: Dataset, output: Path, *, above: float, judge: Path | None = None) -> int:
    """Writes the split's judgements with suspects as further positives (RLHN, arXiv 2505.16967); returns how many.

    above: a candidate becomes a positive (of relevance 1), whether kept or dropped, where its score lies at least so
    far above that of the query's lowest positive, in the units of whoever judged (the teacher, where there was one).
    judge: a run with scores of candidates and positives (`embedtune judge`) that decides instead; what it has no score
    for stays as it is. Raises InputError where `output` exists: judgements are never changed in place.
    """
    check_file(output, None, option="--relabel")  # judgements are never changed in place
    qrels = {query_id: dict(judged) for query_id, judged in dataset.qrels.items()}
    scores = read_run(judge) if judge is not None else None
    added = 0
    for candidate in read_evidence(files_of(path).evidence):
        if candidate.query_id not in qrels:
            raise InputError(f"{path}: query {candidate.query_id!r} is not in {dataset.folder}, split {dataset.split}")
        lead = -candidate.gap if scores is None else _lead(scores.get(candidate.query_id, {}), candidate, dataset)
        if lead is not None and lead >= above:
            qrels[candidate.query_id][candidate.doc_id] = 1
            added += 1
    write_qrels(output, qrels)
    return added


def _lead(judged: Mapping[str, float], candidate: Evidence, dataset: Dataset) -> float | None:
    """How far a judge puts the candidate above the lowest positive that it has a score for; None without scores."""
    grades = dataset.qrels[candidate.query_id]
    positives = [judged[doc_id] for doc_id, grade in grades.items() if grade > 0 and doc_id in judged]
    if candidate.doc_id not in judged or not positives:
        return None
    return judged[candidate.doc_id] - min(positives)


def _count(candidate: Evidence, counts: OfQuery, filters: dict[str, OfFilter], sources: dict[str, OfSource]) -> None:
    counts.candidates += 1
    counts.kept += candidate.keep
    source = sources.setdefault(candidate.source, OfSource(name=candidate.source))
    source.candidates += 1
    source.kept += candidate.keep
    source.shared += bool(candidate.also)
    dropping = [verdict.name for verdict in candidate.filters if not verdict.keep]
    counts.dropped.update(dropping)
    for verdict in candidate.filters:
        found = filters.setdefault(verdict.name, OfFilter(name=verdict.name))
        found.candidates += 1
        found.dropped += not verdict.keep
        found.alone += dropping == [verdict.name]
        if verdict.limit is not None:
            found.lowest_limit = min(verdict.limit, found.lowest_limit if found.lowest_limit is not None else np.inf)
            found.highest_limit = max(
                verdict.limit, found.highest_limit if found.highest_limit is not None else -np.inf
            )
            found.positives_beyond += candidate.positive_reference >= verdict.limit
            found.widest_margin = max(abs(candidate.positive_reference - verdict.limit), found.widest_margin or 0.0)


def _warnings(found: OfFilter, lowest: float, highest: float) -> list[str]:
    """lowest, highest: of the scores that decided."""
    limits = "" if found.lowest_limit is None else f" (limits {found.lowest_limit:.4g} to {found.highest_limit:.4g})"
    if found.dropped == found.candidates:
        return [f"{found.name}: every candidate lies beyond its limit{limits}; the scores are on another scale"]
    if found.dropped == 0 and found.lowest_limit is not None and found.positives_beyond == 0:
        return [f"{found.name}: even the positives' own scores stay below its limit{limits}, so it can drop nothing"]
    if found.dropped == 0:
        return [f"{found.name}: dropped nothing{limits}"]
    if max(-lowest, highest) > 1.001 and _as_for_cosines(found):
        return [
            f"{found.name}: its number is of the size for cosines, but the scores that decided lie from {lowest:.4g} "
            f"to {highest:.4g}; give one in their units, or use positive_ratio"
        ]
    return []


def _as_for_cosines(found: OfFilter) -> bool:
    """Whether a filter whose default is for cosines has a cap within -1 to 1, or a margin above 0 and up to 1."""
    name = found.name.partition("-")[0]  # the second of a kind is absolute-2
    if name not in methods.names("filtering"):  # evidence is a file, and its names are anyone's
        return False
    kind = methods.describe("filtering", name).spec.cosine
    if kind == "cap" and found.lowest_limit is not None and found.highest_limit is not None:
        return -1 <= found.lowest_limit <= found.highest_limit <= 1
    return kind == "margin" and found.widest_margin is not None and 0 < found.widest_margin <= 1


def _histogram(*groups: np.ndarray[Any, Any]) -> list[tuple[Any, ...]]:
    """(lower edge, upper edge, count of each group) for each of 20 even bins over all groups."""
    edges = np.histogram_bin_edges(np.concatenate(groups), bins=BINS)
    counts = [np.histogram(group, bins=edges)[0].tolist() for group in groups]
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), *counts, strict=True))
