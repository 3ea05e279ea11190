"""Which candidates were kept and dropped, from their evidence alone, and what another limit would do."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from .. import methods
from ..data.dataset import load_dataset, load_training
from ..data.decisions import agreed, read_decisions
from ..data.jsonl import read_json_object
from ..data.runs import load_run
from ..data.trec import write_qrels
from ..errors import InputError
from ..files import check_file
from ..recipe import Chosen, Data, split_of
from ..recipe.strict_yaml import parse
from ..types import Dataset, Scores
from .evidence import Evidence, MiningFiles, files_of, read_evidence
from .filters import AppliedFilter, applied, verdicts_of

BINS = 20


@dataclass(kw_only=True)
class QueryCounts:
    """One query's candidates. dropped: filter -> candidates that it drops."""

    query_id: str
    candidates: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class FilterCounts:
    """What one filter drops, and the range of its limits over the queries.

    alone: candidates that no other filter drops. positives_beyond: candidates whose query's lowest positive reaches the
    limit. widest_margin: the largest distance between a limit and its query's lowest positive.
    """

    name: str
    candidates: int = 0
    dropped: int = 0
    alone: int = 0
    lowest_limit: float | None = None
    highest_limit: float | None = None
    positives_beyond: int = 0
    widest_margin: float | None = None

    def add_limit(self, limit: float, positive: float) -> None:
        margin = abs(positive - limit)
        self.lowest_limit = limit if self.lowest_limit is None else min(limit, self.lowest_limit)
        self.highest_limit = limit if self.highest_limit is None else max(limit, self.highest_limit)
        self.widest_margin = margin if self.widest_margin is None else max(margin, self.widest_margin)
        self.positives_beyond += positive >= limit


@dataclass(kw_only=True)
class SourceCounts:
    """The candidates that one source brought first. shared: those that other sources retrieved too."""

    name: str
    candidates: int = 0
    kept: int = 0
    shared: int = 0


@dataclass(frozen=True)
class Suspect:
    """A candidate that may be relevant. lead: its reference score minus the mean over its query's candidates."""

    candidate: Evidence
    lead: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """suspects: the likeliest false negatives among the kept candidates: those that lead their query's candidates most.
    caught: the same among the dropped candidates, one for each query.
    gaps: (lower edge, upper edge, kept, dropped), gap = the lowest positive's reference score minus the candidate's.
    scores: (lower edge, upper edge, positives, kept, dropped), reference scores; the lowest positive of each query.
    warnings: filters whose limit does not fit the scale of the scores.
    by_teacher: whether the reference scores are a teacher's; else they are the model's.
    """

    queries: list[QueryCounts]
    sources: list[SourceCounts]
    filters: list[FilterCounts]
    suspects: list[Suspect]
    caught: list[Suspect]
    gaps: list[tuple[float, float, int, int]]
    scores: list[tuple[float, float, int, int, int]]
    warnings: list[str]
    by_teacher: bool


def audit(path: str | Path, *, threshold: Chosen | None = None, suspects: int = 10) -> Audit:
    """Reads the evidence of mined negatives, named by run or .jsonl, in bounded memory.

    Suspects are ranked by their lead over the mean of their query's candidates. The distance to the positive ranks
    worse: it puts queries first whose positive scores low. Of the first 10 suspects of Cranfield and of SciFact with
    all positives but one hidden, 6 and 9 were hidden positives by the lead, 3 and 2 by the distance.

    threshold: replaces the filter of that name, or is added to the filters; nothing is encoded.
    suspects: how many of the kept, and of the dropped, are listed.
    Raises InputError where there is no evidence, and where the filter needs what evidence does not hold.
    """
    queries: list[QueryCounts] = []
    filters: dict[str, FilterCounts] = {}
    sources: dict[str, SourceCounts] = {}
    kept_most: list[Suspect] = []
    dropped_most: list[Suspect] = []
    references, gaps, keeps, positives = array("d"), array("d"), array("b"), array("d")
    by_teacher = False
    for query_id, candidates in decided(files_of(path), threshold):
        queries.append(_count(query_id, candidates, filters, sources))
        positives.append(candidates[0].positive_reference)
        references.extend(candidate.reference for candidate in candidates)
        gaps.extend(candidate.gap for candidate in candidates)
        keeps.extend(candidate.keep for candidate in candidates)
        by_teacher = candidates[0].teacher is not None
        mean = fmean(candidate.reference for candidate in candidates)
        ranked = [Suspect(candidate, candidate.reference - mean) for candidate in candidates]
        dropped = [suspect for suspect in ranked if not suspect.candidate.keep]
        kept_most = _most([*kept_most, *(suspect for suspect in ranked if suspect.candidate.keep)], suspects)
        dropped_most = _most([*dropped_most, *_most(dropped, 1)], suspects)
    if not queries:
        raise InputError(f"{path}: the evidence is empty")
    kept, scores = np.array(keeps, dtype=bool), np.array(references)
    return Audit(
        queries=queries,
        sources=list(sources.values()),
        filters=list(filters.values()),
        suspects=kept_most,
        caught=dropped_most,
        gaps=_histogram(np.array(gaps)[kept], np.array(gaps)[~kept]),
        scores=_histogram(np.array(positives), scores[kept], scores[~kept]),
        warnings=[text for counts in filters.values() for text in _warnings(counts, min(references), max(references))],
        by_teacher=by_teacher,
    )


def _most(suspects: Sequence[Suspect], count: int) -> list[Suspect]:
    return nlargest(count, suspects, key=attrgetter("lead"))


def decided(files: MiningFiles, threshold: Chosen | None = None) -> Iterator[tuple[str, list[Evidence]]]:
    """Each query's candidates; with a threshold, as they would be kept and dropped by it."""
    tried = applied([threshold])[0] if threshold is not None else None
    for query_id, evidence in groupby(read_evidence(files.evidence), key=lambda candidate: candidate.query_id):
        candidates = list(evidence)
        yield query_id, candidates if tried is None else _decided_again(candidates, tried)


def _decided_again(candidates: list[Evidence], tried: AppliedFilter) -> list[Evidence]:
    """With the columns that the filter saw when mining, except that the lowest positive stands for all positives."""
    first = candidates[0]
    mined = torch.arange(len(candidates) + 1)[None] > 0  # column 0 is the positive
    teacher = None
    if first.teacher is not None and first.positive_teacher is not None:
        teacher = torch.tensor([[first.positive_teacher, *(candidate.reference for candidate in candidates)]])
    scores = Scores(
        student=torch.tensor([[first.positive_score, *(candidate.score for candidate in candidates)]]),
        positive=~mined,
        candidate=mined,
        own=mined,
        teacher=teacher,
        query_ids=(first.query_id,),
        doc_ids=(first.positive_id, *(candidate.doc_id for candidate in candidates)),
    )
    again = []
    for candidate, verdict in zip(candidates, verdicts_of(tried, scores)[1:], strict=True):
        verdicts = (*(v for v in candidate.filters if v.name != tried.name), verdict)
        again.append(dataclasses.replace(candidate, keep=all(v.keep for v in verdicts), filters=verdicts))
    return again


def parse_threshold(text: str) -> Chosen:
    """`positive_ratio=0.9` sets a filter's first option; `{name: guide, margin: 0.1}` sets any.

    Raises InputError for an unknown filter or option, and for a filter that learns (it has no fixed threshold).
    """
    name, separator, value = text.partition("=")
    if separator and not text.lstrip().startswith("{"):
        method = methods.describe("filtering", name)
        if method.symbol != method.name and name != "judge":
            raise InputError(f"--threshold {name}: learns while training, so it has no fixed threshold")
        values: Any = {"name": name, method.options[0].name: parse(value, f"--threshold {name}")}
    else:
        values = parse(text, "--threshold")
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        raise InputError(f"--threshold {text}: expected FILTER=NUMBER, as in positive_ratio=0.9")
    name = values["name"]
    options = {key: number for key, number in values.items() if key != "name"}
    if problems := methods.check("filtering", name, options):
        raise InputError("; ".join(f"--threshold {name}.{key}: {message}" for key, message in problems))
    return Chosen(name=name, options=options)


def dataset_of(files: MiningFiles, name: str | None = None) -> Dataset:
    """The dataset `name`, or the data that was mined, as the summary beside the run names it."""
    folders = _folders(files) if files.complete else []
    if name is not None:
        splits = {split_of(folder)[1] for folder in folders}
        return load_dataset(name, splits.pop() if split_of(name)[1] is None and len(splits) == 1 else None)
    if not folders:
        raise InputError(f"{files.run}: no {files.summary.name} beside it names the mined dataset; give --data DIR")
    return load_training(Data(train=folders))


def _folders(files: MiningFiles) -> list[str]:
    """The dataset folders (`DIR:split`) that were mined, from the summary."""
    data = read_json_object(files.summary).get("data", {})
    folders = data.get("folders", []) if isinstance(data, dict) else None
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        raise InputError(f"{files.summary}: damaged (data.folders); mine again")
    return folders


def refuse_other_data(result: Audit, dataset: Dataset) -> None:
    """Raises InputError where a suspect's query or documents are not in the dataset."""
    for listed in (*result.suspects, *result.caught):
        candidate = listed.candidate
        of_corpus = [("document", doc_id, dataset.corpus) for doc_id in (candidate.positive_id, candidate.doc_id)]
        for kind, item_id, items in [("query", candidate.query_id, dataset.queries), *of_corpus]:
            if item_id not in items:
                raise InputError(f"{dataset.folder}: {kind} {item_id!r} is not in it; give --data DIR as it was mined")


def relabel(path: str | Path, dataset: Dataset, output: Path, *, above: float, judge: Path | None = None) -> int:
    """Writes the split's judgements with false negatives as positives (RLHN, arXiv 2505.16967); returns how many.

    above: a candidate, kept or dropped, becomes a positive of relevance 1 where its reference score lies at least this
    far above that of the query's lowest positive.
    judge: a run with scores of candidates and positives (`embedtune judge`) that decides instead of the reference
    scores; a candidate without a score stays as it is. Raises InputError where `output` exists: judgements are never
    changed in place.
    """
    check_file(output, None, option="--relabel")  # judgements are never changed in place
    qrels = {query_id: dict(judged) for query_id, judged in dataset.qrels.items()}
    scores = load_run(judge) if judge is not None else None
    if scores is not None and not scores:
        raise InputError(f"{judge}: no scores; expected a run of `embedtune judge`")
    added, candidate = 0, None
    for candidate in read_evidence(files_of(path).evidence):
        if candidate.query_id not in qrels:
            raise InputError(f"{path}: query {candidate.query_id!r} is not in {dataset.folder}, split {dataset.split}")
        lead = -candidate.gap if scores is None else _lead(scores.get(candidate.query_id, {}), candidate, dataset)
        if lead is not None and lead >= above:
            qrels[candidate.query_id][candidate.doc_id] = 1
            added += 1
    if candidate is None:
        raise InputError(f"{path}: the evidence is empty")
    write_qrels(output, qrels)
    return added


def relabel_by_people(dataset: Dataset, output: Path, paths: Sequence[Path]) -> tuple[int, int, list[tuple[str, str]]]:
    """Writes the split's judgements with what people decided; returns how many pairs are relevant, how many are not,
    and those on which people disagree, which stay as they were.

    paths: one file of decisions for each person. A pair that is relevant gets relevance 1, one that is not relevance 0.
    Raises InputError where `output` exists, for a pair that is not in the dataset and for a positive that people call
    not relevant.
    """
    check_file(output, None, option="--relabel")
    qrels = {query_id: dict(judged) for query_id, judged in dataset.qrels.items()}
    people = [read_decisions(path) for path in paths]
    decisions, disputed = agreed(people)
    for (query_id, doc_id), relevant in decisions.items():
        if query_id not in qrels or doc_id not in dataset.corpus:
            raise InputError(
                f"{paths[0]}: query {query_id!r} and document {doc_id!r} are not in {dataset.folder}, split "
                f"{dataset.split}; give --data DIR as it was mined"
            )
        if not relevant and qrels[query_id].get(doc_id, 0) > 0:
            raise InputError(f"{paths[0]}: document {doc_id!r} is a positive of query {query_id!r}; it was not mined")
        qrels[query_id].setdefault(doc_id, 0)
        if relevant:
            qrels[query_id][doc_id] = max(1, qrels[query_id][doc_id])
    write_qrels(output, qrels)
    relevant_pairs = sum(decisions.values())
    return relevant_pairs, len(decisions) - relevant_pairs, disputed


def _lead(judged: Mapping[str, float], candidate: Evidence, dataset: Dataset) -> float | None:
    """How far a judge scores the candidate above the lowest positive that it scored; None without both scores."""
    grades = dataset.qrels[candidate.query_id]
    positives = [judged[doc_id] for doc_id, grade in grades.items() if grade > 0 and doc_id in judged]
    if candidate.doc_id not in judged or not positives:
        return None
    return judged[candidate.doc_id] - min(positives)


def _count(
    query_id: str, candidates: list[Evidence], filters: dict[str, FilterCounts], sources: dict[str, SourceCounts]
) -> QueryCounts:
    """One query's counts, added to those of filters and sources as well."""
    counts = QueryCounts(query_id=query_id, candidates=len(candidates))
    for candidate in candidates:
        source = sources.setdefault(candidate.source, SourceCounts(name=candidate.source))
        source.candidates += 1
        source.kept += candidate.keep
        source.shared += bool(candidate.also)
        dropping = [verdict.name for verdict in candidate.filters if not verdict.keep]
        counts.kept += candidate.keep
        counts.dropped.update(dropping)
        for verdict in candidate.filters:
            of_filter = filters.setdefault(verdict.name, FilterCounts(name=verdict.name))
            of_filter.candidates += 1
            of_filter.dropped += not verdict.keep
            of_filter.alone += dropping == [verdict.name]
            if verdict.limit is not None:
                of_filter.add_limit(verdict.limit, candidate.positive_reference)
    return counts


def _warnings(counts: FilterCounts, lowest: float, highest: float) -> list[str]:
    """lowest, highest: the range of the candidates' reference scores."""
    name = counts.name
    limits = "" if counts.lowest_limit is None else f" (limits {counts.lowest_limit:.4g} to {counts.highest_limit:.4g})"
    if counts.dropped == counts.candidates:
        return [f"{name}: drops every candidate{limits}; its number is for scores of another scale"]
    if counts.dropped == 0 and counts.lowest_limit is not None and counts.positives_beyond == 0:
        return [f"{name}: drops nothing, because its limit{limits} lies above every positive's score; lower its number"]
    if counts.dropped == 0:
        return [f"{name}: drops nothing{limits}"]
    if max(-lowest, highest) > 1.001 and _fits_cosines(counts):
        return [
            f"{name}: its number fits cosines, but the candidates' scores lie from {lowest:.4g} to {highest:.4g}; give "
            "a number in their units, or use positive_ratio"
        ]
    return []


def _fits_cosines(counts: FilterCounts) -> bool:
    """Whether a filter whose default is for cosines has a cap within -1 to 1, or a margin above 0 and up to 1."""
    name = counts.name.partition("-")[0]  # the second filter of a kind is called absolute-2
    if name not in methods.names("filtering"):  # evidence is a file, and may hold any name
        return False
    kind = methods.describe("filtering", name).spec.cosine
    if kind == "cap" and counts.lowest_limit is not None and counts.highest_limit is not None:
        return -1 <= counts.lowest_limit <= counts.highest_limit <= 1
    return kind == "margin" and counts.widest_margin is not None and 0 < counts.widest_margin <= 1


def _histogram(*groups: np.ndarray[Any, Any]) -> list[tuple[Any, ...]]:
    """(lower edge, upper edge, count of each group) for each of 20 even bins over all groups."""
    edges = np.histogram_bin_edges(np.concatenate(groups), bins=BINS)
    counts = [np.histogram(group, bins=edges)[0].tolist() for group in groups]
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), *counts, strict=True))
