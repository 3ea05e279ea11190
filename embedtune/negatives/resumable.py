"""The files of an unfinished mining, kept beside its output so that a killed mining goes on where it was."""

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
from ..files import locked, write_json
from .evidence import MiningFiles

EVERY = 30.0  # seconds between two saved positions; saving one takes a few milliseconds


class ResumableFiles:
    """A run and its evidence while they are written, in a folder of their own.

    report: the report that was saved last, by this process or an earlier one; None before the first. Lines that were
    written after it are cut off when the files are opened again.
    """

    def __init__(self, folder: Path, files: MiningFiles) -> None:
        self._folder, self._files, self._saved_at = folder, files, time.monotonic()
        self._paths = [folder / file.name for file in (files.run, files.evidence)]
        self._position = folder / "position.json"
        self.report = self._cut_back()
        self.run: TextIO = self._paths[0].open("a", encoding="utf-8")
        self.evidence: TextIO = self._paths[1].open("a", encoding="utf-8")

    def _cut_back(self) -> dict[str, Any] | None:
        """Cuts both files to the saved position and returns its report; empties the folder where there is none."""
        if self._position.exists() and all(path.exists() for path in self._paths):
            saved: dict[str, Any] = json.loads(self._position.read_text(encoding="utf-8"))
            lengths = list(zip(self._paths, saved["bytes"], strict=True))
            if all(path.stat().st_size >= length for path, length in lengths):
                for path, length in lengths:
                    os.truncate(path, length)
                report: dict[str, Any] = saved["report"]
                return report
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        return None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._saved_at >= EVERY

    def save(self, report: dict[str, Any]) -> None:
        """Saves the position, with the report of all that is written."""
        for file in (self.run, self.evidence):
            file.flush()
            os.fsync(file.fileno())
        lengths = [os.fstat(file.fileno()).st_size for file in (self.run, self.evidence)]
        self.report = dict(report)
        write_json(self._position, {"bytes": lengths, "report": self.report})
        self._saved_at = time.monotonic()

    def finish(self, report: dict[str, Any], summary: dict[str, Any]) -> None:
        """Moves run, evidence and, last, the summary to their places. An old summary goes first: it would be wrong."""
        self.save(report)
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
def resumable(files: MiningFiles, fingerprint: str) -> Iterator[ResumableFiles]:
    """The files of a job while they are written, as an earlier process with the same fingerprint left them.

    fingerprint: of all that the files depend on; another job has another one and starts afresh.

    Unfinished files stay where a position is saved, except after an InputError, which would come again. A finished
    mining removes what other jobs left for the same output. Raises InputError where another process is writing.
    """
    partial = files.run.with_name(f".{files.run.name}.partial")
    with locked(partial):
        writer, done = ResumableFiles(partial / fingerprint, files), False
        try:
            yield writer
            done = True
        except InputError:
            writer.report = None
            raise
        except KeyboardInterrupt:
            if writer.report is None:
                raise
            raise Interrupted(
                f"{files.run}: {writer.report['queries']:,} queries are mined; start the same command again to go on "
                "(training: with --resume)"
            ) from None
        finally:
            with suppress(OSError):  # a full disk; the first error is reported already
                writer.close()
            if done or writer.report is None:
                shutil.rmtree(partial / fingerprint, ignore_errors=True)
            if done or not any(path.is_dir() for path in partial.iterdir()):
                shutil.rmtree(partial, ignore_errors=True)  # Windows keeps a lock file that is held
