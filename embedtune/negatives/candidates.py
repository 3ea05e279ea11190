"""Mines candidates, judges them, and keeps the evidence: files that training, `mine` and `audit` share.

Blocks of queries are mined and judged one after another and streamed to disk, so memory holds one block's candidates.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__, methods
from ..data.dataset import source_of
from ..data.relevance import Relevance
from ..errors import InputError
from ..files import fingerprint_of
from ..models import store
from ..models.encoder import Encoder, Progress
from ..models.scorers import CrossEncoderScores, EncoderScores, Scorer, cross_encoder, frozen
from ..models.weights import weights_fingerprint
from ..recipe import Negatives, plain
from ..seeds import generator_for
from ..types import Dataset, Scores
from . import pools
from .counts import Found, Report
from .evidence import Evidence, Files, as_line
from .pools import Candidate, ids_to_mine, searched
from .resumable import contents_of, unfinished
from .verdicts import Judge, judges_of, verdicts_of


def mine(
    dataset: Dataset,
    encoder: Encoder,
    negatives: Negatives,
    output: Path,
    *,
    query_ids: Sequence[str] | None = None,
    relevance: Relevance | None = None,
    filters: Sequence[Any] | None = None,
    progress: float = 0.0,
    seed: int = 0,
    draw: bool = False,
    on_progress: Progress | None = None,
) -> Report:
    """Mines, judges and filters; writes the run `output`, the evidence (.jsonl) and a summary (.json) beside it.

    Killed and started again with the same arguments it goes on from the last whole block of queries, and within a block
    loses half a minute; the files are then those of a mining that was never killed, to the last bit.

    For each query: the miners' candidates, taking turns where there are several, without positives, copies of positives
    and the query's own text; scored by `encoder` and by the teacher; every filter's verdict. The run holds what all
    filters keep, in the order of the teacher's scores where there is one, else as it was mined.

    encoder: must be one whose embeddings are cached; then a second mining with the same weights encodes nothing.
    query_ids: absent, every query of the split with a positive. relevance: absent, made from the dataset.
    filters: the recipe's filters in place, where they have learned something; absent, they are made.
    progress: where training stands, for options that follow a schedule.
    draw: write only what the recipe's sampling draws.

    Raises InputError where nothing is found, where everything is dropped, and (negatives.empty: refuse) where a query
    is left without negatives; then nothing is written. So it does where another process is writing to `output`.
    """
    if output.suffix in (".json", ".jsonl"):
        raise InputError(
            f"{output}: names a run; its evidence (.jsonl) and summary (.json) go beside it: end it in .run"
        )
    relevance = relevance or Relevance(dataset)
    ids = ids_to_mine(query_ids, relevance)
    judges = judges_of(negatives.filtering, filters)
    sample = methods.bind("sampling", negatives.sampling.name, negatives.sampling.options)
    sample(torch.empty(0), 0.0, generator=torch.Generator())  # refuses options out of range before hours of mining
    report = Report(
        asked=asked(negatives),
        dropped=Counter({judge.name: 0 for judge in judges if judge.started}),
        unstarted=[judge.name for judge in judges if not judge.started],
    )
    by_pair = cross_encoder(negatives.teacher, dataset, str(encoder.device))
    key = fingerprint_of(
        *_dependencies(dataset, encoder, negatives, by_pair, judges),
        json.dumps([progress, seed, draw, pools.BLOCK, ids]),
    )
    with unfinished(Files(output), key) as files:
        if files.noted is not None:
            report = Report.of(files.noted["report"])
        done = report.queries
        for found in _judged(dataset, encoder, negatives, ids, relevance, judges, progress, by_pair, done, on_progress):
            kept = [candidate for candidate in found.evidence if candidate.keep]
            if draw and kept:
                drawn = sample(*for_sampling(kept), generator=generator_for(seed, "negatives", 0, found.query_id))
                kept = [kept[place] for place in drawn.tolist()]
            report.add(found, len(kept))
            files.evidence.writelines(as_line(candidate) + "\n" for candidate in found.evidence)
            files.run.writelines(_run_lines(kept, by_place=found.by_place))
            if on_progress is not None:
                on_progress(report.queries, len(ids))
            if files.due or report.queries % pools.BLOCK == 0:
                files.note(vars(report))
        _check(report, negatives, dataset)
        files.finish(vars(report), _summary(dataset, encoder, negatives, seed, report))
    return report


def _dependencies(
    dataset: Dataset,
    encoder: Encoder,
    negatives: Negatives,
    by_pair: CrossEncoderScores | None,
    judges: Sequence[Judge],
) -> Iterator[str]:
    """What mined candidates and their scores depend on, to the last bit: data, models, methods and what they read."""
    yield from (__version__, json.dumps(store.versions()), dataset.fingerprint, encoder.fingerprint)
    yield json.dumps(plain(negatives), sort_keys=True)
    for chosen in (*negatives.mining, *negatives.filtering):
        yield from contents_of(chosen.options, encoder)
    if negatives.teacher is not None:
        yield by_pair.fingerprint if by_pair is not None else frozen(negatives.teacher, encoder).fingerprint
    yield from (weights_fingerprint(judge.decide) for judge in judges if isinstance(judge.decide, nn.Module))


def _judged(
    dataset: Dataset,
    encoder: Encoder,
    negatives: Negatives,
    query_ids: Sequence[str],
    relevance: Relevance,
    judges: Sequence[Judge],
    progress: float,
    by_pair: CrossEncoderScores | None,
    done: int,
    on_progress: Progress | None,
) -> Iterator[Found]:
    """Each query's candidates with their evidence, block by block, but for the first `done` queries."""
    for block in searched(dataset, encoder, negatives, query_ids, relevance, on_progress, done=done):
        teacher = by_pair or block.teacher
        for query_id, (pool, forbidden) in block.pools.items():
            positives = sorted(relevance.positives[query_id])
            evidence = judge(query_id, pool, positives, block.scorer, teacher, judges, progress) if pool else []
            yield Found(query_id, evidence, forbidden, by_place=teacher is None and block.sources > 1)


def asked(negatives: Negatives) -> int:
    """How many negatives a query gets."""
    option = next(o for o in methods.describe("sampling", negatives.sampling.name).options if o.name == "count")
    return int(negatives.sampling.options.get("count", option.default))


def for_sampling(kept: Sequence[Evidence]) -> tuple[Tensor, float]:
    """What a sampler gets: the candidates' scores (K,), by whoever judged, and the positive's in the same units."""
    return torch.tensor([candidate.judged for candidate in kept]), kept[0].positive_judged


def judge(
    query_id: str,
    pool: Sequence[Candidate],
    positives: Sequence[str],
    scorer: EncoderScores,
    teacher: Scorer | None,
    judges: Sequence[Judge],
    progress: float,
) -> list[Evidence]:
    """One query's candidates with all that is known of them, best first.

    The columns that filters see are its positives, then its candidates.
    """
    doc_ids = [*positives, *(candidate.doc_id for candidate in pool)]
    count = len(positives)
    own = torch.arange(len(doc_ids))[None] >= count  # (1, D)
    by_model = torch.from_numpy(scorer(query_id, doc_ids))[None]
    by_teacher = torch.from_numpy(teacher(query_id, doc_ids))[None] if teacher is not None else None
    scores = Scores(
        student=by_model,
        positive=~own,
        candidate=own,
        own=own,
        teacher=by_teacher,
        queries=torch.from_numpy(scorer.queries([query_id])),
        documents=torch.from_numpy(scorer.documents(doc_ids)),
        query_ids=(query_id,),
        doc_ids=tuple(doc_ids),
        progress=progress,
    )
    verdicts = [verdicts_of(j, scores)[count:] for j in judges if j.started]
    student, guide = by_model[0].tolist(), by_teacher[0].tolist() if by_teacher is not None else None
    lowest = min(range(count), key=(guide or student).__getitem__)
    evidence = [
        Evidence(
            query_id=query_id,
            doc_id=candidate.doc_id,
            source=candidate.source,
            rank=candidate.rank,
            also=candidate.also,
            mined=candidate.mined,
            score=student[count + place],
            positive_id=positives[lowest],
            positive_score=min(student[:count]),
            teacher=guide[count + place] if guide else None,
            positive_teacher=guide[lowest] if guide else None,
            keep=all(said[place].keep for said in verdicts),
            filters=tuple(said[place] for said in verdicts),
        )
        for place, candidate in enumerate(pool)
    ]
    if guide is None:
        return evidence
    evidence.sort(key=lambda e: (e.judged, e.doc_id), reverse=True)
    if evidence and count > 1:
        evidence[0] = replace(evidence[0], positives_teacher=dict(zip(positives, guide[:count], strict=True)))
    return evidence


def _run_lines(kept: Sequence[Evidence], *, by_place: bool) -> Iterator[str]:
    """A query's lines of the run. Scores of several sources cannot be compared: there 1/place keeps the order."""
    for place, candidate in enumerate(kept, start=1):
        own = candidate.mined if candidate.teacher is None else candidate.teacher
        score = 1 / place if by_place else own
        tag = re.sub(r"\s+", "_", candidate.source)  # a source is named by its model, a column has no blanks
        yield f"{candidate.query_id} Q0 {candidate.doc_id} {place} {score!r} {tag}\n"


def _check(report: Report, negatives: Negatives, dataset: Dataset) -> None:
    said = ", ".join(f"{name} {count:,}" for name, count in report.dropped.items())
    if not report.candidates:
        miners = ", ".join(chosen.name for chosen in negatives.mining)
        raise InputError(f"negatives.mining: {miners} found no candidate for any query of {dataset.folder}")
    if not report.kept:
        raise InputError(
            f"negatives.filtering: dropped every one of the {report.candidates:,} candidates ({said}); loosen a limit: "
            "the scores may be on another scale than it is meant for, or two filters contradict each other"
            + (f": {report.contradiction()}" if report.at_odds else "")
        )
    if negatives.empty == "refuse" and report.without:
        raise InputError(
            f"negatives.empty: {report.without:,} of {report.queries:,} queries have no negative left, first "
            f"{report.first_without!r} ({said or 'nothing was found for them'}); loosen a filter, mine deeper, or set "
            "empty to train"
        )


def _summary(dataset: Dataset, encoder: Encoder, negatives: Negatives, seed: int, report: Report) -> dict[str, Any]:
    return {
        "data": {
            "folders": [f"{source_of(part)}:{part.split}" for part in dataset.parts or (dataset,)],
            "fingerprint": dataset.fingerprint,
        },
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "negatives": plain(negatives),
        "seed": seed,
        "report": vars(report),
    }
