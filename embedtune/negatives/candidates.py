"""Retrieves every query's candidates, block by block, and encodes everything that mining needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from .. import methods
from ..data.dataset import subset
from ..data.mixture import prefixed
from ..data.passages import passages_of
from ..data.relevance import Relevance
from ..errors import InputError
from ..methods.mining import Sourced, numbered
from ..models.encoder import Encoder, Progress
from ..models.scorers import CrossEncoderScores, EncoderScores, PairScores, Scorer, cross_encoder, teacher_scores
from ..recipe import Negatives
from ..types import Dataset, Run
from .passages import best_passages, passage_by_document

BLOCK = 4096  # queries that candidates are retrieved for at once


@dataclass(frozen=True, kw_only=True)
class MiningJob:
    """What is mined, by which model and under which rules.

    encoder: a model with cached embeddings, so that a second mining with the same weights encodes nothing.
    negatives: miners, filters, sampling and teacher, as in a recipe.
    passages: the dataset as `in_passages` splits it, where the encoder splits documents. A document is then scored as
    its passage.
    query_ids: the queries to mine; None means every query of the split that has a positive.
    relevance: the dataset's judgements, where the caller has them already.
    learned: the filters of `negatives`, in their order, with the state that training gave them; None makes new ones.
    progress: the share of training that is done, from 0 to 1, for options that follow a schedule.
    draw: writes only the negatives that the recipe's sampling draws, by this seed.
    """

    dataset: Dataset
    encoder: Encoder
    negatives: Negatives
    passages: Dataset | None = None
    query_ids: Sequence[str] | None = None
    relevance: Relevance | None = None
    learned: Sequence[Any] | None = None
    progress: float = 0.0
    seed: int = 0
    draw: bool = False

    @cached_property
    def known(self) -> Relevance:
        """The judgements given, or those of the dataset."""
        return self.relevance or Relevance(self.dataset)

    @cached_property
    def by_pair(self) -> CrossEncoderScores | None:
        """The teacher, where it is a cross-encoder; in the encoder's precision, by default what its device has."""
        encoder = self.encoder
        return cross_encoder(
            self.negatives.teacher, self.passages or self.dataset, str(encoder.device), precision=encoder.precision
        )

    @cached_property
    def ids(self) -> list[str]:
        """The queries to mine, each once."""
        chosen = self.query_ids
        if chosen is None:
            chosen = [query_id for query_id, positives in self.known.positives.items() if positives]
        return list(dict.fromkeys(chosen))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A retrieved document with its source, its rank and score there, and its ranks in other sources."""

    doc_id: str
    source: str
    rank: int
    mined: float
    also: dict[str, int]


@dataclass(frozen=True, slots=True)
class CandidatePool:
    """One query's candidates and positives. forbidden: retrieved documents that may not be negatives of the query.

    passages: where documents are split, the passage that stands for each of these documents.
    """

    query_id: str
    candidates: list[Candidate]
    positives: list[str]
    forbidden: int
    passages: dict[str, str] = field(default_factory=dict)

    @property
    def doc_ids(self) -> list[str]:
        """The positives, then the candidates."""
        return [*self.positives, *(candidate.doc_id for candidate in self.candidates)]

    @property
    def item_ids(self) -> list[str]:
        """What is scored for them: each document, or its passage."""
        return [self.passages.get(doc_id, doc_id) for doc_id in self.doc_ids]


@dataclass(frozen=True)
class CandidateBlock:
    """The pools of a block of queries, and the models that score them."""

    pools: list[CandidatePool]
    sources: int
    student: EncoderScores
    teacher: Scorer | None


def retrieve(job: MiningJob, *, skip: int = 0, on_progress: Progress | None = None) -> Iterator[CandidateBlock]:
    """Every block of queries with all that must be encoded for it, without the first `skip` queries.

    A block that was interrupted is retrieved whole again: the last bits of scores depend on the block's queries.
    """
    dataset, encoder, negatives = job.dataset, job.encoder, job.negatives
    miners = [methods.bind("mining", chosen.name, chosen.options) for chosen in negatives.mining]
    for start in range(skip // BLOCK * BLOCK, len(job.ids), BLOCK):
        block = subset(dataset, job.ids[start : start + BLOCK])
        runs = _runs(miners, block, encoder, on_progress)
        pools = [_pool(query_id, runs, job.known) for query_id in block.qrels]
        scored = job.passages or dataset
        needed = {i for pool in pools for doc_id in pool.doc_ids for i in passages_of(scored.corpus, doc_id)}
        student = EncoderScores(encoder, scored, needed, on_progress=on_progress)
        teacher: Scorer | None = None
        if job.passages is not None:
            pools = [by_passages(pool, job.passages, student) for pool in pools]
        if job.by_pair is not None:
            teacher = job.by_pair.of_pairs({pool.query_id: pool.item_ids for pool in pools if pool.candidates})
        elif negatives.teacher is not None:
            teacher = teacher_scores(negatives.teacher, encoder, scored, needed, on_progress=on_progress)
        yield CandidateBlock(pools[max(0, skip - start) :], len(runs), student, teacher)


def encode_for_mining(job: MiningJob, until: Callable[[], bool] = lambda: False) -> None:
    """Encodes, searches and scores what `mine` does, in a process beside it; both share the work (models/store.py).

    Candidates are retrieved here too, because one miner's encoding depends on what the others retrieved.
    until: asked before every block of queries; True ends the work.
    """
    for block in retrieve(job):
        if until():
            return
        if isinstance(block.teacher, PairScores):
            block.teacher.shared()


def _runs(miners: list[Any], block: Dataset, encoder: Encoder, on_progress: Progress | None) -> dict[str, Run]:
    """source -> run, by all miners. The datasets of a mixture are mined one by one."""
    if not block.parts:
        sourced: list[Sourced] = [miner(block, encoder, on_progress=on_progress) for miner in miners]
        labels = numbered([label for runs in sourced for label in runs])
        return dict(zip(labels, (run for runs in sourced for run in runs.values()), strict=True))
    merged: dict[str, Run] = {}
    for part in block.parts:
        for source, run in _runs(miners, part, encoder, on_progress).items():
            merged.setdefault(source, {}).update(
                (prefixed(part.label, query_id), {prefixed(part.label, d): score for d, score in scores.items()})
                for query_id, scores in run.items()
            )
    return merged


def _pool(query_id: str, runs: dict[str, Run], relevance: Relevance) -> CandidatePool:
    merged = merge({source: run[query_id] for source, run in runs.items() if query_id in run})
    for candidate in merged:
        if not math.isfinite(candidate.mined):
            raise InputError(
                f"mining: {candidate.source} scores document {candidate.doc_id!r} of query {query_id!r} "
                f"{candidate.mined}, which is not finite"
            )
    forbidden = relevance.forbidden(query_id, [candidate.doc_id for candidate in merged])
    allowed = [candidate for candidate, out in zip(merged, forbidden, strict=True) if not out]
    return CandidatePool(query_id, allowed, sorted(relevance.positives[query_id]), sum(forbidden))


def by_passages(pool: CandidatePool, dataset: Dataset, scores: EncoderScores) -> CandidatePool:
    """The pool with a passage for each document: the positives' of a dataset of `in_passages`, the candidates' best."""
    doc_ids = [candidate.doc_id for candidate in pool.candidates]
    best = best_passages(pool.query_id, doc_ids, dataset.corpus, scores)
    passages = dict(zip(doc_ids, best, strict=True)) | passage_by_document(dataset, pool.query_id)
    return replace(pool, passages=passages)


def merge(scores: dict[str, dict[str, float]]) -> list[Candidate]:
    """One query's candidates from source -> doc_id -> score: source by source at each rank, each document once."""
    ranks = {
        source: {
            doc_id: rank
            for rank, (doc_id, _) in enumerate(sorted(scored.items(), key=lambda s: (s[1], s[0]), reverse=True), 1)
        }
        for source, scored in scores.items()
    }
    order = sorted((rank, number, d) for number, ranked in enumerate(ranks.values()) for d, rank in ranked.items())
    sources = list(scores)
    merged: dict[str, Candidate] = {}
    for rank, number, doc_id in order:
        if doc_id not in merged:
            source = sources[number]
            also = {s: ranked[doc_id] for s, ranked in ranks.items() if s != source and doc_id in ranked}
            merged[doc_id] = Candidate(doc_id, source, rank, scores[source][doc_id], also)
    return list(merged.values())
