"""Embeddings on disk: `.npy` with a manifest, keyed by content, refused where the manifest does not match."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..files import cache_folder, fingerprint_of, locked, write_json
from ..types import Role
from .shared import MARKS, ROWS, Blocks, Progress, SharedRows, create

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


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

    @property
    def partial(self) -> Path:
        """Where it is while it is not whole."""
        return self.folder.with_name(f".{self.folder.name}.partial")


def versions() -> dict[str, str]:
    """Library versions that numbers may depend on."""
    return {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}


def cached(
    key: Key, shape: tuple[int, int], blocks: Blocks, on_progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """(n, H) float32, memory-mapped: from the cache, or computed by blocks into it.

    What stands in the cache is whole. Processes that want the same at the same time share its blocks, those of one
    launch and any others; what a killed process had done is gone on with. Machines share where they share the cache's
    folder and its file system has locks. Raises InputError where it has none.
    """
    try:
        while not key.folder.is_dir():
            rows = _begin(key, shape)
            if rows is not None:
                with closing(rows):
                    rows.fill(blocks, on_progress)
                    _seal(key, shape, rows)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        folder = key.folder.parent
        raise InputError(
            f"{folder}: its file system has no locks ({error.strerror}); set EMBEDTUNE_CACHE to a folder on another"
        ) from None
    return _open(key, shape)


def forget(key: Key) -> None:
    """Removes an entry. Whoever has it open keeps what it reads."""
    shutil.rmtree(key.folder, ignore_errors=True)


def _begin(key: Key, shape: tuple[int, int]) -> SharedRows | None:
    """The array to be filled: a new one, or what another process has of it. None where it has just become whole."""
    with locked(key.folder.parent, wait=True):  # for a moment, so that nobody opens what is just being renamed
        if key.folder.is_dir():
            return None
        if (key.partial / MARKS).exists():
            with suppress(ValueError, EOFError):  # of an array that a power cut has damaged
                return SharedRows(key.partial)
        shutil.rmtree(key.partial, ignore_errors=True)
        create(key.partial, shape)
        return SharedRows(key.partial)


def _seal(key: Key, shape: tuple[int, int], rows: SharedRows) -> None:
    """Puts a whole array in its place; of those who filled it the first to come does.

    `doctor --clean` may have removed it meanwhile, and another process begun anew: that one's is not whole.
    """
    with locked(key.folder.parent, wait=True):
        if not key.folder.is_dir() and rows.lies_in(key.partial):
            write_json(key.partial / "manifest.json", _manifest(key, shape))
            key.partial.replace(key.folder)
            (key.folder / MARKS).unlink()


def _manifest(key: Key, shape: tuple[int, int]) -> dict[str, object]:
    return asdict(key) | {"dimension": shape[1], "dtype": "float32"}


def _open(key: Key, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    try:
        manifest = json.loads((key.folder / "manifest.json").read_text(encoding="utf-8"))
        rows = np.load(key.folder / ROWS, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{key.folder}: damaged embedding cache ({error}); remove it or `embedtune doctor --clean`"
        ) from None
    if manifest != _manifest(key, shape) or rows.shape != shape:
        raise InputError(f"{key.folder}: embedding cache of something else; remove it or `embedtune doctor --clean`")
    return rows  # type: ignore[no-any-return]


def write_array(
    path: Path, shape: tuple[int, ...], dtype: str, fill: Callable[[npt.NDArray[np.float32]], None]
) -> None:
    """A `.npy` file of that shape, filled through a memory map."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    fill(mapped)
    mapped.flush()
