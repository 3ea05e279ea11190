"""What a run says while it runs: log.jsonl, trackers, and whoever listens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..files import write_lines

Listener = Callable[[dict[str, Any]], None]
"""Gets each event: a mapping with "event" (step, validation, checkpoint, phase, progress) and its values."""


class Log:
    """Writes one JSON line an event. On resume the lines after the checkpoint's step are dropped, not doubled; without
    a checkpoint (step 0) all are."""

    def __init__(self, path: Path, accelerator: Accelerator, listener: Listener | None, from_step: int) -> None:
        self._path, self._accelerator, self._listener = path, accelerator, listener
        self._writes = accelerator.is_main_process
        if self._writes:
            kept = [line for line in _lines(path) if json.loads(line).get("step", 0) <= from_step]
            write_lines(path, kept if from_step else [])

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

    def step(
        self,
        step: int,
        epoch: int,
        loss: float,
        parts: dict[str, float],
        learning_rate: float,
        gradient_norm: float,
        pairs: int,
        documents: int,
        seconds: float,
    ) -> None:
        values = {"loss": loss, **parts, "learning_rate": learning_rate, "gradient_norm": gradient_norm}
        self.write(
            "step",
            step=step,
            epoch=epoch,
            **values,
            documents=documents,
            seconds=round(seconds, 4),
            pairs_per_second=round(pairs / seconds, 3),
        )
        self._accelerator.log(values, step=step)

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
