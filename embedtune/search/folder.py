"""An index folder: a FAISS index, its documents, and the model that it belongs to.

    index.faiss      row n is document n
    documents.jsonl  the documents, as in a corpus; images stay where they are, and their paths are noted
    offsets.npy      (D,) where each row's document starts in documents.jsonl; -1: removed
    ids.json         each row's document id
    spans.npy        (P, 2) of passages: where each row's text starts and ends in its document's, in characters
    manifest.json    the model, its similarity, how documents are split, the kind of index, how vectors are stored, the
                     measured recall
    calibration.npy  of int8: (2, H) the smallest and the largest value of each dimension
    rescoring.npy    of an index with rescoring: (D, H) the vectors that candidates are scored with, float32 or uint8

Where documents are split, each row is a passage and the rows of a document stand together.

Rows are never taken out of the FAISS index, because HNSW cannot: a replaced document leaves a row that is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, reason
from ..files import fingerprint_of
from ..models.similarity import Similarity, as_scored
from ..recipe import Model, Passages, Prompts
from ..types import Item, Items, Run
from . import faiss_kinds
from .exact import Floats, Rows, among_passages, as_run, best_rows, scored_block, tie_order
from .faiss_kinds import Kind
from .storage import CANDIDATES, Quantize, Rescore, Storage, bytes_of
from .vectors import Form, Stored, forms_of, ranges_of, rescored, search

if TYPE_CHECKING:
    from ..models.encoder import Encoder

_MORE = 64  # documents that an approximate search finds beyond k, so that equal scores at the cut are ordered by id


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an index is.

    model: the name it was loaded by. identity: the model itself, by what encodes documents. data:
    fingerprints of what was indexed, in order.
    recall: the share of exact search's first 10 documents that are among this index's first 10, with the numbers of
    queries and documents that it was measured on; None where search is exact.
    passages: how longer documents were split; None: a row is a document.
    dimension: of the stored vectors, which may be the model's first ones alone. quantize, rescore: how they are stored
    (storage.py). calibration: the fingerprint of calibration.npy. outside: the share of int8 values that lay outside
    the calibration, of the documents that were stored last.
    images: the folders of the documents' images, absolute, and relative to the index folder.
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
    passages: Passages | None = None
    images: list[str] = field(default_factory=list)
    quantize: Quantize = "none"
    rescore: Rescore | None = None
    calibration: str | None = None
    outside: float = 0.0

    @property
    def bytes(self) -> int:
        """The bytes of one vector that is searched."""
        return bytes_of(self.dimension, self.quantize)

    def forms(self, ranges: Floats | None) -> tuple[Form, Form | None]:
        """How vectors are searched, and how they are scored again."""
        return forms_of(Storage(quantize=self.quantize, rescore=self.rescore), self.dimension, self.similarity, ranges)

    def model_to_load(self, name: str | None = None) -> Model:
        """The model as it was when it built the index, or one of another name under the same settings."""
        return Model(
            name=self.model if name is None else name,
            max_length=self.max_length,
            passages=self.passages,
            prompts=Prompts(**self.prompts),
        )


@dataclass(frozen=True, kw_only=True)
class Index:
    """An open index. Vectors and texts stay on disk."""

    folder: Path
    manifest: Manifest
    faiss: Any
    ids: list[str]
    offsets: Rows  # (D,)
    spans: Rows | None = None  # (D, 2)
    ranges: Floats | None = None  # (2, H) of int8
    rescoring: Stored | None = None
    smaller: Stored | None = None  # made of the FAISS index's vectors, and searched in their place

    @cached_property
    def form(self) -> Form:
        return self.manifest.forms(self.ranges)[0]

    @cached_property
    def vectors(self) -> Stored:
        """The vectors of an exact index."""
        return self.smaller or faiss_kinds.vectors(self.faiss, self.form)

    @cached_property
    def removed(self) -> Rows:
        """The rows of documents that were replaced."""
        return np.flatnonzero(self.offsets < 0)

    @cached_property
    def owners(self) -> Rows:
        """(D,) the number of each row's document; a replaced document keeps a number of its own."""
        if self.spans is None:
            return np.arange(len(self.ids))
        return np.cumsum(self.spans[:, 0] == 0) - 1  # a document's first passage starts at 0

    @cached_property
    def tie_order(self) -> Rows:
        """(D,) the order among equal scores of each row's document."""
        firsts = np.flatnonzero(np.diff(self.owners, prepend=-1))
        return tie_order([self.ids[row] for row in firsts.tolist()])[self.owners]

    def search(self, encoder: Encoder, queries: Items | Sequence[Item], k: int) -> tuple[Floats, Rows]:
        """Scores and rows (Q, min(k, documents)), best first; row -1 where an approximate index found fewer.

        Where documents are split, each is found once, by the row of its best passage.

        A query of text and image is one input where the model reads both at once; where it reads either, the query is
        the mean of the two embeddings, each of length 1. Raises InputError where the encoder is not the model that
        built the index, and for a query without content.
        """
        self.refuse_other_model(encoder)
        for query in queries:
            if not query.content.strip() and query.image is None:
                raise InputError(f"query {query.id!r} is empty; there is nothing to search for")
        return self.nearest(_encoded(encoder, queries, self.manifest.dimension), k)

    def nearest(self, embeddings: Floats, k: int) -> tuple[Floats, Rows]:
        """The same for query embeddings (Q, at least H) as the model gives them. Equal scores: by id, high to low."""
        m, again, owners = self.manifest, self.rescoring, None if self.spans is None else self.owners
        asked = scored_block(embeddings[:, : m.dimension], 0, len(embeddings), m.similarity, "query")
        k, most = min(k, m.documents), len(self.ids) - len(self.removed)

        def approximate(wide: int) -> tuple[Floats, Rows]:
            return self._approximate(asked, wide, most)

        if m.kind == "exact":  # as `eval` searches, to the last bit
            ties = self.tie_order
            scores, rows = search(asked, self.vectors, k, rescored_by=again, tie_order=ties, removed=self.removed)
            return scores, rows if owners is None else best_rows(asked, again or self.vectors, owners, rows)
        return approximate(k) if owners is None else among_passages(approximate, k, most, owners)

    def _approximate(self, asked: Floats, k: int, most: int) -> tuple[Floats, Rows]:
        """Scores and rows (Q, k) of an approximate index of `most` rows, equal scores by id from high to low."""
        wide = min(k + _MORE if self.rescoring is None else max(k, CANDIDATES), most)
        scores, rows = faiss_kinds.search(self.faiss, self.manifest.parameters, asked, wide, self.removed)
        if self.rescoring is not None:
            return rescored(asked, self.rescoring, rows, k, self.tie_order)
        for query in np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1)):
            keys = [(row >= 0, score, self.ids[row]) for row, score in zip(rows[query], scores[query], strict=True)]
            order = sorted(range(wide), key=keys.__getitem__, reverse=True)
            scores[query], rows[query] = scores[query, order], rows[query, order]
        return scores[:, :k], rows[:, :k]

    def stored_as(
        self, truncate_dim: int | None = None, quantize: Quantize | None = None, rescore: Rescore | None = None
    ) -> Index:
        """The index with its vectors stored smaller, in memory; itself where they are stored so. None: as they are.

        Raises InputError for an index that holds less than is asked for, and for one that is approximate.
        """
        m = self.manifest
        dimension = m.dimension if truncate_dim is None else truncate_dim
        quantize, rescore = quantize or m.quantize, rescore or m.rescore
        if (dimension, quantize, rescore) == (m.dimension, m.quantize, m.rescore):
            return self
        if m.kind != "exact" or m.quantize != "none" or dimension > m.dimension:
            raise InputError(
                f"{self.folder}: an {m.kind} index of {m.dimension} dimensions, stored as {m.quantize}; only an exact "
                "one stored as none is searched in fewer dimensions or at another precision; leave the flags out, or "
                "build one with `embedtune index --truncate-dim N --quantize FORMAT`"
            )
        storage, values = Storage(quantize=quantize, rescore=rescore), self.vectors.values
        ranges = ranges_of(values, dimension, m.similarity) if "int8" in (quantize, rescore) else None
        form, second = forms_of(storage, dimension, m.similarity, ranges)
        return replace(
            self,
            manifest=replace(m, dimension=dimension, quantize=quantize, rescore=rescore),
            ranges=ranges,
            rescoring=second.store(values) if second is not None else None,
            smaller=form.store(values),
        )

    def refuse_other_model(self, encoder: Encoder) -> None:
        """Raises InputError, naming both, where the encoder does not encode documents as the index's model did.

        Earlier indexes of a model with two towers have the identity of both.
        """
        m = self.manifest
        if m.identity != encoder.document_identity and m.identity != encoder.identity:  # each reads all weights
            built, loaded = f"{m.model} ({m.identity[:8]})", f"{encoder.name} ({encoder.identity[:8]})"
            raise InputError(
                f"{self.folder}: built with model {built}; {loaded} is another, or the same with other weights, "
                "prompts or length; search with the first, or build the index again"
            )

    def span(self, row: int) -> tuple[int, int] | None:
        """Where the row's passage starts and ends in its document's text, in characters; None without passages."""
        if self.spans is None:
            return None
        start, end = self.spans[row].tolist()
        return start, end

    def document(self, row: int) -> Item:
        """The document of a row, read from disk.

        Its image is looked for at its absolute path, then at its path relative to the index, with which it may have
        been moved. An image in neither place keeps the absolute path.
        """
        with (self.folder / "documents.jsonl").open("rb") as file:
            file.seek(int(self.offsets[row]))
            line = file.readline()
        try:
            values = json.loads(line)
            image = Path(values["image"]) if "image" in values else None
            moved = self.folder / values["image_from_here"] if "image_from_here" in values else None
            item = Item(id=values["_id"], title=values.get("title", ""), text=values.get("text", ""), image=image)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise _damaged(self.folder, f"documents.jsonl, row {row}") from None
        if image is not None and moved is not None and not image.exists() and moved.exists():
            return replace(item, image=moved.resolve())
        return item

    def run(self, encoder: Encoder, queries: Items, k: int) -> Run:
        """The k best documents of each query, as a run in trec_eval's order."""
        return as_run(list(queries.ids), self.ids, *self.search(encoder, queries, k))


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """One document that a query found.

    span: where its best passage starts and ends in its text, in characters; None where documents are not split.
    """

    rank: int
    score: float
    document: Item
    span: tuple[int, int] | None = None

    @property
    def passage(self) -> str:
        """The text that was found: the best passage's, or the document's."""
        return self.document.text if self.span is None else self.document.text[slice(*self.span)]


def find(index: Index, encoder: Encoder, query: Item | str, k: int) -> list[SearchResult]:
    """The k best documents for an item, or for some words, best first."""
    item = Item(id="words", text=query) if isinstance(query, str) else query
    return find_all(index, encoder, [item], k)[0]


def find_all(index: Index, encoder: Encoder, queries: Sequence[Item], k: int) -> list[list[SearchResult]]:
    """The k best documents of each query, best first, equal scores by id from high to low."""
    scores, rows = index.search(encoder, queries, k)
    return [
        [
            SearchResult(rank=rank, score=score, document=index.document(row), span=index.span(row))
            for rank, (score, row) in enumerate(zip(*ranked, strict=True), start=1)
            if row >= 0
        ]
        for ranked in zip(scores.tolist(), rows.tolist(), strict=True)
    ]


def readable_images(
    index: Index, results: Sequence[Sequence[SearchResult]], folders: Sequence[Path] = ()
) -> tuple[list[list[SearchResult]], list[str]]:
    """The results with the images that may be read, and a sentence for each one that is left out.

    An index may come from anybody and name any file. Its images are read inside the image folders of its manifest,
    where those lie in the current folder or beside the index, and inside `folders`.
    """
    near = [Path.cwd(), index.folder.resolve().parent]
    named = [(index.folder / image_folder).resolve() for image_folder in index.manifest.images]
    allowed = [folder.resolve() for folder in folders]
    allowed += [folder for folder in named if any(folder.is_relative_to(base) for base in near)]
    left_out: list[str] = []

    def checked(result: SearchResult) -> SearchResult:
        image = result.document.image
        if image is None or any(image.resolve().is_relative_to(folder) for folder in allowed):
            return result
        left_out.append(f"{image}: not read, it lies outside the indexed folder; allow it with --image-folder DIR")
        return replace(result, document=replace(result.document, image=None))

    return [[checked(result) for result in ranked] for ranked in results], left_out


def _encoded(encoder: Encoder, queries: Items | Sequence[Item], dimension: int) -> Floats:
    """(Q, at least `dimension`) embeddings of the queries, as `Index.search` says."""
    parts = [_parts(encoder, query) for query in queries]
    if all(len(of_query) == 1 for of_query in parts):
        return encoder.encode(queries, "query")  # a set of queries as it is has its embeddings cached
    embeddings = encoder.encode([part for of_query in parts for part in of_query], "query")[:, :dimension]
    ends = np.cumsum([len(of_query) for of_query in parts])
    groups = np.split(embeddings, ends[:-1])  # (1 or 2, H) each
    return np.stack([rows[0] if len(rows) == 1 else as_scored(rows, "cosine").mean(axis=0) for rows in groups])


def _parts(encoder: Encoder, query: Item) -> list[Item]:
    """The query, or its text and its image where it has both and the model reads either alone."""
    if not query.content or query.image is None or encoder.reads(query):
        return [query]
    return [replace(query, image=None), replace(query, text="", title="")]


def _read_array(path: Path, mapped: bool = False) -> npt.NDArray[Any]:
    """An array of an index folder. Raises ValueError that names the file."""
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path.name}: {reason(error)}") from None
    return array


def _read_storage(folder: Path, manifest: Manifest, mapped: bool) -> tuple[Floats | None, Stored | None]:
    """The ranges of int8 and the vectors for rescoring, of an index that has them.

    Raises ValueError for files that are not those of the manifest.
    """
    ranges = None
    if "int8" in (manifest.quantize, manifest.rescore):
        ranges = _read_array(folder / "calibration.npy")
        if ranges.shape != (2, manifest.dimension) or fingerprint_of_array(ranges) != manifest.calibration:
            raise ValueError("calibration.npy is not the calibration that the vectors were stored with")
    _, second = manifest.forms(ranges)
    if second is None:
        return ranges, None
    values = _read_array(folder / "rescoring.npy", mapped)
    if values.dtype != second.dtype or values.shape[1:] != (second.width,):
        raise ValueError(f"rescoring.npy: expected {second.width} numbers a document, {second.dtype}")
    return ranges, Stored(form=second, values=values)


def fingerprint_of_array(array: npt.NDArray[Any]) -> str:
    return fingerprint_of(str(array.dtype), str(array.shape), array.tobytes().hex())


def open_index(folder: str | Path, *, mapped: bool = True) -> Index:
    """Opens an index folder, memory-mapped unless it is added to. Raises InputError for anything else."""
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise InputError(
            f"{folder}: not an index (no manifest.json); `embedtune index DATA --output {folder}` makes one"
        )
    try:
        manifest = TypeAdapter(Manifest).validate_json((folder / "manifest.json").read_bytes())
        ids = TypeAdapter(list[str]).validate_json((folder / "ids.json").read_bytes())
        offsets = _read_array(folder / "offsets.npy")
        spans = _read_array(folder / "spans.npy") if manifest.passages is not None else None
        ranges, again = _read_storage(folder, manifest, mapped)
    except ValidationError as error:
        first, *others = error.errors()
        name = "manifest.json" if error.title == "Manifest" else "ids.json"
        where = ".".join(map(str, first["loc"]))
        more = f", and {len(others)} more" if others else ""
        raise _damaged(folder, f"{name}: {where}: {first['msg']}{more}") from None
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(folder, reason(error)) from None
    if not (folder / "documents.jsonl").is_file():
        raise _damaged(folder, "documents.jsonl is absent")
    faiss = faiss_kinds.read(folder / "index.faiss", manifest.quantize, mapped=mapped)
    if spans is not None and (spans.shape != (len(ids), 2) or spans.dtype != np.int64 or spans[:1, :1].any()):
        raise _damaged(folder, "spans.npy does not hold a span for each row")
    if not faiss.ntotal == len(ids) == len(offsets) == (len(ids) if again is None else len(again)):
        raise _damaged(folder, f"{faiss.ntotal} vectors, {len(ids)} ids")
    if not faiss_kinds.is_kind(faiss, manifest.kind, manifest.forms(ranges)[0]):
        stored = "" if manifest.quantize == "none" else f", stored as {manifest.quantize}"
        kind = f"an {manifest.kind} index of {manifest.dimension} dimensions{stored}"
        raise _damaged(folder, f"index.faiss is not {kind}, as the manifest says")
    return Index(
        folder=folder,
        manifest=manifest,
        faiss=faiss,
        ids=ids,
        offsets=offsets,
        spans=spans,
        ranges=ranges,
        rescoring=again,
    )


def _damaged(folder: Path, why: str) -> InputError:
    return InputError(f"{folder}: damaged index, build it again with `embedtune index` ({why})")
