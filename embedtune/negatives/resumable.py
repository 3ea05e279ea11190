"""What a mining has written so far, kept beside its output: killed and started again, it goes on from there."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from ..errors import InputError, Interrupted
from ..files import fingerprint_of_file, locked, write_json
from ..models.encoder import Encoder
from ..models.scorers import frozen
from .evidence import Files

EVERY = 30.0  # seconds between two places to go on from; one costs a few milliseconds


class Unfinished:
    """A run and its evidence while they are written, in a folder of their own.

    noted: what `note` was told last, by this process or by the one before it; what was written after that is gone.
    """

    def __init__(self, folder: Path, files: Files) -> None:
        self._folder, self._files, self._noted_at = folder, files, time.monotonic()
        self._run, self._evidence = (folder / file.name for file in (files.run, files.evidence))
        self._place = folder / "place.json"
        self.noted = self._cut_back()
        self.run: TextIO = self._run.open("a", encoding="utf-8")
        self.evidence: TextIO = self._evidence.open("a", encoding="utf-8")

    def _cut_back(self) -> dict[str, Any] | None:
        """Cuts both files to what they held at the last place, or empties the folder where there is none."""
        paths = (self._run, self._evidence)
        if self._place.exists() and all(path.exists() for path in paths):
            said: dict[str, Any] = json.loads(self._place.read_text(encoding="utf-8"))
            if all(path.stat().st_size >= size for path, size in zip(paths, said["bytes"], strict=True)):
                for path, size in zip(paths, said["bytes"], strict=True):
                    os.truncate(path, size)
                return said
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return None

    @property
    def due(self) -> bool:
        """Whether it is time for another place to go on from."""
        return time.monotonic() - self._noted_at >= EVERY

    def note(self, report: dict[str, Any]) -> None:
        """Makes this a place to go on from, with what all that was written came to."""
        for file in (self.run, self.evidence):
            file.flush()
            os.fsync(file.fileno())
        sizes = [os.fstat(file.fileno()).st_size for file in (self.run, self.evidence)]
        self.noted = {"bytes": sizes, "report": dict(report)}
        write_json(self._place, self.noted)
        self._noted_at = time.monotonic()

    def finish(self, report: dict[str, Any], summary: dict[str, Any]) -> None:
        """Puts run and evidence in their places, and the summary last; an earlier one goes first, so that none is ever
        wrong."""
        self.note(report)
        self.close()
        write_json(self._folder / self._files.summary.name, summary)
        self._files.summary.unlink(missing_ok=True)
        for file in (self._files.evidence, self._files.run, self._files.summary):
            (self._folder / file.name).replace(file)

    def close(self) -> None:
        try:
            self.run.close()
        finally:
            self.evidence.close()


@contextmanager
def unfinished(files: Files, key: str) -> Iterator[Unfinished]:
    """The files of a mining while they are written, as an earlier process left them if it had the same key.

    key: of all that the files depend on; another command has another one, and starts afresh.

    What is unfinished stays only where there is a place to go on from, and not after an InputError, which would come
    again. When a mining is done, what other commands left for the same output goes too. Raises InputError where
    another process is writing there.
    """
    partial = files.run.with_name(f".{files.run.name}.partial")
    with locked(partial):
        kept, done = Unfinished(partial / key, files), False
        try:
            yield kept
            done = True
        except InputError:
            kept.noted = None
            raise
        except KeyboardInterrupt:
            if kept.noted is None:
                raise
            queries = kept.noted["report"]["queries"]
            raise Interrupted(
                f"{files.run}: {queries:,} queries are mined; start the same again to go on (training with --resume)"
            ) from None
        finally:
            with suppress(OSError):  # a full disk, of which this is the second word
                kept.close()
            if done or kept.noted is None:
                shutil.rmtree(partial / key)
            if done or not any(path.is_dir() for path in partial.iterdir()):
                shutil.rmtree(partial)


def contents_of(options: dict[str, Any], like: Encoder) -> Iterator[str]:
    """What the files and the models that a method's options name hold, miners within a miner included."""
    for name, value in sorted(options.items()):
        if name == "path" and isinstance(value, str) and Path(value).is_file():
            yield fingerprint_of_file(Path(value))
        elif name == "model" and isinstance(value, str):
            yield frozen(value, like).fingerprint
        elif name == "models":
            yield from (frozen(model, like).fingerprint for model in value or ())
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    yield from contents_of(part, like)
