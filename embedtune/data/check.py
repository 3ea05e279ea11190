"""Finds every fault of a dataset folder, instead of stopping at the first."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..files import fingerprint_of
from ..types import Item, Qrels
from . import near
from .columns import ID_SHARE, looks_like_id
from .dataset import LAYOUT, splits_of
from .formats import folder_format, is_dataset_folder
from .images import faults_of, identity
from .jsonl import LineError, parse_item, read_blocks, read_lines, read_texts
from .source_folder import source_folder
from .trec import EXCLUDED, judgements

_ENTITY = re.compile(r"&(amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
PEEK = 100  # lines whose texts are looked at
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
    """The counts of what a dataset folder holds, its faults, and notes about what was not looked at."""

    folder: Path
    counts: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    near_queries: set[str] = field(default_factory=set)  # of train: nearly a query of another split
    similarity: float | None = None  # the one asked for

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


def check(folder: str | Path, similarity: float | None = None) -> FolderCheck:
    """Reads everything in a dataset folder and reports all faults, errors first.

    Errors: what `load_dataset` refuses, missing and broken images, and queries judged in both the train and another
    split. Warnings: empty and equal documents and queries, positives that the train split shares with another, queries
    without a positive, judgements given twice, and queries that are nearly one of train's queries or positives: of at
    least this similarity (see `near`). Without one, those are looked for up to near.MOST texts, where datasketch is
    installed. Raises InputError where there is no folder, and as `near` does where a similarity is given.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder; expected {LAYOUT} (other formats: `embedtune data convert`)")
    if not is_dataset_folder(root) and (layout := folder_format(source_folder(root))) is not None:
        raise InputError(
            f"{folder}: has the files of {layout.name}; check the folder that `embedtune data convert {folder} "
            "--output DIR` writes"
        )
    report = FolderCheck(folder=root, similarity=similarity)
    documents = _check_items(root, "corpus", "documents", report)
    queries = _check_items(root, "queries", "queries", report)
    splits = {split: _check_split(root, split, queries, documents, report) for split in splits_of(root)}
    if not splits:
        report.add("error", "no judgements", "qrels", [f"{root / 'qrels'}: no <split>.tsv"])
    _check_excluded(root, splits, queries, documents, report)
    judged = set().union(*splits.values())
    unjudged = (query_id for query_id in queries if query_id not in judged)
    report.add("warning", "query without judgement", "queries.jsonl", (f"query {q!r} is in no split" for q in unjudged))
    for split in splits:
        if split != "train" and "train" in splits:
            _check_overlap(split, splits[split], splits["train"], report)
            _check_near(split, splits[split], splits["train"], report)
    report.faults.sort(key=lambda fault: fault.severity)
    return report


def _check_items(root: Path, name: str, noun: str, report: FolderCheck) -> Collection[str]:
    """Checks corpus.jsonl or queries.jsonl and returns its ids."""
    file = f"{name}.jsonl"
    scan = _Scan(path=root / file)
    try:
        scan.read()
        equal = _equal(scan.path, scan.alike)
    except InputError as error:
        report.add("error", "missing file", file, [str(error)])
        return scan.line_of
    report.counts[noun] = len(scan.line_of)
    report.add_lines(file, scan.faults)
    report.add("error", f"no {noun}", file, [] if scan.line_of else [f"{root / file}: no {noun}"])
    _check_images(file, scan.images, report)
    report.add("warning", f"empty {noun}", file, scan.empty)
    report.add("warning", f"equal {noun}", file, equal)
    report.add("warning", "damaged text", file, scan.damaged)
    report.add("warning", "HTML entities", file, scan.escaped)
    report.add("warning", f"{noun} like ids", file, _like_ids(scan.path, noun))
    return scan.line_of


def _like_ids(path: Path, noun: str) -> Iterator[str]:
    """A sentence where nearly all of the first texts look like ids or URLs: perhaps the texts stand elsewhere."""
    texts: list[str] = []
    for number, raw in islice(read_lines(path), PEEK):
        with suppress(LineError):
            texts.append(parse_item(raw, f"{path}:{number}", path.parent).content)
    alike = [text for text in texts if looks_like_id(text)]
    if alike and len(alike) >= ID_SHARE * len(texts):
        flag = "--corpus" if noun == "documents" else "--query-file"
        yield (
            f"{path}: {len(alike)} of the first {len(texts)} texts look like ids or URLs, such as {alike[0]!r}; "
            f"`embedtune data convert {flag}` reads the file of their texts"
        )


@dataclass(kw_only=True)
class _Scan:
    """What one reading of a .jsonl file of items finds. The lists hold sentences.

    line_of: id -> line. images: a sentence with line and id -> the image that the line names. alike: the lines whose
    contents begin and end with the same words as another one's.
    """

    path: Path
    line_of: dict[str, int] = field(default_factory=dict)
    faults: list[LineError] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    escaped: list[str] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)
    alike: set[int] = field(default_factory=set)

    def read(self) -> None:
        first_of: dict[int, int] = {}  # the words at both ends of a content -> the first line that has them
        for first, lines in read_blocks(self.path):
            for number, item_id, content, image in self._items(first, lines):
                if image is None and not content.strip():
                    self.empty.append(f"{self.path}:{number}: {item_id!r} has no text and no image")
                elif (earlier := first_of.setdefault(_ends(content), number)) != number:
                    self.alike |= {earlier, number}
                if "&" in content and (entity := _ENTITY.search(content)):
                    self.escaped.append(f"{self.path}:{number}: {item_id!r} holds {entity[0]!r}, as HTML writes it")
                if "\N{REPLACEMENT CHARACTER}" in content:
                    sentence = f"{self.path}:{number}: {item_id!r} holds U+FFFD, left by an earlier decoding error"
                    self.damaged.append(sentence)
                if image is not None:
                    name = image.relative_to(self.path.parent)
                    self.images[f"{self.path}:{number}: {item_id!r} names {name}"] = image

    def _items(self, first: int, lines: list[bytes]) -> Iterable[tuple[int, str, str, Path | None]]:
        """(number, id, content, image) of the lines that hold an item with an id of its own."""
        texts, numbers = read_texts(lines), range(first, first + len(lines))
        if texts is None or not self.line_of.keys().isdisjoint(texts.ids):
            return filter(None, map(self._item, numbers, lines))
        self.line_of.update(zip(texts.ids, numbers, strict=True))
        return zip(numbers, texts.ids, texts.contents, repeat(None))

    def _item(self, number: int, raw: bytes) -> tuple[int, str, str, Path | None] | None:
        where = f"{self.path}:{number}"
        if not raw.strip():
            return None
        try:
            item = parse_item(raw, where, self.path.parent)
            if item.id in self.line_of:
                raise LineError(where, "duplicate id", f"_id {item.id!r} is also on line {self.line_of[item.id]}")
        except LineError as fault:
            self.faults.append(fault)
            return None
        self.line_of[item.id] = number
        return number, item.id, item.content, item.image


def _ends(content: str) -> int:
    """Equal for texts that differ only in case and white space, and for some others."""
    return hash(" ".join((*content.split(None, 3)[:3], *content.rsplit(None, 3)[-3:])).casefold())


def _equal(path: Path, alike: Collection[int]) -> list[str]:
    """A sentence for each of these lines that has the content of an earlier one."""
    first_of: dict[str, str] = {}  # fingerprint of content -> the first id that has it
    sentences = []
    for number, raw in read_lines(path) if alike else ():
        if number in alike:
            item = parse_item(raw, f"{path}:{number}", path.parent)
            if (first := first_of.setdefault(content_key(item), item.id)) != item.id:
                sentences.append(f"{path}:{number}: {item.id!r} is the same as {first!r}")
    return sentences


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


def content_key(item: Item) -> str:
    """Equal for items whose texts differ only in case and white space and whose images are the same bytes."""
    image = "" if item.image is None else identity(item.image) if item.image.is_file() else str(item.image)
    return fingerprint_of(" ".join(item.content.casefold().split()), image, item.instruction or "")


def _check_split(
    root: Path, split: str, queries: Collection[str], documents: Collection[str], report: FolderCheck
) -> Qrels:
    file = f"qrels/{split}.tsv"
    path = root / file
    lines: list[LineError] = []
    qrels: Qrels = {}
    lost_queries: dict[str, str] = {}
    lost_documents: dict[str, str] = {}
    repeated = []
    for number, query_id, doc_id, relevance in judgements(path, lines.append):
        if query_id not in queries:
            lost_queries.setdefault(query_id, f"{path}:{number}: query {query_id!r} is not in queries.jsonl")
        if doc_id not in documents:
            lost_documents.setdefault(doc_id, f"{path}:{number}: document {doc_id!r} is not in corpus.jsonl")
        judged = qrels.setdefault(query_id, {})
        if doc_id not in judged:
            judged[doc_id] = relevance
        elif judged[doc_id] == relevance:
            repeated.append(f"{path}:{number}: document {doc_id!r} is judged again for query {query_id!r}")
        else:
            message = f"document {doc_id!r} is judged {judged[doc_id]} and {relevance} for query {query_id!r}"
            lines.append(LineError(f"{path}:{number}", "contradiction", message))
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
        report.add("error", "no positive", file, [f"{path}: no judgement is above 0"])
    else:
        report.add("warning", "query without positive", file, (f"query {q!r} has no positive" for q in without))
    report.add("warning", "judged twice", file, repeated)
    return qrels


def _check_excluded(
    root: Path,
    splits: Mapping[str, Qrels],
    queries: Collection[str],
    documents: Collection[str],
    report: FolderCheck,
) -> None:
    """Checks the documents that are never ranked for a query."""
    path = root / EXCLUDED
    lines: list[LineError] = []
    absent, positives = [], []
    for number, query_id, doc_id, _ in judgements(path, lines.append) if path.exists() else ():
        if query_id not in queries or doc_id not in documents:
            absent.append(f"{path}:{number}: query {query_id!r} or document {doc_id!r} is absent")
        in_splits = [split for split, qrels in splits.items() if qrels.get(query_id, {}).get(doc_id, 0) > 0]
        if in_splits:
            positives.append(f"{path}:{number}: document {doc_id!r} is a positive of {query_id!r} in {in_splits[0]}")
    report.add_lines(EXCLUDED, lines)
    report.add("warning", "absent excluded", EXCLUDED, absent)
    report.add("warning", "excluded positive", EXCLUDED, positives)


def _check_overlap(split: str, qrels: Qrels, train: Qrels, report: FolderCheck) -> None:
    file = f"qrels/{split}.tsv"
    shared = [query_id for query_id in qrels if query_id in train]
    report.add("error", "query in two splits", file, (f"query {q!r} is judged in train as well" for q in shared))
    of_train = positives_of(train)
    both = (f"document {d!r} is a positive of train as well" for d in positives_of(qrels) if d in of_train)
    report.add("warning", "positive in two splits", file, both)


def _check_near(split: str, qrels: Qrels, train: Qrels, report: FolderCheck) -> None:
    root, similarity, positives = report.folder, report.similarity, positives_of(train)
    texts = len(qrels) + len(train) + len(positives)
    if similarity is None and (texts > near.MOST or not near.is_installed()):
        why = f"{texts:,} texts" if texts > near.MOST else "pip install 'embedtune[near-duplicates]'"
        report.notes.append(f"{split}: near-duplicates in train were not looked for ({why}; then --similarity 0.8)")
        return
    contents = _contents(root / "queries.jsonl", qrels.keys() | train.keys())
    asked = {query_id: contents[query_id] for query_id in qrels if query_id in contents and query_id not in train}
    of_train = {query_id: contents[query_id] for query_id in train if query_id in contents}
    others = (("query", of_train), ("positive", _contents(root / "corpus.jsonl", positives)))
    for noun, texts_of_train in others:
        pairs = near.near(asked, texts_of_train, similarity if similarity is not None else near.THRESHOLD)
        sentences = (
            f"query {pair.item_id!r} is nearly train's {noun} {pair.other_id!r} ({pair.similarity:.2f}): "
            f"{asked[pair.item_id][:80]!r}, {texts_of_train[pair.other_id][:80]!r}"
            for pair in pairs
        )
        if noun == "query":
            report.near_queries |= {pair.other_id for pair in pairs}
        report.add("warning", f"near-duplicate of a {noun}", f"qrels/{split}.tsv", sentences)


def _contents(path: Path, ids: Collection[str]) -> dict[str, str]:
    """id -> content of the items with these ids, as far as their lines can be read."""
    contents: dict[str, str] = {}
    for number, raw in read_lines(path) if path.exists() else ():
        try:
            item = parse_item(raw, f"{path}:{number}", path.parent)
        except LineError:  # told of by the check of the file
            continue
        if item.id in ids:
            contents.setdefault(item.id, item.content)
    return contents


def positives_of(qrels: Qrels) -> dict[str, None]:
    """The documents that are a positive of some query, in order."""
    return {doc_id: None for judged in qrels.values() for doc_id, relevance in judged.items() if relevance > 0}
