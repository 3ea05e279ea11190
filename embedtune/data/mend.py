"""Mends a dataset folder as far as no person has to decide. The result is always another folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..files import FolderKind, check_folder, refuse_source, whole_folder
from ..types import Qrels, Run
from .check import FolderCheck, check, content_key
from .dataset import splits_of
from .images import faults_of
from .jsonl import LineError, parse_item, read_lines
from .trec import EXCLUDED, judgements, read_run, tag_of_run, write_excluded, write_qrels, write_run

MENDED = FolderKind(verb="data check")
_LINE = "the line is left out"
_ITEM = "left out, with the judgements"
_FIRST = "the first judgement stays"
_MENDINGS = {
    "encoding": _LINE,
    "malformed line": _LINE,
    "missing id": _LINE,
    "wrong type": _LINE,
    "unusable id": _LINE,
    "image outside": _LINE,
    "duplicate id": "the first line stays",
    "missing image": _ITEM,
    "broken image": _ITEM,
    "empty documents": _ITEM,
    "empty queries": _ITEM,
    "equal documents": "the first stays and gets the judgements of all",
    "equal queries": "the first stays and gets the judgements of all",
    "absent query": "the judgements are left out",
    "absent document": "the judgements are left out",
    "absent excluded": "the lines are left out",
    "contradiction": _FIRST,
    "judged twice": _FIRST,
    "query in two splits": "left out of train",
    "near-duplicate of a query": "train's query is left out of train",
}


def mending_of(kind: str) -> str:
    """What `mend` does about a kind of fault, in words."""
    return _MENDINGS.get(kind, "stays as it is")


def mend(report: FolderCheck, output: Path, *, overwrite: bool = False) -> FolderCheck:
    """Writes the mended folder and returns its own check. Texts and the rest of each line stay byte by byte.

    Raises InputError for an output that may not be written, a missing file, and where errors would be left.
    """
    folder = report.folder
    check_folder(output, MENDED, overwrite=overwrite)
    refuse_source(output, folder)
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{output}: lies inside {folder}; choose a folder beside it")
    sets = {name: _kept(folder / f"{name}.jsonl") for name in ("corpus", "queries")}
    qrels = {split: _qrels(folder / "qrels" / f"{split}.tsv", sets) for split in splits_of(folder)}
    if "train" in qrels:
        leaks = report.near_queries.union(*(judged for split, judged in qrels.items() if split != "train"))
        qrels["train"] = {q: judged for q, judged in qrels["train"].items() if q not in leaks}
    with whole_folder(output, MENDED, overwrite=overwrite) as temporary:
        for name, kept in sets.items():
            _copy(folder, temporary, f"{name}.jsonl", kept)
        for split, judged in qrels.items():
            if judged:
                write_qrels(temporary / "qrels" / f"{split}.tsv", judged)
        _write_pairs(folder, temporary, sets)
        mended = check(temporary, report.similarity)
        if mended.errors:
            remaining = next(fault for fault in mended.faults if fault.severity == "error")
            raise InputError(f"{folder}: cannot be mended: {remaining.where[0].replace(str(temporary), str(output))}")
    return mended


@dataclass(kw_only=True)
class _Kept:
    """The items of a file that stay. lines: the numbers of their lines. same: id -> the id that stands for it now."""

    lines: set[int] = field(default_factory=set)
    same: dict[str, str] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)


def _kept(path: Path) -> _Kept:
    kept = _Kept()
    first_of: dict[str, str] = {}  # key of the content -> the first id that has it
    for number, raw in read_lines(path):
        try:
            item = parse_item(raw, f"{path}:{number}", path.parent)
        except LineError:
            continue
        if item.image is not None and (not item.image.is_file() or faults_of([item.image])[0] is not None):
            continue
        if item.id in kept.same or not (item.content.strip() or item.image):
            continue
        kept.same[item.id] = first_of.setdefault(content_key(item), item.id)
        if kept.same[item.id] == item.id:
            kept.lines.add(number)
            kept.images += [item.image] if item.image is not None else []
    return kept


def _qrels(path: Path, sets: Mapping[str, _Kept]) -> Qrels:
    """The first judgement of each pair; of pairs that are equal the highest, so that no positive is lost."""
    queries, documents = sets["queries"].same, sets["corpus"].same
    qrels: Qrels = {}
    judged: set[tuple[str, str]] = set()
    for _, query_id, doc_id, relevance in judgements(path, lambda fault: None):
        if query_id in queries and doc_id in documents and (query_id, doc_id) not in judged:
            judged.add((query_id, doc_id))
            of_query = qrels.setdefault(queries[query_id], {})
            of_query[documents[doc_id]] = max(relevance, of_query.get(documents[doc_id], relevance))
    return qrels


def _copy(folder: Path, target: Path, name: str, kept: _Kept) -> None:
    """Copies the lines that stay, and their images."""
    with (target / name).open("wb") as file:
        for number, raw in read_lines(folder / name):
            if number in kept.lines:
                file.write(raw.rstrip(b"\r\n") + b"\n")
    for image in dict.fromkeys(kept.images):
        copied = target / image.relative_to(folder)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, copied)


def _write_pairs(folder: Path, target: Path, sets: Mapping[str, _Kept]) -> None:
    """Writes what else names queries and documents: the documents never ranked for a query, and given negatives."""
    queries, documents = sets["queries"].same, sets["corpus"].same
    if (folder / EXCLUDED).exists():
        lines = judgements(folder / EXCLUDED, lambda fault: None)
        pairs = {(queries.get(query_id), documents.get(doc_id)) for _, query_id, doc_id, _ in lines}
        write_excluded(target / EXCLUDED, sorted((q, d) for q, d in pairs if q is not None and d is not None))
    for file in sorted((folder / "negatives").glob("*.run")):
        run: Run = {}
        for query_id, scores in read_run(file).items():
            for doc_id, score in scores.items():
                if query_id in queries and doc_id in documents:
                    run.setdefault(queries[query_id], {}).setdefault(documents[doc_id], score)
        write_run(target / "negatives" / file.name, run, tag_of_run(file) or "given")
