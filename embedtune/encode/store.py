"""Embeddings on disk: `.npy` with a manifest, keyed by content, refused where the manifest does not match."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import cache_folder, fingerprint_of, locked, write_json
from ..types import Role

Fill = Callable[[npt.NDArray[np.float32], int, Callable[[int], None]], None]
"""(rows, first, filled): fills the rows from `first` on, and may say now and then how many are filled."""


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
    """(n, H) float32, memory-mapped: from the cache, or computed by `fill` into it.

    What stands in the cache is whole. What a killed process had filled is gone on with, from where it last said; of two
    processes that want the same, one computes and the other waits.
    """
    if not key.folder.is_dir():
        partial = key.folder.with_name(f".{key.folder.name}.partial")
        with locked(partial, wait=True):
            if not key.folder.is_dir():
                _fill(partial / "data", key, shape, fill)
                (partial / "data").replace(key.folder)
            shutil.rmtree(partial, ignore_errors=True)
    return _open(key, shape)


def _fill(folder: Path, key: Key, shape: tuple[int, int], fill: Fill) -> None:
    """Fills the folder's array from where an earlier process stopped."""
    path, progress = folder / "embeddings.npy", folder / "progress.json"
    folder.mkdir(exist_ok=True)
    first = int(json.loads(progress.read_text(encoding="utf-8"))["rows"]) if progress.exists() else 0
    rows = np.lib.format.open_memmap(path, mode="r+" if first else "w+", dtype="float32", shape=shape)

    def filled(count: int) -> None:
        if count == len(rows):  # what is whole needs no place to go on from
            return
        rows.flush()
        write_json(progress, {"rows": count})

    fill(rows, first, filled)
    rows.flush()
    progress.unlink(missing_ok=True)
    write_json(folder / "manifest.json", asdict(key) | {"dimension": shape[1], "dtype": "float32"})


def _open(key: Key, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    expected = asdict(key) | {"dimension": shape[1], "dtype": "float32"}
    try:
        manifest = json.loads((key.folder / "manifest.json").read_text(encoding="utf-8"))
        rows = np.load(key.folder / "embeddings.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{key.folder}: damaged embedding cache ({error}); remove it or `embedtune doctor --clean`"
        ) from None
    if manifest != expected or rows.shape != shape:
        raise InputError(f"{key.folder}: embedding cache of something else; remove it or `embedtune doctor --clean`")
    return rows  # type: ignore[no-any-return]


def write_array(
    path: Path, shape: tuple[int, ...], dtype: str, fill: Callable[[npt.NDArray[np.float32]], None]
) -> None:
    """A `.npy` file of that shape, filled through a memory map."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    fill(mapped)
    mapped.flush()
