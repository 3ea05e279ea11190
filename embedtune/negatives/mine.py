"""Mines negatives: retrieves candidates, scores and filters them, and writes run, evidence and summary.

Training, `embedtune mine` and `embedtune audit` share these files. Blocks of queries are written one after another, so
that memory holds the candidates of one block.
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
from ..data.passages import number_in
from ..errors import InputError
from ..files import fingerprint_of, fingerprint_of_file
from ..models import store
from ..models.encoder import Encoder, Progress
from ..models.modules import weights_fingerprint
from ..models.scorers import EncoderScores, Scorer, other_encoder
from ..recipe import Negatives, method_fingerprints, plain
from ..seeds import generator_for
from ..types import Scores
from . import candidates
from .candidates import CandidatePool, MiningJob, retrieve
from .counts import MiningReport
from .evidence import Evidence, MiningFiles, as_line, check_output
from .filters import AppliedFilter, applied, verdicts_of
from .resumable import resumable


def mine(job: MiningJob, output: Path, *, on_progress: Progress | None = None) -> MiningReport:
    """Writes the run `output`, its evidence (.jsonl) and a summary (.json) beside it.

    Each query's candidates come from the miners, which take turns, without positives, copies of positives and the
    query's own text. The model and the teacher score them, and every filter gives its verdict. The run holds what all
    filters keep, ordered by the teacher's scores where there is a teacher, else as it was retrieved.

    After a kill, the same job goes on where it was and writes the same bytes. At most half a minute of work is lost,
    or what a cross-encoder scores at once.

    Raises InputError where nothing is retrieved, where everything is dropped, and (negatives.empty: refuse) where a
    query keeps no negative; then nothing is written. Also for an output that is no earlier result of `mine`, and where
    another process is writing it.
    """
    files = MiningFiles(output)
    check_output(files, overwrite=True)
    filters = applied(job.negatives.filtering, job.learned)
    sample = methods.bind("sampling", job.negatives.sampling.name, job.negatives.sampling.options)
    sample(torch.empty(0), 0.0, generator=torch.Generator())  # refuses options out of range before hours of mining
    report = MiningReport(
        asked=asked(job.negatives),
        dropped=Counter({one.name: 0 for one in filters if one.started}),
        unstarted=[one.name for one in filters if not one.started],
    )
    with resumable(files, _fingerprint(job, filters)) as writer:
        if writer.report is not None:
            report = MiningReport.of(writer.report)
        for block in retrieve(job, skip=report.queries, on_progress=on_progress):
            for pool in block.pools:
                evidence = decide(pool, block.student, block.teacher, filters, job.progress)
                kept = [candidate for candidate in evidence if candidate.keep]
                if job.draw and kept:
                    generator = generator_for(job.seed, "negatives", 0, pool.query_id)
                    kept = [kept[row] for row in sample(*for_sampling(kept), generator=generator).tolist()]
                report.add(pool.query_id, evidence, forbidden=pool.forbidden, written=len(kept))
                writer.evidence.writelines(map(as_line, evidence))
                writer.run.writelines(_run_lines(kept, by_rank=block.teacher is None and block.sources > 1))
                if on_progress is not None:
                    on_progress(report.queries, len(job.ids))
                if writer.due or report.queries % candidates.BLOCK == 0:
                    writer.save(vars(report))
        _refuse_empty(report, job)
        writer.finish(vars(report), _summary(job, report))
    return report


def asked(negatives: Negatives) -> int:
    """How many negatives the sampling draws for a query."""
    sampling = negatives.sampling
    return int(methods.describe("sampling", sampling.name).with_defaults(sampling.options)["count"])


def for_sampling(kept: Sequence[Evidence]) -> tuple[Tensor, float]:
    """What a sampler gets of a query: its candidates' reference scores (K,), and its positive's."""
    return torch.tensor([candidate.reference for candidate in kept]), kept[0].positive_reference


def decide(
    pool: CandidatePool,
    student: EncoderScores,
    teacher: Scorer | None,
    filters: Sequence[AppliedFilter],
    progress: float,
) -> list[Evidence]:
    """One query's candidates with scores and verdicts, best first by the teacher, else as they were retrieved.

    The columns that filters see are the query's positives, then its candidates.
    """
    if not pool.candidates:
        return []
    item_ids, count = pool.item_ids, len(pool.positives)
    mined = torch.arange(len(item_ids))[None] >= count  # (1, D)
    by_student = torch.from_numpy(student(pool.query_id, item_ids))[None]
    by_teacher = torch.from_numpy(teacher(pool.query_id, item_ids))[None] if teacher is not None else None
    scores = Scores(
        student=by_student,
        positive=~mined,
        candidate=mined,
        own=mined,
        teacher=by_teacher,
        queries=torch.from_numpy(student.queries([pool.query_id])),
        documents=torch.from_numpy(student.documents(item_ids)),
        query_ids=(pool.query_id,),
        doc_ids=tuple(item_ids),
        progress=progress,
    )
    verdicts = [verdicts_of(one, scores)[count:] for one in filters if one.started]
    model, guide = by_student[0].tolist(), by_teacher[0].tolist() if by_teacher is not None else None
    lowest = min(range(count), key=(guide or model).__getitem__)
    evidence = [
        Evidence(
            query_id=pool.query_id,
            doc_id=candidate.doc_id,
            passage=number_in(pool.passages[candidate.doc_id]) if pool.passages else None,
            source=candidate.source,
            rank=candidate.rank,
            also=candidate.also,
            mined=candidate.mined,
            score=model[count + row],
            positive_id=pool.positives[lowest],
            positive_score=min(model[:count]),
            teacher=guide[count + row] if guide else None,
            positive_teacher=guide[lowest] if guide else None,
            keep=all(of_filter[row].keep for of_filter in verdicts),
            filters=tuple(of_filter[row] for of_filter in verdicts),
        )
        for row, candidate in enumerate(pool.candidates)
    ]
    if guide is None:
        return evidence
    evidence.sort(key=lambda e: (e.reference, e.doc_id), reverse=True)
    if count > 1:
        evidence[0] = replace(evidence[0], positives_teacher=dict(zip(pool.positives, guide[:count], strict=True)))
    return evidence


def _run_lines(kept: Sequence[Evidence], *, by_rank: bool) -> Iterator[str]:
    """A query's lines of the run. by_rank: 1/rank stands for the score, because sources' scores cannot be compared."""
    for rank, candidate in enumerate(kept, start=1):
        reference = candidate.mined if candidate.teacher is None else candidate.teacher
        score = 1 / rank if by_rank else reference
        tag = re.sub(r"\s+", "_", candidate.source)  # a source is named by its model, and a column has no blanks
        yield f"{candidate.query_id} Q0 {candidate.doc_id} {rank} {score!r} {tag}\n"


def _refuse_empty(report: MiningReport, job: MiningJob) -> None:
    dropped = ", ".join(f"{name} {count:,}" for name, count in report.dropped.items())
    if not report.candidates:
        miners = ", ".join(chosen.name for chosen in job.negatives.mining)
        raise InputError(f"negatives.mining: {miners} found no candidate for any query of {job.dataset.folder}")
    if not report.kept:
        raise InputError(
            f"negatives.filtering: all {report.candidates:,} candidates are dropped ({dropped}); loosen a limit: its "
            "number may be meant for scores of another scale, or two filters contradict each other"
            + (f": {report.contradiction()}" if report.at_odds else "")
        )
    if job.negatives.empty == "refuse" and report.without:
        raise InputError(
            f"negatives.empty: {report.without:,} of {report.queries:,} queries have no negative, the first is "
            f"{report.first_without!r} ({dropped or 'no candidate was found for them'}); loosen a filter, mine deeper, "
            "or set empty to train"
        )


def _summary(job: MiningJob, report: MiningReport) -> dict[str, Any]:
    return {
        "data": {
            "folders": [f"{source_of(part)}:{part.split}" for part in job.dataset.parts or (job.dataset,)],
            "fingerprint": job.dataset.fingerprint,
        },
        "encoder": {"name": job.encoder.name, "fingerprint": job.encoder.fingerprint},
        **({"passages": plain(job.encoder.passages)} if job.passages else {}),
        **({"teacher": {"name": job.negatives.teacher, "precision": job.by_pair.precision}} if job.by_pair else {}),
        "negatives": plain(job.negatives),
        "seed": job.seed,
        "report": vars(report),
    }


def _fingerprint(job: MiningJob, filters: Sequence[AppliedFilter]) -> str:
    """Of all that candidates and scores depend on to the last bit: data, models, methods and the files they read."""
    encoder, negatives = job.encoder, job.negatives
    parts = [__version__, json.dumps(store.versions()), job.dataset.fingerprint, encoder.fingerprint]
    parts += [json.dumps(plain(negatives), sort_keys=True), job.passages.fingerprint if job.passages else ""]
    parts += method_fingerprints(negatives.chosen()).values()
    for chosen in (*negatives.mining, *negatives.filtering):
        parts += _contents_of(chosen.options, encoder)
    if negatives.teacher is not None:
        parts.append((job.by_pair or other_encoder(negatives.teacher, encoder)).fingerprint)
    parts += [weights_fingerprint(one.decide) for one in filters if isinstance(one.decide, nn.Module)]
    return fingerprint_of(*parts, json.dumps([job.progress, job.seed, job.draw, candidates.BLOCK, job.ids]))


def _contents_of(options: dict[str, Any], like: Encoder) -> Iterator[str]:
    """Fingerprints of the files and models that a method's options name, also those of a miner within a miner."""
    for name, value in sorted(options.items()):
        if name == "path" and isinstance(value, str) and Path(value).is_file():
            yield fingerprint_of_file(Path(value))
        elif name == "model" and isinstance(value, str):
            yield other_encoder(value, like).fingerprint
        elif name == "models":
            yield from (other_encoder(model, like).fingerprint for model in value or ())
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    yield from _contents_of(part, like)
