"""An index folder: a FAISS index, the documents it finds, and which model it belongs to.

    index.faiss      row n is document n
    documents.jsonl  the documents, as in a corpus; images stay where they are, and their places are noted
    offsets.npy      (D,) where each row's document starts in documents.jsonl; -1: removed
    ids.json         each row's document id
    manifest.json    the model, how it scores, the kind of index, its measured recall

Rows are never taken out of the FAISS index (HNSW cannot): a document that is replaced leaves a row that is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..models.similarity import Similarity, as_scored
from ..recipe import Model, Prompts
from ..types import Item, Items, Run
from . import faiss_kinds as nearest
from .exact import Floats, Rows, as_run, scored_block
from .faiss_kinds import Kind

if TYPE_CHECKING:
    from ..models.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an index is.

    model: the name it was loaded by; identity: the model itself. data: fingerprints of what was indexed, in order.
    recall: the share of exact search's first 10 documents that are among this index's first 10, with the numbers of
    queries and documents that it was measured on; absent where search is exact.
    """

    format: int = 1
    model: str
    identity: str
    max_length: int | None
    prompts: dict[str, str]
    similarity: Similarity
    dimension: int
    kind: Kind
    parameters: dict[str, int]
    documents: int
    data: list[str]
    recall: dict[str, float] | None

    def model_to_load(self, name: str | None = None) -> Model:
        """The model as it was when it built the index, or one of another name under the same settings."""
        return Model(name=name or self.model, max_length=self.max_length, prompts=Prompts(**self.prompts))


@dataclass(frozen=True, kw_only=True)
class Index:
    """An open index. Vectors and texts stay on disk."""

    folder: Path
    manifest: Manifest
    faiss: Any
    ids: list[str]
    offsets: Rows  # (D,)

    def search(self, encoder: Encoder, queries: Items | Sequence[Item], k: int) -> tuple[Floats, Rows]:
        """Scores and rows (Q, min(k, documents)), best first; row -1 where an approximate index found fewer.

        A query of text and image is one input where the model reads both at once; where it reads either, the query is
        the mean of the two embeddings, each of length 1. Raises InputError where the encoder is not the model that
        built the index, and for a query without content.
        """
        self.refuse_other_model(encoder)
        for query in queries:
            if not query.content.strip() and query.image is None:
                raise InputError(f"query {query.id!r} is empty; there is nothing to search for")
        embeddings = _encoded(encoder, queries)
        return ask(self.faiss, self.manifest, embeddings, k, np.flatnonzero(self.offsets < 0))

    def refuse_other_model(self, encoder: Encoder) -> None:
        """Raises InputError, naming both, where the encoder is not the model that built the index."""
        m = self.manifest
        if encoder.identity != m.identity:
            built, given = f"{m.model} ({m.identity[:8]})", f"{encoder.name} ({encoder.identity[:8]})"
            raise InputError(
                f"{self.folder}: built with model {built}; {given} is another, or the same with other weights, prompts "
                "or length; use the former, or make the index again"
            )

    def document(self, row: int) -> Item:
        """The document of a row, read from disk. Its image is looked for where it was, and then as seen from the index,
        with which it may have moved; in neither place, it is said to be where it was."""
        with (self.folder / "documents.jsonl").open("rb") as file:
            file.seek(int(self.offsets[row]))
            values = json.loads(file.readline())
        image = Path(values["image"]) if "image" in values else None
        moved = self.folder / values["image_from_here"] if "image_from_here" in values else None
        if image is not None and moved is not None and not image.exists() and moved.exists():
            image = moved.resolve()
        return Item(id=values["_id"], title=values.get("title", ""), text=values.get("text", ""), image=image)

    def run(self, encoder: Encoder, queries: Items, k: int) -> Run:
        """The k best documents of each query, as a run in trec_eval's order."""
        return as_run(list(queries.ids), self.ids, *self.search(encoder, queries, k))


@dataclass(frozen=True, kw_only=True)
class Found:
    """One result of a search."""

    rank: int
    score: float
    document: Item


def find(index: Index, encoder: Encoder, query: Item | str, k: int) -> list[Found]:
    """The k best documents for an item, or for some words, best first, equal scores by id from high to low."""
    item = Item(id="words", text=query) if isinstance(query, str) else query
    return find_all(index, encoder, [item], k)[0]


def find_all(index: Index, encoder: Encoder, queries: Sequence[Item], k: int) -> list[list[Found]]:
    """For each query what `find` gives."""
    scores, rows = index.search(encoder, queries, k)
    row_of = {index.ids[row]: row for row in set(rows.ravel().tolist()) if row >= 0}
    runs = as_run([query.id for query in queries], index.ids, scores, rows)
    return [
        [
            Found(rank=rank, score=score, document=index.document(row_of[doc_id]))
            for rank, (doc_id, score) in enumerate(runs[query.id].items(), start=1)
        ]
        for query in queries
    ]


def _encoded(encoder: Encoder, queries: Items | Sequence[Item]) -> Floats:
    """(Q, H) embeddings of the queries, as `Index.search` says."""
    if not any(_in_parts(encoder, query) for query in queries):
        return encoder.encode(queries, "query")
    parts = [_parts(query) if _in_parts(encoder, query) else [query] for query in queries]
    encoded = iter(encoder.encode([part for of_query in parts for part in of_query], "query"))
    rows = []
    for of_query in parts:
        own = np.stack([next(encoded) for _ in of_query])  # (1 or 2, H)
        rows.append(own[0] if len(own) == 1 else as_scored(own, "cosine").mean(axis=0))
    return np.stack(rows)


def _in_parts(encoder: Encoder, query: Item) -> bool:
    """Whether it has text and image and the model reads either alone."""
    return bool(query.content) and query.image is not None and not encoder.reads(query)


def _parts(query: Item) -> list[Item]:
    return [replace(query, image=None), replace(query, text="", title="")]


def open_index(folder: Path, *, mapped: bool = True) -> Index:
    """Opens an index folder, memory-mapped unless it is to be added to. Raises InputError for what is not one."""
    if not (folder / "manifest.json").exists():
        raise InputError(
            f"{folder}: not an index (no manifest.json); `embedtune index DATA --output {folder}` makes one"
        )
    try:
        manifest = Manifest(**json.loads((folder / "manifest.json").read_text(encoding="utf-8")))
        ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        offsets = np.load(folder / "offsets.npy")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: damaged index, make it again ({error})") from None
    faiss = nearest.read(folder / "index.faiss", mapped=mapped)
    if not faiss.ntotal == len(ids) == len(offsets):
        raise InputError(f"{folder}: damaged index, make it again ({faiss.ntotal} vectors, {len(ids)} ids)")
    return Index(folder=folder, manifest=manifest, faiss=faiss, ids=ids, offsets=offsets)


def ask(faiss: Any, manifest: Manifest, embeddings: Floats, k: int, removed: Rows) -> tuple[Floats, Rows]:
    """Scores and rows (Q, min(k, documents)) for query embeddings (Q, H) as the model gives them."""
    asked = scored_block(embeddings, 0, len(embeddings), manifest.similarity, "query")
    return nearest.nearest(faiss, manifest.kind, manifest.parameters, asked, min(k, manifest.documents), removed)
