"""FAISS: which kind of index suits how many documents, with which parameters, and how each is built and searched."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import torch

from ..errors import InputError
from ..models.similarity import Similarity
from .exact import Floats, Rows, scored_block

Kind = Literal["exact", "hnsw", "ivfpq"]
_options: Any = faiss  # its stubs know no keyword arguments

EXACT_BELOW = 50_000  # documents: exact search answers within milliseconds
HNSW_BELOW = 1_000_000  # documents: from here on whole vectors take too much memory, and short codes replace them
_BLOCK = 65_536  # documents added at once
_TRAINING = 50  # documents per cell that cells are learned from; FAISS wants 39 or more


def kind_for(documents: int) -> Kind:
    return "exact" if documents < EXACT_BELOW else "hnsw" if documents < HNSW_BELOW else "ivfpq"


def parameters(kind: Kind, documents: int, dimension: int) -> dict[str, int]:
    """The parameters of a kind by size, under FAISS's names. Raises InputError for too few documents to learn from."""
    if kind == "exact":
        return {}
    if kind == "hnsw":
        return {"M": 32, "efConstruction": 200, "efSearch": 128}
    bits = min(8, (documents // _TRAINING).bit_length() - 1)
    if bits < 1:
        raise InputError(f"an ivfpq index learns from at least {2 * _TRAINING} documents, got {documents}; use exact")
    nlist = max(1, min(int(4 * math.sqrt(documents)), documents // _TRAINING))
    # A byte codes at most 4 dimensions, and all parts must be equally wide.
    parts = next(parts for parts in range(math.ceil(dimension / 4), dimension + 1) if dimension % parts == 0)
    return {"nlist": nlist, "m": parts, "nbits": bits, "nprobe": max(1, min(nlist, max(8, nlist // 16)))}


def build(kind: Kind, chosen: dict[str, int], embeddings: Floats, similarity: Similarity) -> Any:
    """A FAISS index of all embeddings (D, H), read in blocks; scores are inner products."""
    _set_threads()
    dimension = embeddings.shape[1]
    index: Any
    if kind == "exact":
        index = faiss.IndexFlatIP(dimension)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dimension, chosen["M"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = chosen["efConstruction"]
    else:
        cells = faiss.IndexFlatIP(dimension)
        layout = (chosen["nlist"], chosen["m"], chosen["nbits"])
        index = faiss.IndexIVFPQ(cells, dimension, *layout, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = similarity == "cosine"
        index.train(_sample(embeddings, chosen, similarity))
    add(index, embeddings, similarity)
    return index


def _sample(embeddings: Floats, chosen: dict[str, int], similarity: Similarity) -> Floats:
    """Documents to learn cells and codes from, drawn by a fixed seed."""
    count = min(len(embeddings), _TRAINING * max(chosen["nlist"], 2 ** chosen["nbits"]))
    rows = np.sort(np.random.default_rng(0).choice(len(embeddings), count, replace=False))
    return scored_block(embeddings[rows], 0, count, similarity, "document")


def add(index: Any, embeddings: Floats, similarity: Similarity) -> None:
    """Appends embeddings (n, H). Never to a memory-mapped index: FAISS would abort the process."""
    _set_threads()
    for start in range(0, len(embeddings), _BLOCK):
        stop = min(start + _BLOCK, len(embeddings))
        index.add(scored_block(embeddings, start, stop, similarity, "document"))


def read(path: Path, *, mapped: bool) -> Any:
    """The index in a file: memory-mapped to be searched, or whole in memory to be added to."""
    _set_threads()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY if mapped else 0)
    except RuntimeError:  # its text names FAISS's own source files
        raise InputError(f"{path}: absent, or not a FAISS index; build the index again") from None


def is_kind(index: Any, kind: Kind) -> bool:
    """Whether `build` makes such an index of this kind."""
    classes = {"exact": faiss.IndexFlatIP, "hnsw": faiss.IndexHNSWFlat, "ivfpq": faiss.IndexIVFPQ}
    of_kind = isinstance(index, classes[kind])
    return of_kind and bool(index.metric_type == faiss.METRIC_INNER_PRODUCT)


def write(index: Any, path: Path) -> None:
    faiss.write_index(index, str(path))


def vectors(index: Any) -> Floats:
    """(D, H) the documents' embeddings of an exact index, without a copy."""
    return np.asarray(faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)).reshape(index.ntotal, index.d)


def search(index: Any, chosen: dict[str, int], queries: Floats, k: int, removed: Rows) -> tuple[Floats, Rows]:
    """Scores and rows (Q, k) of an approximate index, best first; row -1 where it found fewer.

    queries: (Q, H) as scored. removed: rows that are never found.
    """
    _set_threads()
    if len(queries) == 0:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    # FAISS does not own the selector: it must live until the search is over.
    batch = faiss.IDSelectorBatch(removed)
    selector = faiss.IDSelectorNot(batch) if len(removed) else None
    if "efSearch" in chosen:
        options = _options.SearchParametersHNSW(sel=selector, efSearch=max(chosen["efSearch"], 2 * k))
    else:
        options = _options.SearchParametersIVF(sel=selector, nprobe=chosen["nprobe"])
    scores, rows = index.search(queries, k, params=options)
    return scores, rows


def _set_threads() -> None:
    """As many threads as torch uses, which knows the cores that this process may use; FAISS would take all."""
    faiss.omp_set_num_threads(torch.get_num_threads())
