"""A dataset's embeddings as files for other tools: `.npy`, ids, a manifest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import whole_folder, write_json, write_lines
from ..types import Dataset, Role
from .encoder import Encoder, Progress
from .store import write_array


def _copy(rows: npt.NDArray[np.float32], target: npt.NDArray[Any]) -> None:
    for start in range(0, len(rows), 65536):  # never the whole corpus in memory
        target[start : start + 65536] = rows[start : start + 65536]


def encode_dataset(
    encoder: Encoder,
    dataset: Dataset,
    output: Path,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes `corpus.npy`, `queries.npy` (n, H), their ids (`.ids`, a line each) and `manifest.json`; returns it."""
    if output.exists():
        raise InputError(f"{output}: exists already; choose another --output")
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
    with whole_folder(output) as temporary:
        roles: list[tuple[str, Any, Role]] = [
            ("corpus", dataset.corpus, "document"),
            ("queries", dataset.queries, "query"),
        ]
        for name, items, role in roles:
            rows = encoder.encode(items, role, on_progress=on_progress)
            write_array(temporary / f"{name}.npy", rows.shape, dtype, partial(_copy, rows))
            write_lines(temporary / f"{name}.ids", items.ids)
            manifest[name] = len(items)
        write_json(temporary / "manifest.json", manifest)
    return manifest
