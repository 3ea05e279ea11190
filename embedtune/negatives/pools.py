"""Searches for every query's candidates, block by block. All that mining encodes is encoded here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .. import methods
from ..data.dataset import subset
from ..data.mixture import prefixed
from ..data.relevance import Relevance
from ..methods.mining import Sourced, numbered
from ..models.encoder import Encoder, Progress
from ..models.scorers import EncoderScores, Scorer, teacher_scores
from ..recipe import CROSS_ENCODER, Negatives
from ..types import Dataset, Run

BLOCK = 4096  # queries mined at once


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a source brought: its name, the rank and score there, and who else found it."""

    doc_id: str
    source: str
    rank: int
    mined: float
    also: dict[str, int]


@dataclass(frozen=True)
class Searched:
    """A block of queries with its candidates, and whose embeddings judge them.

    pools: query_id -> its candidates, and how many documents were found that may not be any.
    """

    pools: dict[str, tuple[list[Candidate], int]]
    sources: int
    scorer: EncoderScores
    teacher: Scorer | None  # an encoder


def searched(
    dataset: Dataset,
    encoder: Encoder,
    negatives: Negatives,
    query_ids: Sequence[str],
    relevance: Relevance,
    on_progress: Progress | None,
    *,
    done: int = 0,
) -> Iterator[Searched]:
    """Every block of queries, and all that has to be encoded for it, but for the first `done` queries.

    A block that is gone on with is searched whole once more, for its last bits depend on who is searched together.
    """
    miners = [methods.bind("mining", chosen.name, chosen.options) for chosen in negatives.mining]
    by_pair = (negatives.teacher or "").startswith(CROSS_ENCODER)
    for start in range(done // BLOCK * BLOCK, len(query_ids), BLOCK):
        block = subset(dataset, query_ids[start : start + BLOCK])
        runs = _runs(miners, block, encoder, on_progress)
        pools = {query_id: _pool(query_id, runs, relevance) for query_id in block.qrels}
        needed = {candidate.doc_id for pool, _ in pools.values() for candidate in pool}
        needed |= {doc_id for query_id in pools for doc_id in relevance.positives[query_id]}
        scorer, teacher = EncoderScores(encoder, dataset, needed, on_progress=on_progress), None
        if negatives.teacher is not None and not by_pair:
            teacher = teacher_scores(negatives.teacher, encoder, dataset, needed, on_progress=on_progress)
        left = dict(islice(pools.items(), max(0, done - start), None))
        yield Searched(left, len(runs), scorer, teacher)


def encode_for_mining(
    dataset: Dataset,
    encoder: Encoder,
    negatives: Negatives,
    *,
    query_ids: Sequence[str] | None = None,
    relevance: Relevance | None = None,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Encodes what `mine` encodes, and no more, beside the process that mines and shares the work (encode/shared.py).

    What a miner encodes depends on what the others found, so candidates are searched for here too; nobody judges them.
    until: asked before every block of queries.
    """
    relevance = relevance or Relevance(dataset)
    for _ in searched(dataset, encoder, negatives, ids_to_mine(query_ids, relevance), relevance, None):
        if until():
            return


def ids_to_mine(query_ids: Sequence[str] | None, relevance: Relevance) -> list[str]:
    chosen = query_ids if query_ids is not None else (q for q, found in relevance.positives.items() if found)
    return list(dict.fromkeys(chosen))


def _runs(miners: list[Any], block: Dataset, encoder: Encoder, on_progress: Progress | None) -> dict[str, Run]:
    """source -> run, by all miners. In a mixture every dataset is mined for itself."""
    if block.parts:
        return _runs_of_parts(miners, block, encoder, on_progress)
    found: list[Sourced] = [miner(block, encoder, on_progress=on_progress) for miner in miners]
    labels = numbered([label for sourced in found for label in sourced])
    return dict(zip(labels, (run for sourced in found for run in sourced.values()), strict=True))


def _runs_of_parts(miners: list[Any], block: Dataset, encoder: Encoder, on_progress: Progress | None) -> dict[str, Run]:
    merged: dict[str, Run] = {}
    for part in block.parts:
        for source, run in _runs(miners, part, encoder, on_progress).items():
            merged.setdefault(source, {}).update(
                (prefixed(part.label, query_id), {prefixed(part.label, d): score for d, score in scores.items()})
                for query_id, scores in run.items()
            )
    return merged


def _pool(query_id: str, runs: dict[str, Run], relevance: Relevance) -> tuple[list[Candidate], int]:
    """One query's candidates, and how many documents were found that may not be any."""
    merged = merge({source: run[query_id] for source, run in runs.items() if query_id in run})
    forbidden = relevance.forbidden(query_id, [candidate.doc_id for candidate in merged])
    return [candidate for candidate, out in zip(merged, forbidden, strict=True) if not out], sum(forbidden)


def merge(found: dict[str, dict[str, float]]) -> list[Candidate]:
    """One query's candidates from source -> doc_id -> score: the sources take turns, each document comes once."""
    ranks = {
        source: {
            doc_id: rank
            for rank, (doc_id, _) in enumerate(sorted(scores.items(), key=lambda s: (s[1], s[0]), reverse=True), 1)
        }
        for source, scores in found.items()
    }
    turns = sorted((rank, turn, d) for turn, ranked in enumerate(ranks.values()) for d, rank in ranked.items())
    sources, merged = list(found), {}
    for rank, turn, doc_id in turns:
        if doc_id not in merged:
            source = sources[turn]
            also = {s: ranked[doc_id] for s, ranked in ranks.items() if s != source and doc_id in ranked}
            merged[doc_id] = Candidate(doc_id, source, rank, found[source][doc_id], also)
    return list(merged.values())
