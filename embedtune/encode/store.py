"""Embeddings on disk: `.npy` with a manifest, keyed by content, refused where the manifest does not match."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import cache_folder, fingerprint_of, whole_folder, write_json, write_lines
from ..types import Dataset, Role

if TYPE_CHECKING:
    from .encoder import Encoder, Progress

Fill = Callable[[npt.NDArray[np.float32]], None]


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a stored set of embeddings was made from."""

    encoder: str
    role: Role
    items: str
    count: int

    @property
    def folder(self) -> Path:
        return cache_folder() / "embeddings" / fingerprint_of(self.encoder, self.role, self.items, str(self.count))


def versions() -> dict[str, str]:
    """Library versions that numbers may depend on."""
    return {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}


def cached(key: Key, shape: tuple[int, int], fill: Fill) -> npt.NDArray[np.float32]:
    """(n, H) float32, memory-mapped: from the cache, or computed by `fill` into it, whole or not at all."""
    if not key.folder.is_dir():
        with whole_folder(key.folder) as temporary:
            _write(temporary / "embeddings.npy", shape, "float32", fill)
            write_json(temporary / "manifest.json", asdict(key) | {"dimension": shape[1], "dtype": "float32"})
    return _open(key, shape)


def _open(key: Key, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    expected = asdict(key) | {"dimension": shape[1], "dtype": "float32"}
    try:
        manifest = json.loads((key.folder / "manifest.json").read_text(encoding="utf-8"))
        rows = np.load(key.folder / "embeddings.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{key.folder}: damaged embedding cache ({error}); remove it or `embedtune doctor --clean`") from None
    if manifest != expected or rows.shape != shape:
        raise InputError(f"{key.folder}: embedding cache of something else; remove it or `embedtune doctor --clean`")
    return rows  # type: ignore[no-any-return]


def _write(path: Path, shape: tuple[int, ...], dtype: str, fill: Fill) -> None:
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    fill(mapped)
    mapped.flush()


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
            _write(temporary / f"{name}.npy", rows.shape, dtype, partial(_copy, rows))
            write_lines(temporary / f"{name}.ids", items.ids)
            manifest[name] = len(items)
        write_json(temporary / "manifest.json", manifest)
    return manifest
