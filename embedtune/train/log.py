"""A run's events: into log.jsonl, to the trackers, and to the caller's listener."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..files import write_lines
from .step import Batch

Listener = Callable[[dict[str, Any]], None]
"""Gets each event: a mapping with "event" and its values.

plan: `phases`, the work of the whole run. phase: its `name` and its `kind`, where it is in the plan. progress: how far
the phase is. step, validation, checkpoint: what the log holds. message: a sentence for the user.
"""


class Log:
    """Writes one JSON line an event."""

    def __init__(self, path: Path, accelerator: Accelerator, listener: Listener | None) -> None:
        self._path, self._accelerator, self._listener = path, accelerator, listener
        self._writes = accelerator.is_main_process

    def start(self, from_step: int | None) -> None:
        """Drops the lines after the checkpoint's step that the run resumes from; without one (None), all lines."""
        if self._writes:
            lines = _lines(self._path) if from_step is not None else []
            write_lines(self._path, [line for line in lines if json.loads(line).get("step", 0) <= (from_step or 0)])

    def write(self, event: str, **values: Any) -> None:
        record = {"event": event, **values}
        if self._writes:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        self.tell(event, **values)

    def tell(self, event: str, **values: Any) -> None:
        """Tells the listener only."""
        if self._writes and self._listener is not None:
            self._listener({"event": event, **values})

    def progress(self, done: int, total: int, detail: str = "") -> None:
        """Tells the listener how far the phase is. detail: where it stands, such as "alpha 3 of 11, set 2 of 3"."""
        self.tell("progress", done=done, total=total, detail=detail)

    def step(self, step: int, epoch: int, numbers: dict[str, float], batches: Sequence[Batch], seconds: float) -> None:
        """numbers: the loss, its parts, rate and norm. batches: all of the optimizer step."""
        pairs = sum(len(batch.query_ids) for batch in batches)
        self.write(
            "step",
            step=step,
            epoch=epoch,
            **numbers,
            documents=sum(len(batch.doc_ids) for batch in batches),
            seconds=round(seconds, 4),
            pairs_per_second=round(pairs / seconds, 3),
        )
        self._accelerator.log(numbers, step=step)

    def validation(self, step: int, measure: str, value: float, best: bool) -> None:
        self.write("validation", step=step, measure=measure, value=value, best=best)
        self._accelerator.log({f"validation/{measure}": value}, step=step)

    def checkpoint(self, step: int) -> None:
        self.write("checkpoint", step=step)


def _lines(path: Path) -> list[str]:
    """The whole lines of a log; a line that a killed process was writing is dropped."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
