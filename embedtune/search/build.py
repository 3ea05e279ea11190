"""Makes an index folder from a corpus, and adds to one."""

from __future__ import annotations

import dataclasses
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..data.dataset import load_dataset, readable
from ..data.jsonl import JsonLines
from ..errors import InputError
from ..files import whole_folder, write_json
from ..recipe import split_of
from ..types import Items
from . import faiss_kinds as nearest
from .exact import Floats, exact_search
from .faiss_kinds import Kind
from .folder import Index, Manifest, ask, open_index

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

_SAMPLE = 1000  # queries that recall is measured on
_RECALL_AT = 10


def build(
    encoder: Encoder,
    corpus: Items,
    folder: Path,
    *,
    kind: Kind | Literal["auto"] = "auto",
    queries: Items | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Manifest:
    """Indexes a corpus. `auto` is exact below 50,000 documents, HNSW below a million, else IVF-PQ.

    queries: what an approximate index's recall is measured with; without any, documents ask for their like.
    Raises InputError for a folder that exists, unless it is an index and may be overwritten.
    """
    _refuse_existing(folder, overwrite)
    chosen: Kind = nearest.kind_for(len(corpus)) if kind == "auto" else kind
    parameters = nearest.parameters(chosen, len(corpus), encoder.dimension)
    embeddings = encoder.encode(corpus, "document", on_progress=on_progress)
    faiss = nearest.build(chosen, parameters, embeddings, encoder.similarity)
    manifest = Manifest(
        model=_absolute(encoder.name),
        identity=encoder.identity,
        max_length=encoder.max_length,
        prompts={"query": encoder.prompt("query") or "", "document": encoder.prompt("document") or ""},
        similarity=encoder.similarity,
        dimension=encoder.dimension,
        kind=chosen,
        parameters=parameters,
        documents=len(corpus),
        data=[corpus.fingerprint],
        recall=None,
    )
    if chosen != "exact":
        recall = _recall(faiss, manifest, embeddings, _sample_of(encoder, queries, embeddings))
        manifest = dataclasses.replace(manifest, recall=recall)
    _write(folder, manifest, faiss, _lines(corpus, folder))
    return manifest


def add_documents(
    encoder: Encoder, corpus: Items, folder: Path, *, replace: bool = False, on_progress: Progress | None = None
) -> Manifest:
    """Adds a corpus to an index, which is written anew. The kind and its recall stay as they were.

    Raises InputError for another model than the index's, and for documents that are there already, unless replaced.
    """
    index = open_index(folder, mapped=False)
    index.refuse_other_model(encoder)
    there = {doc_id: row for row, doc_id in enumerate(index.ids) if index.offsets[row] >= 0}
    known = [doc_id for doc_id in corpus.ids if doc_id in there]
    if known and not replace:
        there_already = f"{len(known)} of the documents are there already, the first {known[0]!r}"
        raise InputError(f"{folder}: {there_already}; --replace replaces them")
    embeddings = encoder.encode(corpus, "document", on_progress=on_progress)
    nearest.add(index.faiss, embeddings, index.manifest.similarity)
    manifest = dataclasses.replace(
        index.manifest,
        documents=len(there) + len(corpus) - len(known),
        data=[*index.manifest.data, corpus.fingerprint],
    )
    kept = _kept_lines(index, {there[doc_id] for doc_id in known})
    _write(folder, manifest, index.faiss, (line for lines in (kept, _lines(corpus, folder)) for line in lines))
    return manifest


def _refuse_existing(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / "manifest.json").exists() or not (folder / "index.faiss").exists():
        raise InputError(f"{folder}: exists and is not an index; choose another --output")
    if not overwrite:
        raise InputError(f"{folder}: holds an index already; --add adds to it, --overwrite makes it anew")


def _absolute(name: str) -> str:
    return str(Path(name).expanduser().resolve()) if Path(name).expanduser().exists() else name


def _sample_of(encoder: Encoder, queries: Items | None, embeddings: Floats) -> Floats:
    """(at most 1,000, H) embeddings to measure recall with, drawn by a fixed seed."""
    pool = len(queries) if queries else len(embeddings)
    rows = np.sort(np.random.default_rng(0).choice(pool, min(_SAMPLE, pool), replace=False))
    if queries:
        return encoder.encode([queries[queries.ids[row]] for row in rows], "query")
    return np.asarray(embeddings[rows])


def _recall(faiss: Any, manifest: Manifest, embeddings: Floats, sample: Floats) -> dict[str, float]:
    k = min(_RECALL_AT, manifest.documents)
    _, wanted = exact_search(sample, embeddings, k, similarity=manifest.similarity)
    _, found = ask(faiss, manifest, sample, k, np.empty(0, np.int64))
    shared = sum(len(set(w) & set(f)) for w, f in zip(wanted.tolist(), found.tolist(), strict=True))
    return {"k": k, "value": shared / (k * len(sample)), "queries": len(sample), "documents": manifest.documents}


def read_corpus(data: str, broken_images: float | None = None) -> tuple[Items, Items | None, tuple[str, ...]]:
    """The documents of a dataset, and its queries where it has some. A folder with corpus.jsonl alone will do.

    broken_images: the share of images that may be unreadable; those documents are left out and named, last here.
    Absent, a broken image is an error when it is encoded.
    """
    folder = Path(split_of(data)[0]).expanduser()
    corpus: Items
    queries: Items | None
    if (folder / "corpus.jsonl").exists():
        corpus, file = JsonLines(folder / "corpus.jsonl"), folder / "queries.jsonl"
        queries = JsonLines(file) if file.exists() else None
    else:
        dataset = load_dataset(data)
        corpus, queries = dataset.corpus, dataset.queries
    left_out: tuple[str, ...] = ()
    if broken_images is not None:
        corpus, left_out = readable(corpus, broken_images, str(folder))
    return corpus, queries, left_out


def _lines(corpus: Items, folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """Each document's id and line. An image stays where it is; its place is noted twice, for one of them may change."""
    for item in corpus:
        image = item.image and str(item.image.absolute())
        values = {"_id": item.id, "title": item.title, "text": item.text, "image": image}
        values["image_from_here"] = image and os.path.relpath(image, folder.resolve())
        given = {key: value for key, value in values.items() if value}
        yield item.id, (json.dumps(given, ensure_ascii=False) + "\n").encode()


def _kept_lines(index: Index, dropped: set[int]) -> Iterator[tuple[str, bytes | None]]:
    """The lines of an index's rows, None where a row is or becomes a removed one."""
    with (index.folder / "documents.jsonl").open("rb") as file:
        for row, doc_id in enumerate(index.ids):
            line = file.readline() if index.offsets[row] >= 0 else None
            yield doc_id, None if row in dropped else line


def _write(folder: Path, manifest: Manifest, faiss: Any, lines: Iterable[tuple[str, bytes | None]]) -> None:
    ids, offsets, end = [], array("q"), 0
    with whole_folder(folder) as temporary:
        with (temporary / "documents.jsonl").open("wb") as file:
            for doc_id, line in lines:
                ids.append(doc_id)
                offsets.append(-1 if line is None else end)
                end += file.write(line or b"")
        nearest.write(faiss, temporary / "index.faiss")
        np.save(temporary / "offsets.npy", np.array(offsets, dtype=np.int64))
        (temporary / "ids.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
        write_json(temporary / "manifest.json", dataclasses.asdict(manifest))
