"""Runs and qrels in TREC's text formats, as trec_eval and BEIR write them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import InputError
from ..files import FileKind, first_line, write_lines
from ..types import Qrels, Run
from .jsonl import LineError, decode, fault_of_id, read_lines

_BLANKS = re.compile(r"[ \t]+")  # not str.split(): an id may hold U+00A0 and other Unicode spaces
_QRELS = {3: "`query-id corpus-id score`", 4: "`query 0 document relevance`"}
_PAIRS = "`query-id corpus-id`"  # NanoBEIR's judgements: each is of relevance 1
_RUN = {6: "`query Q0 document rank score tag`", 3: "`query document score`"}


def read_run(path: str | Path) -> Run:
    """Reads a run of 6 columns (`query Q0 document rank score tag`) or 3 (`query document score`).

    Ranks may start at 0 and are not used: scores decide. Raises InputError with the file and line for a wrong number
    of columns, a score that is not a finite number, and a document given twice for a query; and for scores that rise
    with the rank.
    """
    run: Run = {}
    last: dict[str, tuple[int, float]] = {}  # each query's rank and score on its line before
    rising: set[str] = set()  # queries with a score that rises with the rank, from one of their lines to the next
    falling: set[str] = set()
    for number, raw in read_lines(Path(path)):
        if not raw.strip():
            continue
        where = f"{path}:{number}"
        fields = _fields(raw, where, _RUN)
        query_id, doc_id = fields[0], fields[2 if len(fields) == 6 else 1]
        scores = run.setdefault(query_id, {})
        if doc_id in scores:
            raise LineError(where, "duplicate", f"document {doc_id!r} is given twice for query {query_id!r}")
        if len(fields) == 3:
            scores[doc_id] = _score(fields[2], where)
            continue
        rank, score = _whole_number(fields[3], "rank", where), _score(fields[4], where)
        scores[doc_id] = score
        before = last.get(query_id, (rank, score))
        if rank != before[0] and score != before[1]:
            (rising if (rank > before[0]) == (score > before[1]) else falling).add(query_id)
        last[query_id] = rank, score
    if len(rising - falling) > len(rising | falling) / 2:
        raise InputError(
            f"{path}: column 5 rises with the rank: a distance or a rank stands where a score is expected; give scores "
            "that are higher for better documents"
        )
    return run


def tag_of_run(path: Path) -> str:
    """The tag in the first line of a run as `write_run` writes it; empty for any other file."""
    fields = first_line(path).split(" ")
    try:
        if len(fields) == 6 and fields[1] == "Q0" and fields[3].isdecimal() and math.isfinite(float(fields[4])):
            return fields[5]
    except ValueError:
        pass
    return ""


# The tag begins with the verb that wrote the run, so that no verb replaces another one's.
SEARCHED = FileKind(verb="search", wrote=lambda path: tag_of_run(path).startswith("search:"))
JUDGED = FileKind(verb="judge", wrote=lambda path: tag_of_run(path) == "judge")


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Writes a run of 6 columns, each query's documents by descending score, ties by descending id (trec_eval's rule).

    Scores are written so that reading them gives the same numbers. Raises InputError for a score that is not finite.
    """
    write_lines(Path(path), _run_lines(run, re.sub(r"\s+", "_", tag) or "embedtune"))


def _run_lines(run: Run, tag: str) -> Iterator[str]:
    for query_id, scores in run.items():
        ranked = sorted(scores.items(), key=lambda scored: (scored[1], scored[0]), reverse=True)
        for rank, (doc_id, score) in enumerate(ranked, start=1):
            _refuse_unwritable(query_id, doc_id)
            if not math.isfinite(score):
                raise InputError(f"the score of document {doc_id!r} for query {query_id!r} is {score}: not a number")
            yield f"{query_id} Q0 {doc_id} {rank} {float(score)!r} {tag}"


def read_qrels(path: str | Path) -> Qrels:
    """Reads judgements: BEIR's 3 columns with or without the header `query-id corpus-id score`, or TREC's 4 without.

    Under a header of 2 columns, `query-id corpus-id`, each relevance is 1. Relevance is a whole number, graded, and may
    be negative; above 0 is positive. Raises InputError with the file and line for anything else, and for a pair that is
    judged twice with different relevance.
    """
    qrels: Qrels = {}
    for where, query_id, doc_id, relevance in judgements(path):
        judged = qrels.setdefault(query_id, {})
        if judged.setdefault(doc_id, relevance) != relevance:
            message = f"document {doc_id!r} is judged {judged[doc_id]} and {relevance} for query {query_id!r}"
            raise LineError(where, "contradiction", message)
    return qrels


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Writes judgements as BEIR does: tab-separated, with the header `query-id corpus-id score`."""
    write_lines(Path(path), _qrels_lines(qrels))


def _qrels_lines(qrels: Qrels) -> Iterator[str]:
    yield "query-id\tcorpus-id\tscore"
    for query_id, judged in qrels.items():
        for doc_id, relevance in judged.items():
            _refuse_unwritable(query_id, doc_id)
            yield f"{query_id}\t{doc_id}\t{relevance}"


EXCLUDED = "excluded.tsv"  # in a dataset folder: documents that are never ranked for a query


def read_excluded(path: Path) -> dict[str, frozenset[str]]:
    """query_id -> the documents that are never ranked for it, from lines of `query-id corpus-id` under that header."""
    excluded: dict[str, set[str]] = {}
    for _, query_id, doc_id, _ in judgements(path):
        excluded.setdefault(query_id, set()).add(doc_id)
    return {query_id: frozenset(doc_ids) for query_id, doc_ids in excluded.items()}


def write_excluded(path: Path, excluded: Iterable[tuple[str, str]]) -> None:
    """Writes (query_id, doc_id) as `read_excluded` reads them."""
    for query_id, doc_id in excluded:
        _refuse_unwritable(query_id, doc_id)
    write_lines(path, ["query-id\tcorpus-id", *(f"{query_id}\t{doc_id}" for query_id, doc_id in excluded)])


def _raise(fault: LineError) -> None:
    raise fault


def judgements(path: str | Path, on_fault: Callable[[LineError], None] = _raise) -> Iterator[tuple[str, str, str, int]]:
    """(where, query_id, doc_id, relevance) for each line. A line that cannot be read goes to `on_fault`."""
    columns = _QRELS
    for number, raw in read_lines(Path(path)):
        where = f"{path}:{number}"
        try:
            if not raw.strip():
                continue
            if number == 1 and _is_header(decode(raw, where)):
                count = len(_BLANKS.split(decode(raw, where).strip()))
                columns = {2: _PAIRS} if count == 2 else {3: _QRELS[3]}
                continue
            fields = _fields(raw, where, columns)
            if len(fields) == 2:
                fields = [*fields, "1"]
            judgement = (where, fields[0], fields[-2], _whole_number(fields[-1], "relevance", where))
        except LineError as fault:
            on_fault(fault)
        else:
            yield judgement


def _is_header(text: str) -> bool:
    return _BLANKS.split(text.strip())[0].lower().replace("_", "-") == "query-id"


def _fields(raw: bytes, where: str, columns: dict[int, str]) -> list[str]:
    fields = _BLANKS.split(decode(raw, where).strip(" \t\r\n"))
    if len(fields) not in columns:
        expected = " or ".join(f"{count} columns {names}" for count, names in columns.items())
        raise LineError(where, "malformed line", f"expected {expected}, got {len(fields)}")
    return fields


def _whole_number(text: str, column: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LineError(where, "malformed line", f"{column} must be a whole number, got {text!r}") from None


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise LineError(where, "malformed line", f"score must be a finite number, got {text!r}")
    return score


def _refuse_unwritable(*ids: str) -> None:
    for item_id in ids:
        if fault := fault_of_id(item_id):
            raise InputError(fault)
