"""A judge's scores for mined candidates and their positives: a TREC run, for the filter `judge` and for relabelling."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import groupby

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from ..errors import InputError, reason
from ..models.encoder import Progress, load_encoder
from ..models.precision import resolve_device, resolve_precision
from ..models.scorers import EncoderScores, Scorer, cross_encoder
from ..recipe import Model
from ..types import Dataset, Run
from .evidence import MiningFiles, read_evidence


def pairs_of(files: MiningFiles, dataset: Dataset) -> dict[str, list[str]]:
    """query_id -> its positives, then its mined candidates. Raises InputError where the evidence is of other data."""
    pairs = {}
    for query_id, evidence in groupby(read_evidence(files.evidence), key=lambda candidate: candidate.query_id):
        if query_id not in dataset.qrels:
            raise InputError(f"{files.evidence}: query {query_id!r} is not in {dataset.folder}, split {dataset.split}")
        positives = sorted(doc_id for doc_id, grade in dataset.qrels[query_id].items() if grade > 0)
        pairs[query_id] = [*positives, *(candidate.doc_id for candidate in evidence)]
        absent = [doc_id for doc_id in pairs[query_id] if doc_id not in dataset.corpus]
        if absent:
            raise InputError(f"{files.evidence}: document {absent[0]!r} is not in {dataset.folder}")
    if not pairs:
        raise InputError(f"{files.evidence}: no candidates to judge")
    return pairs


def judge_by_model(
    pairs: dict[str, list[str]],
    dataset: Dataset,
    model: Model,
    on_progress: Progress | None = None,
) -> Run:
    """Scores by an encoder, or by `cross-encoder:NAME`."""
    torch_device, trust = resolve_device(), model.trust_remote_code
    native = resolve_precision("auto", torch_device)
    by_pair = cross_encoder(model.label, dataset, str(torch_device), precision=native, trust_remote_code=trust)
    scorer: Scorer
    if by_pair is not None:
        scorer = by_pair.of_pairs(pairs)
    else:
        encoder = load_encoder(model)
        scorer = EncoderScores(encoder, dataset, {doc_id for ids in pairs.values() for doc_id in ids})
    run: Run = {}
    for done, (query_id, doc_ids) in enumerate(pairs.items(), start=1):
        run[query_id] = dict(zip(doc_ids, map(float, scorer(query_id, doc_ids)), strict=True))
        if on_progress is not None:
            on_progress(done, len(pairs))
    return run


def judge_by_command(pairs: dict[str, list[str]], dataset: Dataset, command: str) -> Run:
    """Scores by a program of the user's.

    The program reads one JSON line for each pair on stdin, {"query_id", "doc_id", "query", "document"} (with
    "query_image" and "document_image" as paths where there are images), and prints one number for each, in order.
    Raises InputError where the command is none, fails, or prints anything but one finite number for each pair.
    """
    option = f"--command {command!r}"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"{option}: {str(error).lower()}; quote it as for a shell") from None
    if not words:
        raise InputError(f"{option}: is empty; name a program, as in --command 'python judge.py'")
    asked = [(query_id, doc_id) for query_id, doc_ids in pairs.items() for doc_id in doc_ids]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as lines:
        lines.writelines(_lines(asked, dataset))
        lines.seek(0)
        try:
            answered = subprocess.run(words, stdin=lines, stdout=subprocess.PIPE, encoding="utf-8", check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise InputError(f"{option}: {reason(error)}") from None
    printed = answered.stdout.splitlines()
    if len(printed) != len(asked):
        raise InputError(f"{option}: printed {len(printed)} lines for {len(asked)} pairs; print one number for each")
    try:
        scores = TypeAdapter(list[FiniteFloat]).validate_python(printed)
    except ValidationError as error:
        first = error.errors()[0]
        where, text = f"{option}: line {int(first['loc'][0]) + 1}", str(first["input"])[:40]
        raise InputError(f"{where}: expected a finite number, got {text!r}") from None
    run: Run = {}
    for (query_id, doc_id), score in zip(asked, scores, strict=True):
        run.setdefault(query_id, {})[doc_id] = score
    return run


def _lines(asked: list[tuple[str, str]], dataset: Dataset) -> Iterator[str]:
    for query_id, doc_id in asked:
        query, document = dataset.queries[query_id], dataset.corpus[doc_id]
        line = {"query_id": query_id, "doc_id": doc_id, "query": query.content, "document": document.content}
        for role, item in (("query", query), ("document", document)):
            if item.image is not None:
                line[f"{role}_image"] = str(item.image)
        yield json.dumps(line, ensure_ascii=False) + "\n"
