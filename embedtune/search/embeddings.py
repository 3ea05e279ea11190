"""A dataset's embeddings as files for other tools: `.npy`, ids, a manifest."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..data.passages import PassageItems
from ..files import FolderKind, check_folder, whole_folder, write_json, write_lines
from ..types import Dataset
from .exact import Floats
from .storage import Storage, bytes_of, dimensions_of
from .vectors import BLOCK, Form, forms_of, outside, ranges_of

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress

ENCODED = FolderKind(
    verb="encode",
    unmarked={"corpus.ids", "corpus.npy", "manifest.json", "queries.ids", "queries.npy"}.__eq__,
)


def encode_dataset(
    encoder: Encoder,
    dataset: Dataset,
    output: Path,
    *,
    storage: Storage | None = None,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes `corpus.npy` and `queries.npy` (n, H), their ids (`.ids`, one a line) and `manifest.json`.

    A set without items has no files. Where the encoder splits documents, the corpus is their passages, and
    `corpus.spans.npy` (n, 2) says where each one's text starts and ends in its document's, in characters.
    storage: how the corpus is stored, by default whole; queries stay float32. Codes are sentence-transformers' int8 and
    ubinary (a bit for each dimension, the first one the highest). Vectors are cut as there: after all modules, so that
    those of a model that normalises are no longer of unit length. Beside int8 stands calibration.npy (2, H). Returns
    the manifest. Raises InputError for an output that may not be replaced, and for more dimensions than the model has.
    """
    storage = storage or Storage()
    check_folder(output, ENCODED, overwrite=overwrite)
    corpus = encoder.split(dataset.corpus)
    dimension = dimensions_of(encoder.name, encoder.dimension, storage.truncate_dim)
    manifest: dict[str, Any] = {
        "model": encoder.name,
        "encoder": encoder.fingerprint,
        "similarity": encoder.similarity,
        "dimension": dimension,
        "dtype": {"none": "float32", "binary": "uint8"}.get(storage.quantize, storage.quantize),
        "quantize": storage.quantize,
        "bytes": bytes_of(dimension, storage.quantize),
        "precision": encoder.precision,
        "dataset": dataset.label,
        "dataset_fingerprint": dataset.fingerprint,
        "passages": asdict(encoder.passages) if encoder.passages else None,
    }
    with whole_folder(output, ENCODED, overwrite=overwrite) as temporary:
        documents = encoder.encode(corpus, "document", on_progress=on_progress)
        form = _form(encoder, storage, documents, dimension)
        if form.ranges is not None:
            np.save(temporary / "calibration.npy", form.ranges)
            manifest |= {"outside_calibration": outside(documents, form)}
        _write(temporary / "corpus.npy", documents, form)
        if isinstance(corpus, PassageItems):
            np.save(temporary / "corpus.spans.npy", corpus.spans)
        if len(dataset.queries):
            queries = encoder.encode(dataset.queries, "query", on_progress=on_progress)
            _write(temporary / "queries.npy", queries, replace(form, quantize="none", ranges=None))
        for name, items in (("corpus", corpus), ("queries", dataset.queries)):
            manifest[name] = len(items)
            if len(items):
                write_lines(temporary / f"{name}.ids", items.ids)
        write_json(temporary / "manifest.json", manifest)
    return manifest


def _form(encoder: Encoder, storage: Storage, documents: Floats, dimension: int) -> Form:
    """How the corpus is stored: as the model gives it ("dot"), so that nothing is normalised."""
    ranges = None
    if storage.quantize == "int8":
        source = documents if storage.calibrate is None else encoder.encode(storage.calibrate, "document")
        ranges = ranges_of(source, dimension, "dot")
    return forms_of(storage, dimension, "dot", ranges)[0]


def _write(path: Path, rows: Floats, form: Form) -> None:
    """Writes rows (n, at least H) in a form; int8 as signed numbers, as sentence-transformers gives it."""
    signed = form.quantize == "int8"
    shape, dtype = (len(rows), form.width), np.dtype("int8") if signed else form.dtype
    file = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    for start in range(0, len(rows), BLOCK):  # never the whole corpus in memory
        codes: npt.NDArray[Any] = form.block(rows, start, min(start + BLOCK, len(rows)))
        file[start : start + BLOCK] = (codes ^ 0x80).view(np.int8) if signed else codes
    file.flush()
