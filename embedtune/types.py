"""The nouns: items, qrels, runs, datasets, and the scores that methods see. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["query", "document"]
Qrels = dict[str, dict[str, int]]
"""query_id -> doc_id -> relevance (int, graded; > 0 is positive)."""
Run = dict[str, dict[str, float]]
"""query_id -> doc_id -> score (higher is better)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A query or a document: content with an id. A document's title is already part of its text for encoding."""

    id: str
    text: str = ""
    title: str = ""
    image: Path | None = None
    instruction: str | None = None
    made: bool = False  # generated, such as an image for a hard negative caption

    @property
    def content(self) -> str:
        """What an encoder reads: title + " " + text, as BEIR does."""
        return f"{self.title} {self.text}".strip() if self.title else self.text

    @property
    def shown(self) -> str:
        """What a person reads: the content and the image's file name, as far as the item has them."""
        return " ".join(part for part in (self.content, f"[{self.image.name}]" if self.image else "") if part)


class Items(Protocol):
    """A corpus or a set of queries: ordered, known by id, read from disk on demand."""

    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def __contains__(self, item_id: object) -> bool: ...
    def __getitem__(self, item_id: str) -> Item: ...
    def __iter__(self) -> Iterator[Item]: ...
    def row(self, item_id: str) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One split of a dataset folder. `queries` holds all the folder's queries; `qrels` says which the split judges.

    parts: the datasets of a mixture, whose ids carry their label in front; empty for a single dataset.
    reversed: queries are the folder's documents, and documents its queries. judged_only: the corpus is without the
    documents that the split does not judge. incomplete: documents that are judged may be absent. excluded: query_id ->
    documents that are never ranked for it.
    """

    folder: Path
    name: str
    split: str
    corpus: Items
    queries: Items
    qrels: Qrels
    fingerprint: str
    parts: tuple[Dataset, ...] = ()
    reversed: bool = False
    judged_only: bool = False
    incomplete: bool = False
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # a sentence for each item whose image is broken

    @property
    def label(self) -> str:
        """How results name it: the folder's name, with the split where it is not `test`."""
        return self.name if self.split == "test" else f"{self.name}-{self.split}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A query with the positives that are encoded beside it, once in an epoch. A batch is a list of pairs."""

    query_id: str
    positives: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Everything that a filter, a weighting or a loss may know of Q queries against D columns.

    In a batch the columns are the batch's documents; among mined candidates they are each query's own positives and
    candidates, padded to equal length. Optional fields are empty by default, and with everything empty each method is
    plain InfoNCE.

    student: (Q, D) similarities, float32, with gradient while training; cosine units (or dot products, where the
        model says so), not divided by a temperature.
    positive: (Q, D) bool, True where the column is judged relevant for the row.
    candidate: (Q, D) bool, True where the column may be a negative of the row: not a positive, not padding, not a
        duplicate of a positive. Filters only ever take away from it.
    own: (Q, D) bool, True where the column was mined for this very row (its own hard negatives).
    teacher: (Q, D) similarities of a guide model or cross-encoder, without gradient, in the teacher's own units.
    teacher_queries: (Q, Q) and teacher_documents: (D, D) the teacher's similarities within a role, where it is an
        encoder and a loss has the directions query_query or document_document.
    kept_queries: (Q, Q) bool, the other queries that are negatives of the row in query_query, and kept_documents:
        (P, D) bool, for each positive pair in the order of positive.nonzero() the documents that are negatives of its
        document in document_document; both only where a filter decides about them by itself (`guide`).
    queries: (Q, H) and documents: (D, H) embeddings as scored (normalised where the similarity is cosine).
    query_ids, doc_ids: names of rows and columns; a made column has an empty doc_id.
    positive_ids: for each row every document that is judged relevant for it, in the batch or not.
    mined: (Q, D) the score a candidate had when it was mined, NaN where it was not.
    made: (D,) bool, True where the column is synthetic.
    made_by: for each column the maker of its text (the method's name), empty for a document.
    made_queries: (Q,) bool, True where the query itself is generated.
    positive_pairs: what `pairs` gives, where it is known without asking the device.
    progress: the share of the steps that are done: 0 at the first step, just below 1 at the last.
    """

    student: Tensor
    positive: Tensor
    candidate: Tensor
    own: Tensor | None = None
    teacher: Tensor | None = None
    teacher_queries: Tensor | None = None
    teacher_documents: Tensor | None = None
    kept_queries: Tensor | None = None
    kept_documents: Tensor | None = None
    queries: Tensor | None = None
    documents: Tensor | None = None
    query_ids: tuple[str, ...] = ()
    doc_ids: tuple[str, ...] = ()
    positive_ids: tuple[frozenset[str], ...] = ()
    mined: Tensor | None = None
    made: Tensor | None = None
    made_by: tuple[str, ...] = ()
    made_queries: Tensor | None = None
    progress: float = 0.0
    positive_pairs: tuple[Tensor, Tensor] | None = None

    @property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """(P,) rows and (P,) columns of the positive pairs, by row and then by column."""
        if self.positive_pairs is not None:
            return self.positive_pairs
        rows, columns = self.positive.nonzero(as_tuple=True)
        return rows, columns

    @property
    def judge(self) -> Tensor:
        """(Q, D) the scores that decide about false negatives: the teacher's where given, else the student's."""
        return self.teacher if self.teacher is not None else self.student.detach()
