"""Runs and qrels in TREC's text formats, as trec_eval and BEIR write them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import FileKind, first_line, write_lines
from ..types import Qrels, Run
from .ids import numbers_of
from .jsonl import LineError, decode, fault_of_id, read_blocks

_BLANKS = re.compile(r"[ \t]+")  # not str.split(): an id may hold U+00A0 and other Unicode spaces


def read_run(path: str | Path) -> Run:
    """Reads a run of 6 columns (`query Q0 document rank score tag`) or 3 (`query document score`).

    Ranks may start at 0 and are not used: scores decide. Raises InputError with the file and line for a wrong number
    of columns, a score that is not a finite number, and a document given twice for a query; and for scores that rise
    with the rank.
    """
    run: Run = {}
    lines, fault = 0, None
    ranked: list[tuple[NDArray[Any], ...]] = []  # columns of queries' numbers, ranks and scores
    try:
        for block in _blocks(Path(path), _RUN):
            for query_id, doc_id, score in zip(*block.ids, block.numbers[-1], strict=True):
                run.setdefault(query_id, {})[doc_id] = score
            lines += len(block.ids[0])
            if len(block.numbers) == 2:
                ranked.append((numbers_of(block.ids[0]), *map(np.array, block.numbers)))
    except LineError as error:
        fault = error
    if fault is not None or lines > sum(map(len, run.values())):
        fault = _first_repeated(Path(path)) or fault
    if fault is not None:
        raise fault
    if ranked and _rises(ranked):
        raise InputError(
            f"{path}: column 5 rises with the rank: a distance or a rank stands where a score is expected; give scores "
            "that are higher for better documents"
        )
    return run


def _first_repeated(path: Path) -> LineError | None:
    """An error for the first document that is given twice for a query, if no line before it has a fault."""
    pairs: set[tuple[str, str]] = set()
    with suppress(LineError):
        for block in _blocks(path, _RUN):
            for number, query_id, doc_id in zip(itertools.count(block.first), *block.ids):
                if (query_id, doc_id) in pairs:
                    message = f"document {doc_id!r} is given twice for query {query_id!r}"
                    return LineError(f"{path}:{number}", "duplicate", message)
                pairs.add((query_id, doc_id))
    return None


def _rises(ranked: Sequence[tuple[NDArray[Any], ...]]) -> bool:
    """Whether scores rise with the rank, from one line of a query to its next, for most queries where either changes.

    Queries in which they rise and fall as well count as falling.
    """
    queries, ranks, scores = map(np.concatenate, zip(*ranked, strict=True))
    order = np.argsort(queries, kind="stable")
    queries, ranks, scores = queries[order], ranks[order], scores[order]
    same = queries[1:] == queries[:-1]
    with np.errstate(over="ignore"):  # of the largest numbers the difference is infinite, and its sign is right
        steps = np.sign(np.diff(ranks)) * np.sign(np.diff(scores))
    groups = np.cumsum(~same)  # of each step: its query's
    rising, falling = (np.bincount(groups[same & (steps == sign)], minlength=len(order)) > 0 for sign in (1, -1))
    return int((rising & ~falling).sum()) > int((rising | falling).sum()) / 2


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
    for number, query_id, doc_id, relevance in judgements(path):
        judged = qrels.setdefault(query_id, {})
        if judged.setdefault(doc_id, relevance) != relevance:
            message = f"document {doc_id!r} is judged {judged[doc_id]} and {relevance} for query {query_id!r}"
            raise LineError(f"{path}:{number}", "contradiction", message)
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


def judgements(path: str | Path, on_fault: Callable[[LineError], None] = _raise) -> Iterator[tuple[int, str, str, int]]:
    """(line number, query_id, doc_id, relevance) for each judgement. A line that cannot be read goes to `on_fault`."""
    for block in judgement_blocks(path, on_fault):
        yield from zip(itertools.count(block.first), *block.ids, block.numbers[0])


def judgement_blocks(path: str | Path, on_fault: Callable[[LineError], None] = _raise) -> Iterator[LineBlock]:
    """The judgements of `judgements`, of many lines at a time; numbers: the column of relevances."""
    for block in _blocks(Path(path), _QRELS, on_fault):
        yield block if block.numbers else replace(block, numbers=[[1] * len(block.ids[0])])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """The columns of a kind of line. names: as errors show them. numbers: column -> its name, and int or float."""

    names: str
    doc_id: int
    numbers: Mapping[int, tuple[str, type]]


_QRELS = {
    3: _Form(names="`query-id corpus-id score`", doc_id=1, numbers={2: ("relevance", int)}),
    4: _Form(names="`query 0 document relevance`", doc_id=2, numbers={3: ("relevance", int)}),
}
_PAIRS = _Form(names="`query-id corpus-id`", doc_id=1, numbers={})  # NanoBEIR's judgements: each is of relevance 1
_RUN = {
    6: _Form(names="`query Q0 document rank score tag`", doc_id=2, numbers={3: ("rank", int), 4: ("score", float)}),
    3: _Form(names="`query document score`", doc_id=1, numbers={2: ("score", float)}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LineBlock:
    """Consecutive lines of one form. first: the number of the first. ids: the columns of query and document ids."""

    first: int
    ids: tuple[list[str], list[str]]
    numbers: list[list[Any]]


def _blocks(
    path: Path, forms: Mapping[int, _Form], on_fault: Callable[[LineError], None] = _raise
) -> Iterator[LineBlock]:
    """The lines of a file, without a header of qrels. A line that cannot be read goes to `on_fault`."""
    for first, lines in read_blocks(path):
        if first == 1 and forms is _QRELS and (columns := _columns_of_header(lines[0])):
            first, lines, forms = 2, lines[1:], {2: _PAIRS} if columns == 2 else {3: _QRELS[3]}
        block = _block(first, lines, forms)
        if block is not None:
            yield block
            continue
        for number, raw in enumerate(lines, start=first):
            try:
                line = _line(number, raw, f"{path}:{number}", forms) if raw.strip() else None
            except LineError as fault:
                on_fault(fault)
            else:
                if line is not None:
                    yield line


def _block(first: int, lines: Sequence[bytes], forms: Mapping[int, _Form]) -> LineBlock | None:
    """Lines of one form with one tab or blank between their fields, read at once; None for any others."""
    try:
        text = b"".join(lines).decode("utf-8").replace("\r\n", "\n").removesuffix("\n")
        fields = text.replace("\t", " ").replace("\n", " \n ").split(" ")  # each line's end is a field by itself
        width, rest = divmod(len(fields) + 1, max(len(lines), 1))
        form, ends = forms.get(width - 1), fields[width - 1 :: width]
        if (
            form is None
            or rest
            or ends.count("\n") != len(lines) - 1
            or "" in fields
            or "\r" in text
            or "\ufeff" in text
        ):
            return None
        numbers = [_numbers(fields[column::width], kind) for column, (_, kind) in form.numbers.items()]
    except ValueError:
        return None
    return LineBlock(first=first, ids=(fields[::width], fields[form.doc_id :: width]), numbers=numbers)


def _line(number: int, raw: bytes, where: str, forms: Mapping[int, _Form]) -> LineBlock:
    """One line. Raises LineError for one that cannot be read."""
    fields = _BLANKS.split(decode(raw, where).strip(" \t\r\n"))
    form = forms.get(len(fields))
    if form is None:
        expected = " or ".join(f"{count} columns {form.names}" for count, form in forms.items())
        raise LineError(where, "malformed line", f"expected {expected}, got {len(fields)}")
    numbers = []
    for column, (name, kind) in form.numbers.items():
        try:
            numbers.append(_numbers([fields[column]], kind))
        except ValueError:
            expected = f"{name} must be a {'whole' if kind is int else 'finite'} number"
            raise LineError(where, "malformed line", f"{expected}, got {fields[column]!r}") from None
    return LineBlock(first=number, ids=([fields[0]], [fields[form.doc_id]]), numbers=numbers)


def _numbers(texts: Sequence[str], kind: type) -> list[Any]:
    """The numbers that texts stand for. Raises ValueError for one that is none, or not finite."""
    try:
        numbers = list(map(kind, texts))
    except ValueError:  # whole numbers as pandas writes them where others are absent: 1.0
        numbers = [float(text) for text in texts]
        if kind is not int or not all(map(float.is_integer, numbers)):
            raise
        numbers = list(map(int, numbers))
    if kind is float and not all(map(math.isfinite, numbers)):
        raise ValueError("not finite")
    return numbers


def _columns_of_header(raw: bytes) -> int:
    """The number of columns that a line of judgements names; 0 where it is no header."""
    try:
        names = _BLANKS.split(decode(raw, "").strip())
    except LineError:  # told of when the line is read
        return 0
    return len(names) if names[0].lower().replace("_", "-") == "query-id" else 0


def _refuse_unwritable(*ids: str) -> None:
    for item_id in ids:
        if fault := fault_of_id(item_id):
            raise InputError(fault)
