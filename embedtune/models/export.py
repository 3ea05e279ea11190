"""A dataset's embeddings as files for other tools: `.npy`, ids, a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..files import FolderKind, check_folder, whole_folder, write_json, write_lines
from ..types import Dataset, Items, Role
from .encoder import Encoder, Progress

ENCODED = FolderKind(
    verb="encode",
    unmarked={"corpus.ids", "corpus.npy", "manifest.json", "queries.ids", "queries.npy"}.__eq__,
)
ROWS_AT_ONCE = 65536  # never the whole corpus in memory


def encode_dataset(
    encoder: Encoder,
    dataset: Dataset,
    output: Path,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes `corpus.npy` and `queries.npy` (n, H), their ids (`.ids`, one a line) and `manifest.json`.

    Returns the manifest. Raises InputError for an output that may not be replaced.
    """
    check_folder(output, ENCODED, overwrite=overwrite)
    manifest: dict[str, Any] = {
        "model": encoder.name,
        "encoder": encoder.fingerprint,
        "similarity": encoder.similarity,
        "dimension": encoder.dimension,
        "dtype": dtype,
        "precision": encoder.precision,
        "dataset": dataset.label,
        "dataset_fingerprint": dataset.fingerprint,
    }
    with whole_folder(output, ENCODED, overwrite=overwrite) as temporary:
        sets: list[tuple[str, Items, Role]] = [
            ("corpus", dataset.corpus, "document"),
            ("queries", dataset.queries, "query"),
        ]
        for name, items, role in sets:
            rows = encoder.encode(items, role, on_progress=on_progress)
            _write(temporary / f"{name}.npy", rows, dtype)
            write_lines(temporary / f"{name}.ids", items.ids)
            manifest[name] = len(items)
        write_json(temporary / "manifest.json", manifest)
    return manifest


def _write(path: Path, rows: npt.NDArray[np.float32], dtype: str) -> None:
    file = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=rows.shape)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        file[start : start + ROWS_AT_ONCE] = rows[start : start + ROWS_AT_ONCE]
    file.flush()
