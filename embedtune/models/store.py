"""The cache of embeddings: one `.npy` file with a manifest for each key, filled by several processes together.

An array that is not whole stands in `.NAME.partial`, beside a folder `done` with an empty file for each finished block
of rows. A process computes a block while it holds the block's lock in `.NAME.locks`; the kernel frees the lock of a
process that is killed. The block is finished once its rows are on disk, so a killed process loses its last blocks only
(the one it computes and the one it writes), and another process, or a later one, computes the rest. While a block is
computed, the next one is prepared and the one before is written, each on a thread. Rows are written to the file and not
through a memory map: two machines' pages of one file would overwrite each other.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from .. import distributed
from ..errors import InputError
from ..files import cache_folder, fingerprint_of, locked, write_json
from ..types import Role
from .beside import Rows, ahead

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
ROWS, DONE = "embeddings.npy", "done"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class Block:
    """The rows from `start` to before `stop`.

    prepare: reads and prepares the items, on another thread. compute: starts to compute (n, H) from them; it reports
    how many rows it has so far.
    """

    start: int
    stop: int
    prepare: Callable[[], Any]
    compute: Callable[[Any, Callable[[int], None]], Rows]

    @property
    def name(self) -> str:
        return f"{self.start}-{self.stop}"


def whole_block(start: int, stop: int, compute: Callable[[], Floats]) -> Block:
    """A block with nothing to prepare, whose rows are there when `compute` returns."""

    def rows(_: object, __: object) -> Rows:
        computed = compute()
        return lambda: computed

    return Block(start, stop, lambda: None, rows)


Blocks = Callable[[], Iterator[Block]]
"""Gives the blocks in order, the same blocks at each call and in each process."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a stored set of embeddings was computed from."""

    encoder: str
    role: Role
    items: str
    count: int

    @property
    def folder(self) -> Path:
        return cache_folder() / "embeddings" / fingerprint_of(self.encoder, self.role, self.items, str(self.count))

    @property
    def partial(self) -> Path:
        """The folder of the array while it is not whole."""
        return self.folder.with_name(f".{self.folder.name}.partial")

    @property
    def locks(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.locks")


def versions(dtype: str = "float32") -> dict[str, str]:
    """Library versions that numbers may depend on. dtype: the number format of the weights."""
    others = ["bitsandbytes"] if dtype == "4bit" else []
    return {name: version(name) for name in ("torch", "transformers", "sentence-transformers", *others)}


def computed(shape: tuple[int, int], blocks: Blocks, on_progress: Progress | None = None) -> Floats:
    """(n, H) in memory, computed by this process alone."""
    rows = np.empty(shape, dtype=np.float32)
    before: tuple[Block, Rows] | None = None
    with closing(ahead((block, block.prepare()) for block in blocks())) as prepared_blocks:
        for block, prepared in prepared_blocks:
            started = block, block.compute(prepared, _counting(on_progress, block.start, len(rows)))
            _take_in(rows, before)  # while the device computes this block
            before = started
    _take_in(rows, before)
    return rows


def _take_in(rows: Floats, started: tuple[Block, Rows] | None) -> None:
    if started is not None:
        block, wait = started
        rows[block.start : block.stop] = wait()


def cached(key: Key, shape: tuple[int, int], blocks: Blocks, on_progress: Progress | None = None) -> Floats:
    """(n, H) float32, memory-mapped: from the cache, or computed by blocks into it.

    Processes that want the same array at the same time share its blocks, whether one launch started them or not.
    Machines share where they share the cache's folder. Raises InputError where its file system has no locks.
    """
    try:
        while not key.folder.is_dir():
            _begin(key, shape)
            _seal(key, shape, _fill(key, shape[0], blocks, on_progress))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        folder = key.folder.parent
        raise InputError(
            f"{folder}: its file system has no locks ({error.strerror}); set EMBEDTUNE_CACHE to a folder on another"
        ) from None
    return _open(key, shape)


def forget(key: Key) -> None:
    """Removes an entry. A process that has it open can still read it."""
    shutil.rmtree(key.folder, ignore_errors=True)


def _begin(key: Key, shape: tuple[int, int]) -> None:
    """Makes the array that is to be filled, unless another process has begun it. The rows come last: a folder that has
    them is complete."""
    with locked(key.folder.parent, wait=True):
        if key.folder.is_dir() or _is_array(key.partial / ROWS, shape):
            return
        shutil.rmtree(key.partial, ignore_errors=True)
        (key.partial / DONE).mkdir(parents=True)
        np.lib.format.open_memmap(key.partial / "new.npy", mode="w+", dtype="float32", shape=shape).flush()
        (key.partial / "new.npy").replace(key.partial / ROWS)


def _is_array(path: Path, shape: tuple[int, int]) -> bool:
    """Whether an array of this shape stands there; False for a file that a power cut has damaged."""
    try:
        return bool(np.load(path, mmap_mode="r").shape == shape)
    except (OSError, ValueError, EOFError):
        return False


def _fill(key: Key, count: int, blocks: Blocks, on_progress: Progress | None) -> list[str]:
    """Computes blocks, beside other processes that do, and returns all blocks' names when none is left to do or the
    array has been moved away. on_progress: the rows that all processes together have done, and those of this block."""
    names: list[str] = []
    unfinished = True
    while unfinished and (key.partial / ROWS).exists():
        names, taken_by_others = _compute_free(key, count, blocks, on_progress)
        unfinished = False
        for name in taken_by_others:
            with suppress(FileNotFoundError), _lock(key, name):
                pass  # the block is finished, or its process has ended
            unfinished |= not _finished(key, name)
            if on_progress is not None:
                on_progress(_rows_done(key, count), count)
    return names


def _compute_free(key: Key, count: int, blocks: Blocks, on_progress: Progress | None) -> tuple[list[str], list[str]]:
    """Computes and writes the blocks that no other process has; returns all blocks' names, and those of the others'."""
    names: list[str] = []
    others: list[str] = []
    unwritten: set[str] = set()

    def taken_blocks() -> Generator[tuple[Block, FileLock, Any]]:
        for block in blocks():
            names.append(block.name)
            if _finished(key, block.name):
                continue
            lock = _lock(key, block.name)
            try:
                lock.acquire(timeout=0)
            except (Timeout, FileNotFoundError):  # taken, or removed with all locks when the array became whole
                others.append(block.name)
                continue
            locks.callback(lock.release)
            if not _finished(key, block.name):  # another process may have finished it a moment ago
                yield block, lock, block.prepare()
            else:
                lock.release()

    def keep(block: Block, lock: FileLock, wait: Rows) -> None:
        _write(key, block, wait())
        unwritten.discard(block.name)
        lock.release()

    def leaves_some(taken: tuple[Block, FileLock, Any]) -> bool:
        """Whether this launch's other processes find blocks when this one takes its next one early."""
        block = taken[0]
        return count - block.stop >= 2 * (distributed.count() - 1) * (block.stop - block.start)

    writing: Future[None] | None = None
    with (
        ExitStack() as locks,
        ThreadPoolExecutor(1) as writer,
        closing(ahead(taken_blocks(), leaves_some)) as prepared_blocks,
    ):
        for block, lock, prepared in prepared_blocks:
            done = _rows_done(key, count, unwritten)
            rows = block.compute(prepared, _counting(on_progress, done, count))
            if writing is not None:
                writing.result()
            unwritten.add(block.name)
            writing = writer.submit(keep, block, lock, rows)
        if writing is not None:
            writing.result()
    return names, others


def _write(key: Key, block: Block, rows: Floats) -> None:
    """Writes one block's rows; nothing where the array has been sealed or removed meanwhile."""
    try:
        with (key.partial / ROWS).open("r+b") as file:
            width = np.load(key.partial / ROWS, mmap_mode="r")
            file.seek(width.offset + block.start * width.strides[0])
            file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
            file.flush()
            os.fsync(file.fileno())
        (key.partial / DONE / block.name).touch()
    except FileNotFoundError:
        pass


def _lock(key: Key, name: str) -> FileLock:
    """thread_local: the thread that writes a block gives its lock back."""
    return FileLock(key.locks / name, poll_interval=0.02, fallback_to_soft=False, thread_local=False)


def _finished(key: Key, name: str) -> bool:
    return (key.partial / DONE / name).exists() or key.folder.is_dir()


def _rows_done(key: Key, count: int, unwritten: Collection[str] = ()) -> int:
    """The rows of the blocks that are finished, and of those that are still being written."""
    if key.folder.is_dir() or not (key.partial / DONE).is_dir():
        return count
    return min(_rows_in({path.name for path in (key.partial / DONE).iterdir()}.union(unwritten)), count)


def _rows_in(names: Iterable[str]) -> int:
    ends = (name.split("-") for name in names)
    return sum(int(stop) - int(start) for start, stop in ends)


def _seal(key: Key, shape: tuple[int, int], names: list[str]) -> None:
    """Moves a whole array to its place, by the first process to come. `doctor --clean` may have removed the array and
    another process may have begun again: then its blocks are not all finished, and nothing is moved."""
    with locked(key.folder.parent, wait=True):
        finished = _rows_in(names) == shape[0] and all((key.partial / DONE / name).exists() for name in names)
        if not key.folder.is_dir() and (key.partial / ROWS).exists() and finished:
            write_json(key.partial / "manifest.json", _manifest(key, shape))
            key.partial.replace(key.folder)
            shutil.rmtree(key.folder / DONE)
            shutil.rmtree(key.locks, ignore_errors=True)


def _manifest(key: Key, shape: tuple[int, int]) -> dict[str, object]:
    return asdict(key) | {"dimension": shape[1], "dtype": "float32"}


def _open(key: Key, shape: tuple[int, int]) -> Floats:
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


def _counting(on_progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return lambda done: None if on_progress is None else on_progress(min(before + done, total), total)
