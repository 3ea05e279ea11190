"""FAISS: which kind of index suits how many documents, with which parameters, and how each is built and searched."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import torch

from ..errors import InputError
from .exact import Floats, Rows
from .storage import Quantize
from .vectors import Form, Stored

Kind = Literal["exact", "hnsw", "ivfpq"]
_options: Any = faiss  # its stubs know no keyword arguments

# The precisions that each kind stores; ivfpq has codes of its own.
_STORES: dict[Kind, tuple[Quantize, ...]] = {
    "exact": ("none", "float16", "int8", "binary"),
    "hnsw": ("none", "float16", "int8"),
    "ivfpq": ("none",),
}
_QUANTISERS = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
EXACT_BELOW = 50_000  # documents: exact search answers within milliseconds
HNSW_BELOW = 1_000_000  # documents: from here on whole vectors take too much memory, and short codes replace them
_BLOCK = 65_536  # documents added at once
_TRAINING = 50  # documents per cell that cells are learned from; FAISS wants 39 or more


def kind_for(documents: int, quantize: Quantize = "none") -> Kind:
    """The kind that `auto` means. Bits are scanned faster than a graph of them is searched, and have no cells."""
    if documents < EXACT_BELOW or quantize == "binary":
        return "exact"
    return "hnsw" if documents < HNSW_BELOW or quantize != "none" else "ivfpq"


def parameters(kind: Kind, documents: int, dimension: int, quantize: Quantize = "none") -> dict[str, int]:
    """The parameters of a kind by size, under FAISS's names. Raises InputError for too few documents to learn from, and
    for a precision that the kind does not store."""
    if quantize not in _STORES[kind]:
        raise InputError(f"an {kind} index does not store {quantize} vectors; it stores {' or '.join(_STORES[kind])}")
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


def build(kind: Kind, chosen: dict[str, int], embeddings: Floats, form: Form) -> Any:
    """A FAISS index of the model's embeddings (D, at least H) in a form, read in blocks; scores are inner products."""
    _set_threads()
    index = _empty(kind, chosen, form)
    if kind == "ivfpq":
        index.cp.spherical = form.similarity == "cosine"
        index.train(_sample(embeddings, chosen, form))
    add(index, embeddings, form)
    return index


def _empty(kind: Kind, chosen: dict[str, int], form: Form) -> Any:
    """The index without a document; ivfpq must still learn its codes."""
    index: Any
    dimension, inner_product = form.dimension, faiss.METRIC_INNER_PRODUCT
    if form.quantize == "binary":
        index = faiss.IndexBinaryFlat(8 * form.width)
    elif kind == "ivfpq":
        cells = faiss.IndexFlatIP(dimension)
        index = faiss.IndexIVFPQ(cells, dimension, chosen["nlist"], chosen["m"], chosen["nbits"], inner_product)
    elif form.quantize == "none":
        exact = kind == "exact"
        index = faiss.IndexFlatIP(dimension) if exact else faiss.IndexHNSWFlat(dimension, chosen["M"], inner_product)
    else:
        made: Any = faiss.IndexScalarQuantizer if kind == "exact" else faiss.IndexHNSWSQ
        links = () if kind == "exact" else (chosen["M"],)
        index = made(dimension, _QUANTISERS[form.quantize], *links, inner_product)
        if form.ranges is not None:  # FAISS's own training would not take a calibration by other documents
            low, high = form.ranges
            faiss.copy_array_to_vector(np.concatenate([low, high - low]), _stored_in(index, kind).sq.trained)
        index.is_trained = _stored_in(index, kind).is_trained = True
    if kind == "hnsw":
        index.hnsw.efConstruction = chosen["efConstruction"]
    return index


def _stored_in(index: Any, kind: Kind) -> Any:
    """The part of an index that holds the vectors' codes."""
    storage: Any = index if kind == "exact" else faiss.downcast_index(index.storage)
    return storage


def _sample(embeddings: Floats, chosen: dict[str, int], form: Form) -> Floats:
    """Documents to learn cells and codes from, drawn by a fixed seed."""
    count = min(len(embeddings), _TRAINING * max(chosen["nlist"], 2 ** chosen["nbits"]))
    rows = np.sort(np.random.default_rng(0).choice(len(embeddings), count, replace=False))
    return form.block(embeddings[rows], 0, count)


def add(index: Any, embeddings: Floats, form: Form) -> None:
    """Appends embeddings (n, at least H). Never to a memory-mapped index: FAISS would abort the process."""
    _set_threads()
    for start in range(0, len(embeddings), _BLOCK):
        codes = form.block(embeddings, start, min(start + _BLOCK, len(embeddings)))
        # What a code is read as lies in the middle of its step, so that FAISS gives it the same code.
        index.add(codes if form.quantize == "binary" else form.read(codes))


def read(path: Path, quantize: Quantize, *, mapped: bool) -> Any:
    """The index in a file: memory-mapped to be searched, or whole in memory to be added to."""
    _set_threads()
    open_file = faiss.read_index_binary if quantize == "binary" else faiss.read_index
    try:
        return open_file(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY if mapped else 0)
    except RuntimeError:  # its text names FAISS's own source files
        raise InputError(f"{path}: absent, or not a FAISS index; build the index again") from None


def is_kind(index: Any, kind: Kind, form: Form) -> bool:
    """Whether `build` makes such an index of this kind and form."""
    if form.quantize == "binary":
        return isinstance(index, faiss.IndexBinaryFlat) and index.d == 8 * form.width
    whole = {"exact": faiss.IndexFlatIP, "hnsw": faiss.IndexHNSWFlat, "ivfpq": faiss.IndexIVFPQ}
    coded = {"exact": faiss.IndexScalarQuantizer, "hnsw": faiss.IndexHNSWSQ}
    of_kind = isinstance(index, whole[kind] if form.quantize == "none" else coded[kind])
    if not of_kind or index.d != form.dimension or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        return False
    if form.quantize == "none":
        return True
    quantiser = _stored_in(index, kind).sq
    if form.ranges is None:
        return bool(quantiser.qtype == _QUANTISERS[form.quantize])
    low, high = form.ranges
    trained = faiss.vector_to_array(quantiser.trained)
    return bool(quantiser.qtype == _QUANTISERS[form.quantize] and np.array_equal(trained, [*low, *(high - low)]))


def write(index: Any, path: Path) -> None:
    (faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index)(index, str(path))


def vectors(index: Any, form: Form) -> Stored:
    """The documents' vectors of an exact index, without a copy."""
    if form.quantize == "none":
        values = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
    else:
        codes = index.xb if form.quantize == "binary" else index.codes
        values = faiss.rev_swig_ptr(codes.data(), index.ntotal * index.code_size)
    return Stored(form=form, values=np.asarray(values).view(form.dtype).reshape(index.ntotal, form.width))


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
