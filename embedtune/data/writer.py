"""Builds a dataset folder item by item: equal ones become one, ids come from content where none is given."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ..files import fingerprint_of
from ..types import Item, Qrels, Run
from .columns import looks_like_id
from .contents import Contents
from .image_columns import ImageFiles
from .jsonl import LineError
from .records import LabelledQuery
from .trec import EXCLUDED, write_excluded, write_qrels, write_run


class _Written:
    """A .jsonl file while it is written. seen: id -> (fingerprint of the content, the row that it first came from).

    like_ids: the texts that look like ids or URLs.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.file: TextIO = path.open("w", encoding="utf-8")
        self.seen: dict[str, tuple[str, str]] = {}
        self.like_ids: list[str] = []

    def add(self, item: Item | str, where: str) -> str:
        """Writes the item unless the file holds it already, and returns its id. A string is an id already.

        Raises LineError for an id that the file holds with other content.
        """
        if isinstance(item, str):
            return item
        image = "" if item.image is None else str(item.image.relative_to(self.folder))  # named by its content
        content = fingerprint_of(item.title, item.text, item.instruction or "", *filter(None, [image]))
        item_id = item.id or content[:20]
        if item_id not in self.seen:
            self.seen[item_id] = (content, where)
            if looks_like_id(item.content):
                self.like_ids.append(item.content)
            fields = {"title": item.title, "text": item.text, "image": image, "instruction": item.instruction}
            line = {key: value for key, value in fields.items() if value or (key == "text" and not image)}
            self.file.write(json.dumps({"_id": item_id, **line}, ensure_ascii=False) + "\n")
        elif self.seen[item_id][0] != content:
            message = f"id {item_id!r} has other content than at {self.seen[item_id][1]}"
            raise LineError(where, "repeated id", message)
        return item_id


class FolderWriter:
    """A dataset folder being written. Use it in `with`: qrels and negatives are written at the end.

    images_beside: the folder of the source's image files; None where the source may name none.
    """

    def __init__(self, folder: Path, images_beside: Path | None = None) -> None:
        self.folder = folder
        self.images = ImageFiles(folder, images_beside)
        self.documents = _Written(folder / "corpus.jsonl")
        self.queries = _Written(folder / "queries.jsonl")
        self.qrels: dict[str, Qrels] = {}  # split -> judgements
        self.negatives: dict[str, dict[str, None]] = {}  # query_id -> doc_ids, in the order given
        self.contradicted = 0  # given negatives that are positives of the same query
        self.unanswered = 0  # queries with given negatives and without a positive
        self.negatives_written = 0  # given negatives that are written
        self.excluded: list[tuple[str, str]] = []  # (query_id, doc_id) that are never ranked
        self.teacher: Run = {}  # a teacher's scores of positives and negatives, where the source gives them

    def add(self, split: str, labelled: LabelledQuery) -> None:
        """Writes a query with its documents and judgements. Raises LineError before it judges anything."""
        positives = [self.documents.add(document, labelled.where) for document in labelled.positives]
        negatives = [self.documents.add(document, labelled.where) for document in labelled.negatives]
        query_id = self.queries.add(labelled.query, labelled.where)
        for doc_id, relevance in zip(positives, labelled.relevances or [1] * len(positives), strict=True):
            self.judge(split, query_id, doc_id, max(relevance, self._relevance(split, query_id, doc_id)))
        if negatives:
            self.negatives.setdefault(query_id, {}).update(dict.fromkeys(negatives))
        for doc_id, score in zip((*positives, *negatives), labelled.teacher, strict=False):
            if score is not None:
                self.teacher.setdefault(query_id, {})[doc_id] = score

    def write(self, contents: Contents) -> Counter[str]:
        """Writes a published dataset. Returns split -> judgements left out, because their query is absent."""
        for where, document in contents.documents:
            self.documents.add(document, where)
        for where, query in contents.queries:
            instruction = query.instruction or contents.instructions.get(query.id)
            self.queries.add(replace(query, instruction=instruction), where)
        absent: Counter[str] = Counter()
        for split, judged in contents.judgements.items():
            for where, query_id, doc_id, relevance in judged:
                if query_id not in self.queries.seen:
                    absent[split] += 1
                    continue
                before = self.qrels.get(split, {}).get(query_id, {}).get(doc_id, relevance)
                if before != relevance:
                    message = f"document {doc_id!r} is judged {before} and {relevance} for query {query_id!r}"
                    raise LineError(where, "contradiction", message)
                self.judge(split, query_id, doc_id, relevance)
        for query_id, doc_id in contents.negatives:
            if query_id in self.queries.seen and doc_id in self.documents.seen:
                self.negatives.setdefault(query_id, {})[doc_id] = None
        self.excluded += contents.excluded
        return absent

    def _relevance(self, split: str, query_id: str, doc_id: str) -> int:
        return self.qrels.get(split, {}).get(query_id, {}).get(doc_id, 0)

    def judge(self, split: str, query_id: str, doc_id: str, relevance: int) -> None:
        self.qrels.setdefault(split, {}).setdefault(query_id, {})[doc_id] = relevance

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.documents.file.close()
        self.queries.file.close()
        if kind is None:
            for split, qrels in self.qrels.items():
                write_qrels(self.folder / "qrels" / f"{split}.tsv", qrels)
            if self.excluded:
                write_excluded(self.folder / EXCLUDED, self.excluded)
            if run := self._negatives_as_run():
                write_run(self.folder / "negatives" / "given.run", run, "given")
            if self.teacher:
                write_run(self.folder / "negatives" / "teacher.run", self.teacher, "teacher")

    def _negatives_as_run(self) -> Run:
        """The given negatives, the first of each query scored highest, without any judged positive."""
        run: Run = {}
        for query_id, listed in self.negatives.items():
            positives = {
                d for qrels in self.qrels.values() for d, relevance in qrels.get(query_id, {}).items() if relevance > 0
            }
            if not positives:
                self.unanswered += 1
                continue
            kept = [doc_id for doc_id in listed if doc_id not in positives]
            self.contradicted += len(listed) - len(kept)
            self.negatives_written += len(kept)
            if kept:
                run[query_id] = {doc_id: float(len(kept) - rank) for rank, doc_id in enumerate(kept)}
        return run
