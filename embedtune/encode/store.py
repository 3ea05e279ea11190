"""Embeddings on disk: `.npy` with a manifest, keyed by content, refused where the manifest does not match."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import cache_folder, fingerprint_of, whole_folder, write_json
from ..types import Role

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
            write_array(temporary / "embeddings.npy", shape, "float32", fill)
            write_json(temporary / "manifest.json", asdict(key) | {"dimension": shape[1], "dtype": "float32"})
    return _open(key, shape)


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


def write_array(path: Path, shape: tuple[int, ...], dtype: str, fill: Fill) -> None:
    """A `.npy` file of that shape, filled through a memory map."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    fill(mapped)
    mapped.flush()
