"""Finds every fault of a dataset folder, instead of stopping at the first."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..files import fingerprint_of
from ..types import Item, Qrels
from .dataset import LAYOUT, splits_of
from .images import faults_of, identity
from .jsonl import LineError, parse_item, read_lines
from .trec import judgements

Severity = Literal["error", "warning"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault in one file, with every line that has it."""

    severity: Severity
    kind: str
    file: str
    where: tuple[str, ...]  # one sentence each, in the file's order

    @property
    def count(self) -> int:
        return len(self.where)


@dataclass(kw_only=True)
class FolderCheck:
    """The counts of what a dataset folder holds, and its faults."""

    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def add(self, severity: Severity, kind: str, file: str, where: Iterable[str]) -> None:
        if sentences := tuple(where):
            self.faults.append(Fault(severity=severity, kind=kind, file=file, where=sentences))

    def add_lines(self, file: str, lines: list[LineError]) -> None:
        for kind in dict.fromkeys(line.kind for line in lines):
            self.add("error", kind, file, (str(line) for line in lines if line.kind == kind))

    @property
    def errors(self) -> int:
        """How many faults make the folder unusable as it is."""
        return sum(fault.count for fault in self.faults if fault.severity == "error")


def check(folder: str | Path) -> FolderCheck:
    """Reads everything in a dataset folder and reports all faults, errors first.

    Errors: what `load_dataset` refuses, missing and broken images, and queries judged in both the train and another
    split. Warnings: empty and equal documents and queries, positives that the train split shares with another, queries
    without a positive, judgements given twice. Raises InputError only where there is no folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; expected {LAYOUT} (other formats: `embedtune data convert`)")
    report = FolderCheck(folder=root)
    documents = _check_items(root, "corpus", "documents", report)
    queries = _check_items(root, "queries", "queries", report)
    splits = {split: _check_split(root, split, queries, documents, report) for split in splits_of(root)}
    if not splits:
        report.add("error", "no judgements", "qrels", [f"{root / 'qrels'}: no <split>.tsv"])
    unjudged = (query_id for query_id in queries if not any(query_id in qrels for qrels in splits.values()))
    report.add("warning", "query without judgement", "queries.jsonl", (f"query {q!r} is in no split" for q in unjudged))
    for split in splits:
        if split != "train" and "train" in splits:
            _check_overlap(split, splits[split], splits["train"], report)
    report.faults.sort(key=lambda fault: fault.severity)
    return report


def _check_items(root: Path, name: str, noun: str, report: FolderCheck) -> Collection[str]:
    """Checks corpus.jsonl or queries.jsonl and returns its ids."""
    file = f"{name}.jsonl"
    lines: list[LineError] = []
    line_of: dict[str, int] = {}  # id -> line
    contents: dict[str, str] = {}  # fingerprint of content -> the first id that has it
    images: dict[str, Path] = {}  # where -> its image
    empty, equal, damaged = [], [], []
    try:
        for number, raw in read_lines(root / file):
            where = f"{root / file}:{number}"
            if not raw.strip():
                continue
            try:
                item = parse_item(raw, where, root)
                if item.id in line_of:
                    raise LineError(where, "duplicate id", f"_id {item.id!r} is also on line {line_of[item.id]}")
            except LineError as fault:
                lines.append(fault)
                continue
            line_of[item.id] = number
            if not item.content.strip() and not item.image:
                empty.append(f"{where}: {item.id!r} has no text and no image")
            elif (first := contents.setdefault(_content(item), item.id)) != item.id:
                equal.append(f"{where}: {item.id!r} is the same as {first!r}")
            if "\N{REPLACEMENT CHARACTER}" in item.content:
                damaged.append(f"{where}: {item.id!r} holds U+FFFD, left by an earlier decoding error")
            if item.image:
                images[f"{where}: {item.id!r} names {item.image.relative_to(root)}"] = item.image
    except InputError as error:
        report.add("error", "missing file", file, [str(error)])
        return line_of
    report.counts[noun] = len(line_of)
    report.add_lines(file, lines)
    report.add("error", f"no {noun}", file, [] if line_of else [f"{root / file}: no {noun}"])
    _check_images(file, images, report)
    report.add("warning", f"empty {noun}", file, empty)
    report.add("warning", f"equal {noun}", file, equal)
    report.add("warning", "damaged text", file, damaged)
    return line_of


def _check_images(file: str, images: dict[str, Path], report: FolderCheck) -> None:
    """images: a sentence with line and id -> the image that the line names. Every image is decoded."""
    present = {where: image for where, image in images.items() if image.is_file()}
    report.add(
        "error", "missing image", file, (f"{where}, which is absent" for where in images if where not in present)
    )
    reasons = zip(present, faults_of(list(present.values())), strict=True)
    report.add("error", "broken image", file, (f"{where}: {reason}" for where, reason in reasons if reason is not None))
    if images:
        report.counts["images"] = report.counts.get("images", 0) + len(images)


def _content(item: Item) -> str:
    """Equal for items whose texts differ only in case and white space and whose images are the same bytes."""
    image = "" if item.image is None else identity(item.image) if item.image.is_file() else str(item.image)
    return fingerprint_of(" ".join(item.content.casefold().split()), image, item.instruction or "")


def _check_split(
    root: Path, split: str, queries: Collection[str], documents: Collection[str], report: FolderCheck
) -> Qrels:
    file = f"qrels/{split}.tsv"
    lines: list[LineError] = []
    qrels: Qrels = {}
    lost_queries: dict[str, str] = {}
    lost_documents: dict[str, str] = {}
    repeated = []
    for where, query_id, doc_id, relevance in judgements(root / file, lines.append):
        if query_id not in queries:
            lost_queries.setdefault(query_id, f"{where}: query {query_id!r} is not in queries.jsonl")
        if doc_id not in documents:
            lost_documents.setdefault(doc_id, f"{where}: document {doc_id!r} is not in corpus.jsonl")
        judged = qrels.setdefault(query_id, {})
        if doc_id not in judged:
            judged[doc_id] = relevance
        elif judged[doc_id] == relevance:
            repeated.append(f"{where}: document {doc_id!r} is judged again for query {query_id!r}")
        else:
            message = f"document {doc_id!r} is judged {judged[doc_id]} and {relevance} for query {query_id!r}"
            lines.append(LineError(where, "contradiction", message))
    without = [q for q, judged in qrels.items() if max(judged.values()) <= 0]
    report.counts[f"{split}: queries"] = len(qrels)
    report.counts[f"{split}: judgements"] = sum(map(len, qrels.values()))
    report.counts[f"{split}: positives"] = sum(
        relevance > 0 for judged in qrels.values() for relevance in judged.values()
    )
    report.add_lines(file, lines)
    report.add("error", "absent query", file, lost_queries.values())
    report.add("error", "absent document", file, lost_documents.values())
    if len(without) == len(qrels):
        report.add("error", "no positive", file, [f"{root / file}: no judgement is above 0"])
    else:
        report.add("warning", "query without positive", file, (f"query {q!r} has no positive" for q in without))
    report.add("warning", "judged twice", file, repeated)
    return qrels


def _check_overlap(split: str, qrels: Qrels, train: Qrels, report: FolderCheck) -> None:
    file = f"qrels/{split}.tsv"
    shared = [query_id for query_id in qrels if query_id in train]
    report.add("error", "query in two splits", file, (f"query {q!r} is judged in train as well" for q in shared))
    of_train = positives_of(train)
    both = (f"document {d!r} is a positive of train as well" for d in positives_of(qrels) if d in of_train)
    report.add("warning", "positive in two splits", file, both)


def positives_of(qrels: Qrels) -> dict[str, None]:
    """The documents that are a positive of some query, in order."""
    return {doc_id: None for judged in qrels.values() for doc_id, relevance in judged.items() if relevance > 0}
