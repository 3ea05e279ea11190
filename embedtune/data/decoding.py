"""Decodes many images at once, in processes of their own: Pillow decodes one at a time in a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, TypeVar

from PIL import Image

from .images import BrokenImage, fault_of, open_image

T = TypeVar("T")
MOST_WORKERS = 8  # a model on one device is not fed faster by more
ENOUGH_CORES = 4  # with fewer, the model needs them


class Decoders:
    """Worker processes that open images; none where `workers` is 0, then this process does.

    Started when first used. A worker is `python -m` this module, which reads paths and writes pixels, so a program
    that uses it needs no `if __name__ == "__main__"`, and a worker starts without torch.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    def open(self, paths: Sequence[Path]) -> list[Image.Image]:
        """The images as RGB, in order. Raises BrokenImage as `images.open_image` does."""
        return self._each(paths, self._opened) if self.workers else [open_image(path) for path in paths]

    def faults(self, paths: Sequence[Path]) -> list[str | None]:
        """For each path why it cannot be read as an image, or None."""
        return self._each(paths, self._fault) if self.workers else [fault_of(path) for path in paths]

    def close(self) -> None:
        """Ends the workers; they start again when they are used again."""
        for process in self._processes:
            process.communicate()  # the end of its input is its end
        self._processes, self._idle = [], SimpleQueue()

    def _each(self, paths: Sequence[Path], ask: Callable[[Path], T]) -> list[T]:
        while len(self._processes) < min(self.workers, len(paths)):
            self._processes.append(_start())
            self._idle.put(self._processes[-1])
        with ThreadPoolExecutor(self.workers) as threads:  # each waits for one worker at a time
            return list(threads.map(ask, paths))

    def _opened(self, path: Path) -> Image.Image:
        head, pixels = self._asked(path, pixels=True)
        if "fault" in head:
            raise BrokenImage(path, head["fault"])
        return Image.frombytes("RGB", tuple(head["size"]), pixels)

    def _fault(self, path: Path) -> str | None:
        head, _ = self._asked(path, pixels=False)
        return head.get("fault")

    def _asked(self, path: Path, *, pixels: bool) -> tuple[dict[str, Any], bytes]:
        for _ in range(2):
            process = self._idle.get()
            try:
                answer = _ask(process, path, pixels)
            except (OSError, ValueError):  # it is no more: killed, or brought down by this very file
                self._replace(process)
            else:
                self._idle.put(process)
                return answer
        return {"fault": "damaged image: its decoder died twice"}, b""

    def _replace(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.communicate()
        self._processes[self._processes.index(process)] = fresh = _start()
        self._idle.put(fresh)


def _start() -> subprocess.Popen[bytes]:
    package = str(Path(__file__).parents[2])
    found = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "embedtune.data.decoding"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": found},
        start_new_session=True,  # an interrupt from the terminal is for the run, which saves its state first
    )


def _ask(process: subprocess.Popen[bytes], path: Path, pixels: bool) -> tuple[dict[str, Any], bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write((json.dumps({"path": str(path), "pixels": pixels}) + "\n").encode())
    process.stdin.flush()
    head = json.loads(process.stdout.readline())
    size = head.get("bytes", 0)
    found = process.stdout.read(size)
    if len(found) < size:
        raise OSError("the worker ended")
    return head, found


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """A worker: for each line with a path, a line with the image's size or its fault, then its pixels if wanted."""
    for line in requests:
        asked = json.loads(line)
        try:
            image = open_image(Path(asked["path"]))
        except BrokenImage as fault:
            head: dict[str, Any] = {"fault": fault.reason}
            pixels = b""
        else:
            pixels = image.tobytes() if asked["pixels"] else b""
            head = {"size": image.size, "bytes": len(pixels)}
        answers.write((json.dumps(head) + "\n").encode() + pixels)
        answers.flush()


@cache
def decoders() -> Decoders:
    """This process's decoders: as many as there are cores for beside the model."""
    import atexit

    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = own // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    found = Decoders(min(MOST_WORKERS, cores - 1) if cores >= ENOUGH_CORES else 0)
    atexit.register(found.close)
    return found


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
