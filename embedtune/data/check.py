"""Finds every fault of a dataset folder, instead of stopping at the first."""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import compress, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import fingerprint_of
from ..types import Item, Qrels
from . import near
from .columns import ID_SHARE, looks_like_id
from .dataset import LAYOUT, splits_of
from .formats import folder_format, is_dataset_folder
from .ids import Numbers, among, first_rows, numbers_of, repeated
from .images import faults_of, identity
from .jsonl import LineError, parse_item, read_blocks, read_lines, read_texts
from .source_folder import source_folder
from .trec import EXCLUDED, judgement_blocks, judgements

_ENTITY = re.compile(r"&(amp|lt|gt|quot|apos|nbsp|#\d{2,5}|#x[0-9a-fA-F]{2,4});")
PEEK = 100  # lines whose texts are looked at
_DAMAGE = "\N{REPLACEMENT CHARACTER}"
_FOLDING = 0x20000  # no character from here on has a case or is white space
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
    known = _Known(documents=documents, queries=_check_items(root, "queries", "queries", report))
    splits = {split: _check_split(root, split, known, report) for split in splits_of(root)}
    if not splits:
        report.add("error", "no judgements", "qrels", [f"{root / 'qrels'}: no <split>.tsv"])
    _check_excluded(root, splits, known, report)
    judged = np.concatenate([_no_numbers(), *(split.queries for split in splits.values())])
    unjudged = compress(known.queries, (~among(known.query_numbers, judged)).tolist())
    report.add("warning", "query without judgement", "queries.jsonl", (f"query {q!r} is in no split" for q in unjudged))
    for split in splits:
        if split != "train" and "train" in splits:
            _check_overlap(split, splits[split], splits["train"], report)
            _check_near(split, splits[split], splits["train"], report)
    report.faults.sort(key=lambda fault: fault.severity)
    return report


def _check_items(root: Path, name: str, noun: str, report: FolderCheck) -> list[str]:
    """Checks corpus.jsonl or queries.jsonl and returns its ids."""
    file = f"{name}.jsonl"
    scan = _Scan(path=root / file)
    try:
        scan.read()
        equal = _equal(scan.path, scan.alike)
    except InputError as error:
        report.add("error", "missing file", file, [str(error)])
        return scan.ids
    report.counts[noun] = len(scan.ids)
    report.add_lines(file, [fault for _, fault in scan.faults])
    report.add("error", f"no {noun}", file, [] if scan.ids else [f"{root / file}: no {noun}"])
    _check_images(file, dict(image for _, image in scan.images), report)
    report.add("warning", f"empty {noun}", file, (sentence for _, sentence in scan.empty))
    report.add("warning", f"equal {noun}", file, equal)
    report.add("warning", "damaged text", file, (sentence for _, sentence in scan.damaged))
    report.add("warning", "HTML entities", file, (sentence for _, sentence in scan.escaped))
    report.add("warning", f"{noun} like ids", file, _like_ids(scan.path, noun))
    return scan.ids


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


def _no_numbers() -> Numbers:
    return np.zeros(0, np.int64)


@dataclass(kw_only=True)
class _Scan:
    """What one reading of a .jsonl file of items finds, and the line of each finding.

    ids, lines, keys: of every item with an id of its own, a column each; the keys are those of `_keys`. images: a
    sentence with line and id, and the image that the line names. The other lists hold sentences.
    """

    path: Path
    ids: list[str] = field(default_factory=list)
    lines: Numbers = field(default_factory=_no_numbers)
    keys: Numbers = field(default_factory=_no_numbers)
    faults: list[tuple[int, LineError]] = field(default_factory=list)
    empty: list[tuple[int, str]] = field(default_factory=list)
    damaged: list[tuple[int, str]] = field(default_factory=list)
    escaped: list[tuple[int, str]] = field(default_factory=list)
    images: list[tuple[int, tuple[str, Path]]] = field(default_factory=list)

    def read(self) -> None:
        lines_of_items, keys = array("q"), [_no_numbers()]
        for first, lines in read_blocks(self.path):
            texts, numbers = read_texts(lines), range(first, first + len(lines))
            if texts is not None:
                self._note(numbers, texts.ids, texts.contents)
                lines_of_items.extend(numbers)
                self.ids += texts.ids
                keys.append(_keys(texts.contents))
                continue
            items = list(map(self._item, numbers, lines))
            lines_of_items.extend(compress(numbers, items))
            self.ids += [item.id for item in items if item]
            keys.append(_keys([item.content for item in items if item]))
        self.lines, self.keys = np.array(lines_of_items, np.int64), np.concatenate(keys)
        self._drop_repeated()

    def _note(self, numbers: Sequence[int], ids: Sequence[str], contents: Sequence[str]) -> None:
        """Keeps a sentence for each text that is empty, damaged or escaped."""
        if not all(map(str.strip, contents)):
            items = zip(numbers, ids, contents, strict=True)
            self.empty += [
                (n, f"{self.path}:{n}: {i!r} has no text and no image") for n, i, c in items if not c.strip()
            ]
        text = "".join(contents)
        if "&" in text:
            entities = zip(numbers, ids, map(_ENTITY.search, contents), strict=True)
            self.escaped += [
                (n, f"{self.path}:{n}: {i!r} holds {e[0]!r}, as HTML writes it") for n, i, e in entities if e
            ]
        if _DAMAGE in text:
            items = zip(numbers, ids, contents, strict=True)
            why = "holds U+FFFD, left by an earlier decoding error"
            self.damaged += [(n, f"{self.path}:{n}: {i!r} {why}") for n, i, c in items if _DAMAGE in c]

    def _item(self, number: int, raw: bytes) -> Item | None:
        where = f"{self.path}:{number}"
        if not raw.strip():
            return None
        try:
            item = parse_item(raw, where, self.path.parent)
        except LineError as fault:
            self.faults.append((number, fault))
            return None
        if item.image is not None:
            sentence = f"{where}: {item.id!r} names {item.image.relative_to(self.path.parent)}"
            self.images.append((number, (sentence, item.image)))
        pictured = item.image is not None and not item.content.strip()
        self._note([number], [item.id], ["image" if pictured else item.content])
        return item

    def _drop_repeated(self) -> None:
        """Leaves out the items whose id an earlier one has; they are faults."""
        numbers = numbers_of(self.ids)
        again = among(numbers, repeated(numbers))
        if not again.any():
            return
        line_of: dict[str, int] = {}
        dropped = set()
        for row in np.flatnonzero(again).tolist():
            item_id, line = self.ids[row], int(self.lines[row])
            if (earlier := line_of.setdefault(item_id, line)) != line:
                dropped.add(line)
                message = f"_id {item_id!r} is also on line {earlier}"
                self.faults.append((line, LineError(f"{self.path}:{line}", "duplicate id", message)))
        kept = ~among(self.lines, np.array([*dropped], np.int64))
        self.ids = list(compress(self.ids, kept.tolist()))
        self.lines, self.keys = self.lines[kept], self.keys[kept]
        self.faults.sort(key=lambda fault: fault[0])
        for findings in (self.empty, self.damaged, self.escaped):
            findings[:] = [finding for finding in findings if finding[0] not in dropped]
        self.images = [image for image in self.images if image[0] not in dropped]

    @property
    def alike(self) -> set[int]:
        """The lines whose contents have the key of another one's. Texts that are empty are none of them."""
        lines = self.lines[among(self.keys, repeated(self.keys))]
        return set(lines.tolist()) - {line for line, _ in self.empty}


def _keys(contents: Sequence[str]) -> Numbers:
    """A number for each text: equal for texts that differ only in case and white space or in their characters' order.

    The sum of a random number for each character, so that a block of texts is one array.
    """
    if not contents:
        return np.zeros(0, np.int64)
    characters = np.frombuffer(("\n".join(contents) + "\n").encode("utf-32-le"), dtype=np.int32)
    ends = np.cumsum(np.fromiter(map(len, contents), dtype=np.int64) + 1)
    return np.add.reduceat(_character_values().take(characters), np.concatenate(([0], ends[:-1])))


@cache
def _character_values() -> Numbers:
    """Code point -> a random number, 0 for white space, the sum of those of the characters that it folds to."""
    values = np.random.default_rng(0).integers(2**63, size=sys.maxunicode + 1)
    characters = map(chr, range(_FOLDING))
    folded = {one: many for one in characters if (many := "" if one.isspace() else one.casefold()) != one}
    values[list(map(ord, folded))] = [values[list(map(ord, many))].sum() for many in folded.values()]
    return values


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


@dataclass(frozen=True, kw_only=True)
class _Split:
    """The judgements of a split, one a row, and whether each is a positive. The numbers are those of `numbers_of`."""

    query_ids: list[str]
    doc_ids: list[str]
    queries: Numbers
    documents: Numbers
    positive: NDArray[np.bool_]

    @cached_property
    def rows(self) -> Numbers:
        """The first row of each query, in order."""
        return first_rows(self.queries)

    @cached_property
    def positives(self) -> Numbers:
        """The first row of each document that is a positive of some query, in order."""
        rows = np.flatnonzero(self.positive)
        return rows[first_rows(self.documents[rows])]

    def queries_in(self, rows: Numbers) -> list[str]:
        return [self.query_ids[row] for row in rows.tolist()]

    def documents_in(self, rows: Numbers) -> list[str]:
        return [self.doc_ids[row] for row in rows.tolist()]


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The ids of a folder, and their numbers."""

    queries: list[str]
    documents: list[str]

    @cached_property
    def query_numbers(self) -> Numbers:
        return numbers_of(self.queries)

    @cached_property
    def document_numbers(self) -> Numbers:
        return numbers_of(self.documents)


def _check_split(root: Path, split: str, known: _Known, report: FolderCheck) -> _Split:
    file = f"qrels/{split}.tsv"
    path = root / file
    judged, repeated = _sound(path, known), list[str]()
    if judged is None:
        judged, repeated = _check_judgements(root, file, known, report)
    report.counts[f"{split}: queries"] = len(judged.rows)
    report.counts[f"{split}: judgements"] = len(judged.queries)
    report.counts[f"{split}: positives"] = int(judged.positive.sum())
    if not judged.positive.any():
        report.add("error", "no positive", file, [f"{path}: no judgement is above 0"])
    elif not judged.positive.all():
        without = ~among(judged.queries[judged.rows], judged.queries[judged.positive])
        sentences = (f"query {q!r} has no positive" for q in judged.queries_in(judged.rows[without]))
        report.add("warning", "query without positive", file, sentences)
    report.add("warning", "judged twice", file, repeated)
    return judged


def _sound(path: Path, known: _Known) -> _Split | None:
    """The judgements of a file in which there is nothing to tell of; None for any other."""
    query_ids: list[str] = []
    doc_ids: list[str] = []
    positive = array("b")
    try:
        for block in judgement_blocks(path):
            query_ids += block.ids[0]
            doc_ids += block.ids[1]
            positive.extend(relevance > 0 for relevance in block.numbers[0])
    except LineError:
        return None
    split = _numbered(query_ids, doc_ids, positive)
    sound = (
        not len(repeated(split.queries * 31 + split.documents))
        and among(split.queries, known.query_numbers).all()
        and among(split.documents, known.document_numbers).all()
    )
    return split if sound else None


def _numbered(query_ids: list[str], doc_ids: list[str], positive: Sequence[int]) -> _Split:
    return _Split(
        query_ids=query_ids,
        doc_ids=doc_ids,
        queries=numbers_of(query_ids),
        documents=numbers_of(doc_ids),
        positive=np.array(positive, np.bool_),
    )


def _check_judgements(root: Path, file: str, known: _Known, report: FolderCheck) -> tuple[_Split, list[str]]:
    """The judgements of a file that has faults, which it reports, and a sentence for each that is given again."""
    path, queries, documents = root / file, set(known.queries), set(known.documents)
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
    report.add_lines(file, lines)
    report.add("error", "absent query", file, lost_queries.values())
    report.add("error", "absent document", file, lost_documents.values())
    query_ids = [query_id for query_id, judged in qrels.items() for _ in judged]
    doc_ids = [doc_id for judged in qrels.values() for doc_id in judged]
    positive = [relevance > 0 for judged in qrels.values() for relevance in judged.values()]
    split = _numbered(query_ids, doc_ids, positive)
    return split, repeated


def _check_excluded(root: Path, splits: Mapping[str, _Split], known: _Known, report: FolderCheck) -> None:
    """Checks the documents that are never ranked for a query."""
    path = root / EXCLUDED
    if not path.exists():
        return
    lines: list[LineError] = []
    excluded = [(number, (query_id, doc_id)) for number, query_id, doc_id, _ in judgements(path, lines.append)]
    queries, documents = set(known.queries), set(known.documents)
    absent = [
        f"{path}:{number}: query {query_id!r} or document {doc_id!r} is absent"
        for number, (query_id, doc_id) in excluded
        if query_id not in queries or doc_id not in documents
    ]
    pairs = {pair for _, pair in excluded}
    split_of: dict[tuple[str, str], str] = {}
    for split, judged in splits.items():
        for pair in compress(zip(judged.query_ids, judged.doc_ids, strict=True), judged.positive.tolist()):
            if pair in pairs:
                split_of.setdefault(pair, split)
    positives = (
        f"{path}:{number}: document {pair[1]!r} is a positive of {pair[0]!r} in {split_of[pair]}"
        for number, pair in excluded
        if pair in split_of
    )
    report.add_lines(EXCLUDED, lines)
    report.add("warning", "absent excluded", EXCLUDED, absent)
    report.add("warning", "excluded positive", EXCLUDED, positives)


def _check_overlap(split: str, judged: _Split, train: _Split, report: FolderCheck) -> None:
    file = f"qrels/{split}.tsv"
    shared = judged.rows[among(judged.queries[judged.rows], train.queries)]
    sentences = (f"query {q!r} is judged in train as well" for q in judged.queries_in(shared))
    report.add("error", "query in two splits", file, sentences)
    both = judged.positives[among(judged.documents[judged.positives], train.documents[train.positives])]
    sentences = (f"document {d!r} is a positive of train as well" for d in judged.documents_in(both))
    report.add("warning", "positive in two splits", file, sentences)


def _check_near(split: str, judged: _Split, train: _Split, report: FolderCheck) -> None:
    root, similarity = report.folder, report.similarity
    texts = len(judged.rows) + len(train.rows) + len(train.positives)
    if similarity is None and (texts > near.MOST or not near.is_installed()):
        why = f"{texts:,} texts" if texts > near.MOST else "pip install 'embedtune[near-duplicates]'"
        report.notes.append(f"{split}: near-duplicates in train were not looked for ({why}; then --similarity 0.8)")
        return
    contents = _contents(root / "queries.jsonl", {*judged.query_ids, *train.query_ids})
    of_train = {query_id: contents[query_id] for query_id in train.queries_in(train.rows) if query_id in contents}
    read = (query_id for query_id in judged.queries_in(judged.rows) if query_id in contents)
    asked = {query_id: contents[query_id] for query_id in read if query_id not in of_train}
    positives = _contents(root / "corpus.jsonl", set(train.documents_in(train.positives)))
    for noun, texts_of_train in (("query", of_train), ("positive", positives)):
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
