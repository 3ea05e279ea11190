"""One array of rows that all processes which want it compute together.

Beside the array stands a file with a mark for each block of rows. A process claims a block by a lock on its mark, which
the kernel frees whatever becomes of the process; it computes the block, writes its rows, and only when they are on disk
marks it as done. So of a process that is killed everything but its last block stands, and whoever is left, or comes
later, does the rest. Rows are written to the file, not through a memory map: two machines' pages of one file would
overwrite each other.

The locks are a process's, not a thread's: two threads that want the same array both compute it, to the same bits.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
ROWS, MARKS = "embeddings.npy", "marks"
_MARK = struct.Struct("<qq")  # the first row of a block that is done, and the one behind its last; else zeros


@dataclass(frozen=True)
class Block:
    """The rows from `start` to before `stop`. compute: (n, H) of them; it may say how many it has so far."""

    start: int
    stop: int
    compute: Callable[[Callable[[int], None]], Floats]


Blocks = Callable[[], Iterator[Block]]
"""Gives the blocks in order, the same ones each time and in each process."""


def computed(shape: tuple[int, int], blocks: Blocks, on_progress: Progress | None = None) -> Floats:
    """(n, H) in memory, by this process alone."""
    rows = np.empty(shape, dtype=np.float32)
    for block in blocks():
        rows[block.start : block.stop] = block.compute(_counting(on_progress, block.start, len(rows)))
    return rows


def create(folder: Path, shape: tuple[int, int]) -> None:
    """An array of which no row is there. The marks come last: a folder that has them is whole."""
    folder.mkdir()
    np.lib.format.open_memmap(folder / ROWS, mode="w+", dtype="float32", shape=shape).flush()
    (folder / MARKS).touch()


class SharedRows:
    """The array of a folder that `create` made. It may be renamed meanwhile."""

    def __init__(self, folder: Path) -> None:
        mapped = np.load(folder / ROWS, mmap_mode="r")
        self._count, self._offset, self._bytes = len(mapped), mapped.offset, mapped.strides[0]
        self._rows = (folder / ROWS).open("r+b")
        self._marks = (folder / MARKS).open("r+b", buffering=0)

    def close(self) -> None:
        self._rows.close()
        self._marks.close()

    def lies_in(self, folder: Path) -> bool:
        """Whether the folder's array is this one."""
        try:
            return os.path.samestat(os.fstat(self._marks.fileno()), (folder / MARKS).stat())
        except FileNotFoundError:
            return False

    def fill(self, blocks: Blocks, on_progress: Progress | None = None) -> None:
        """Computes blocks, beside whoever else does, and returns when all are done, whoever did them.

        on_progress: the rows that all processes together have done, and those of this one's block.
        """
        undone = True
        while undone:
            claimed = []  # by others; not the blocks themselves, which hold their items
            for number, block in enumerate(blocks()):
                place = block.start, block.stop
                if not self._done(number, place) and not self._take(number, block, on_progress):
                    claimed.append((number, place))
            undone = False
            for number, place in claimed:
                with self._claim(number, wait=True):  # until it is done, or whoever had it is no more
                    undone |= not self._done(number, place)
                if on_progress is not None:
                    on_progress(self._rows_done(), self._count)

    def _take(self, number: int, block: Block, on_progress: Progress | None) -> bool:
        """Does a block, unless another process is at it."""
        with self._claim(number) as mine:
            if mine and not self._done(number, (block.start, block.stop)):  # it was not a moment ago
                rows = block.compute(_counting(on_progress, self._rows_done(), self._count))
                self._rows.seek(self._offset + block.start * self._bytes)
                self._rows.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
                self._rows.flush()
                os.fsync(self._rows.fileno())
                os.pwrite(self._marks.fileno(), _MARK.pack(block.start, block.stop), number * _MARK.size)
        return mine

    @contextmanager
    def _claim(self, number: int, *, wait: bool = False) -> Iterator[bool]:
        """Holds a block, and says whether it could be had."""
        place = (_MARK.size, number * _MARK.size)
        try:
            fcntl.lockf(self._marks, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB, *place)
        except (BlockingIOError, PermissionError):  # POSIX lets a system answer either
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._marks, fcntl.LOCK_UN, *place)

    def _done(self, number: int, place: tuple[int, int]) -> bool:
        """A mark of other rows is that of a version with other blocks, and counts for nothing."""
        return os.pread(self._marks.fileno(), _MARK.size, number * _MARK.size) == _MARK.pack(*place)

    def _rows_done(self) -> int:
        marks = os.pread(self._marks.fileno(), os.fstat(self._marks.fileno()).st_size, 0)
        return sum(stop - start for start, stop in _MARK.iter_unpack(marks[: len(marks) // _MARK.size * _MARK.size]))


def _counting(on_progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return lambda done: None if on_progress is None else on_progress(min(before + done, total), total)
