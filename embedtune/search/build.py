"""Builds an index folder from a corpus, and adds documents to one."""

from __future__ import annotations

import dataclasses
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..data.dataset import load_dataset, load_documents, readable, splits_of
from ..data.documents import TextColumns, holds_documents
from ..data.jsonl import JsonLines
from ..data.passages import PassageItems, document_in, is_split
from ..data.source_folder import is_archive
from ..errors import InputError, unknown
from ..files import FolderKind, check_folder, whole_folder, write_json
from ..recipe import split_of
from ..types import Items
from . import faiss_kinds
from .exact import Floats, Rows, Searcher
from .faiss_kinds import Kind
from .folder import Index, Manifest, fingerprint_of_array, open_index
from .storage import Storage, dimensions_of
from .vectors import forms_of, outside, ranges_of

if TYPE_CHECKING:
    import torch

    from ..models.encoder import Encoder, Progress

INDEX = FolderKind(
    verb="index",
    unmarked={"documents.jsonl", "ids.json", "index.faiss", "manifest.json", "offsets.npy"}.__eq__,
)
_SAMPLE = 1000  # queries that recall is measured on
_RECALL_AT = 10
_ONE_ROW = np.zeros((1, 2), dtype=np.int64)


@dataclasses.dataclass(frozen=True)
class IndexSource:
    """The documents to index, the queries to measure recall with, and a sentence for each document left out."""

    documents: Items
    queries: Items | None = None
    left_out: tuple[str, ...] = ()


def read_source(data: str, broken_images: float | None = None, columns: TextColumns | None = None) -> IndexSource:
    """The documents of a dataset or of a file of documents, and the dataset's queries where it has some.

    A folder with corpus.jsonl alone is enough. columns: those of a file of documents; where they are given, or the file
    has no queries, each of its rows is a document.
    broken_images: the share of images that may be unreadable; those documents are left out. None: a broken image is an
    error when it is encoded.
    """
    source, split = split_of(data)
    if columns and not Path(source).expanduser().is_file():
        raise InputError(f"{source}: --id-column, --title-column and --text-column go with a file of documents")
    folder = Path(source).expanduser()
    documents: Items
    queries: Items | None
    if (folder / "corpus.jsonl").exists():
        if split is not None and split not in splits_of(folder):
            raise InputError(unknown(f"split of {folder}", split, splits_of(folder)))
        documents, file = JsonLines(folder / "corpus.jsonl"), folder / "queries.jsonl"
        queries = JsonLines(file) if file.exists() else None
    elif folder.is_file() and not is_archive(folder) and (columns or holds_documents(folder)):
        documents, queries = load_documents(folder, columns).corpus, None
    else:
        dataset = load_dataset(data)
        documents, queries = dataset.corpus, dataset.queries
    left_out: tuple[str, ...] = ()
    if broken_images is not None:
        documents, left_out = readable(documents, broken_images, str(folder))
    return IndexSource(documents, queries, left_out)


def build(
    encoder: Encoder,
    source: IndexSource | str,
    folder: str | Path,
    *,
    kind: Kind | Literal["auto"] = "auto",
    storage: Storage | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Indexes a corpus. `auto` is exact below 50,000 documents, HNSW below a million, else IVF-PQ.

    source: documents, or the name of a dataset or of a file of documents, as `read_source` takes it.
    storage: how vectors are stored, whole by default; bits are always searched exactly. The recall of an index that is
    approximate, or stores less than float32, is measured with the source's queries; without queries, with documents.
    Raises InputError for a folder that exists, unless it is an index and may be overwritten.
    """
    folder = Path(folder)
    check_folder(folder, INDEX, overwrite=overwrite)
    source, storage = read_source(source) if isinstance(source, str) else source, storage or Storage()
    documents, corpus, quantize = source.documents, encoder.split(source.documents), storage.quantize
    chosen = faiss_kinds.kind_for(len(corpus), quantize) if kind == "auto" else kind
    dimension = dimensions_of(encoder.name, encoder.dimension, storage.truncate_dim)
    parameters = faiss_kinds.parameters(chosen, len(corpus), dimension, quantize)
    embeddings = encoder.encode(corpus, "document", on_progress=on_progress)
    ranges = _ranges(encoder, storage, embeddings, dimension)
    form, second = forms_of(storage, dimension, encoder.similarity, ranges)
    manifest = Manifest(
        model=_absolute(encoder.name),
        identity=encoder.document_identity,
        max_length=encoder.max_length,
        prompts={"query": encoder.prompt("query") or "", "document": encoder.prompt("document") or ""},
        similarity=encoder.similarity,
        dimension=dimension,
        kind=chosen,
        parameters=parameters,
        documents=len(documents),
        data=[documents.fingerprint],
        recall=None,
        passages=encoder.passages,
        images=_image_folders(documents, folder),
        quantize=quantize,
        rescore=storage.rescore,
        calibration=fingerprint_of_array(ranges) if ranges is not None else None,
        outside=outside(embeddings, second if form.ranges is None and second is not None else form),
    )
    index = Index(
        folder=folder,
        manifest=manifest,
        faiss=faiss_kinds.build(chosen, parameters, embeddings, form),
        ids=[document_in(item_id) for item_id in corpus.ids] if is_split(corpus) else list(corpus.ids),
        offsets=np.zeros(len(corpus), np.int64),
        spans=corpus.spans if isinstance(corpus, PassageItems) else None,
        ranges=ranges,
        rescoring=second.store(embeddings) if second is not None else None,
    )
    if chosen != "exact" or quantize != "none":
        recall = _recall(index, embeddings, _sample_of(encoder, source.queries, embeddings), encoder.device)
        index = dataclasses.replace(index, manifest=dataclasses.replace(manifest, recall=recall))
    _write(index, _documents(corpus, folder))
    return index.manifest


def add_documents(
    encoder: Encoder, documents: Items, folder: Path, *, replace: bool = False, on_progress: Progress | None = None
) -> Manifest:
    """Adds documents to an index and writes the folder again. Its kind stays, and so does the recall once measured.

    Raises InputError for another model than the index's, and for documents that it holds already, unless `replace`.
    """
    index = open_index(folder, mapped=False)
    check_folder(folder, INDEX, overwrite=True)
    index.refuse_other_model(encoder)
    present = {doc_id for row, doc_id in enumerate(index.ids) if index.offsets[row] >= 0}
    known = [doc_id for doc_id in documents.ids if doc_id in present]
    if known and not replace:
        raise InputError(
            f"{folder}: holds {len(known)} of the documents already, the first is {known[0]!r}; --replace replaces them"
        )
    corpus = encoder.split(documents)
    embeddings = encoder.encode(corpus, "document", on_progress=on_progress)
    faiss_kinds.add(index.faiss, embeddings, index.form)
    again = index.rescoring
    if again is not None:
        values = np.concatenate([again.values, again.form.store(embeddings).values])
        again = dataclasses.replace(again, values=values)
    ranged = again.form if again is not None and index.form.ranges is None else index.form
    manifest = dataclasses.replace(
        index.manifest,
        documents=len(present) + len(documents) - len(known),
        data=[*index.manifest.data, documents.fingerprint],
        images=list(dict.fromkeys([*index.manifest.images, *_image_folders(documents, folder)])),
        outside=outside(embeddings, ranged),
    )
    kept = _kept_documents(index, set(known))
    _write(dataclasses.replace(index, manifest=manifest, rescoring=again), chain(kept, _documents(corpus, folder)))
    return manifest


def _ranges(encoder: Encoder, storage: Storage, embeddings: Floats, dimension: int) -> Floats | None:
    """(2, H) the ranges of int8, from the documents to calibrate with; None where nothing is stored as int8."""
    if "int8" not in (storage.quantize, storage.rescore):
        return None
    source = embeddings if storage.calibrate is None else encoder.encode(storage.calibrate, "document")
    return ranges_of(source, dimension, encoder.similarity)


def _absolute(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name


def _sample_of(encoder: Encoder, queries: Items | None, embeddings: Floats) -> Floats:
    """(at most 1,000, H) embeddings to measure recall with, drawn by a fixed seed."""
    pool = len(queries) if queries else len(embeddings)
    rows = np.sort(np.random.default_rng(0).choice(pool, min(_SAMPLE, pool), replace=False))
    if queries:
        return encoder.encode([queries[queries.ids[row]] for row in rows], "query")
    return np.asarray(embeddings[rows])


def _recall(index: Index, embeddings: Floats, sample: Floats, device: torch.device) -> dict[str, float]:
    k = min(_RECALL_AT, index.manifest.documents)
    similarity = index.manifest.similarity
    sample, whole = (rows[:, : index.manifest.dimension] for rows in (sample, embeddings))
    _, rows = Searcher(whole, similarity=similarity, tie_order=index.tie_order, device=device).search(sample, k)
    _, nearest = index.nearest(sample, k)
    exact, approximate = index.owners[rows], np.where(nearest < 0, -1, index.owners[nearest])
    shared = sum(len(set(a) & set(b)) for a, b in zip(exact.tolist(), approximate.tolist(), strict=True))
    return {"k": k, "value": shared / (k * len(sample)), "queries": len(sample), "documents": index.manifest.documents}


def _image_folders(documents: Items, folder: Path) -> list[str]:
    """The folder that holds all images: its absolute path, and its path from the index folder; either may change."""
    parents = {str(item.image.absolute().parent) for item in documents if item.image is not None}
    if not parents:
        return []
    together = os.path.commonpath(parents)
    return [together, os.path.relpath(together, folder.resolve())]


Entry = tuple[str, bytes | None, Rows]
"""A document's id, its line (None: removed), and the spans (n, 2) of its rows."""


def _documents(corpus: Items, folder: Path) -> Iterator[Entry]:
    """The entries of documents. An image is not copied; its path is noted absolute and from the index folder."""
    documents: Items = corpus
    spans: Iterable[Rows] = repeat(_ONE_ROW)
    if isinstance(corpus, PassageItems):
        documents, spans = corpus.documents, corpus.spans_by_document()
    for item, of_document in zip(documents, spans, strict=False):
        image = item.image and str(item.image.absolute())
        values = {"_id": item.id, "title": item.title, "text": item.text, "image": image}
        values["image_from_here"] = image and os.path.relpath(image, folder.resolve())
        filled = {key: value for key, value in values.items() if value}
        yield item.id, (json.dumps(filled, ensure_ascii=False) + "\n").encode(), of_document


def _kept_documents(index: Index, dropped: set[str]) -> Iterator[Entry]:
    """The entries of an index; those of `dropped` documents become removed ones."""
    starts = np.flatnonzero(np.diff(index.owners, prepend=-1)).tolist()
    with (index.folder / "documents.jsonl").open("rb") as file:
        for start, stop in pairwise([*starts, len(index.ids)]):
            line = file.readline() if index.offsets[start] >= 0 else None
            doc_id, spans = index.ids[start], _ONE_ROW if index.spans is None else index.spans[start:stop]
            yield doc_id, None if doc_id in dropped else line, spans


def _write(index: Index, entries: Iterable[Entry]) -> None:
    """Writes the folder of an index."""
    ids, offsets, all_spans, end = [], array("q"), array("q"), 0
    with whole_folder(index.folder, INDEX, overwrite=True) as temporary:
        with (temporary / "documents.jsonl").open("wb") as file:
            for doc_id, line, spans in entries:
                ids += [doc_id] * len(spans)
                offsets.extend([-1 if line is None else end] * len(spans))
                all_spans.extend(spans.ravel().tolist())
                end += file.write(line or b"")
        faiss_kinds.write(index.faiss, temporary / "index.faiss")
        np.save(temporary / "offsets.npy", np.array(offsets, dtype=np.int64))
        if index.ranges is not None:
            np.save(temporary / "calibration.npy", index.ranges)
        if index.rescoring is not None:
            np.save(temporary / "rescoring.npy", index.rescoring.values)
        if index.manifest.passages is not None:
            np.save(temporary / "spans.npy", np.array(all_spans, dtype=np.int64).reshape(-1, 2))
        (temporary / "ids.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
        write_json(temporary / "manifest.json", dataclasses.asdict(index.manifest))
