"""Encoding and the command line in processes of their own, in blocks of a few items, noting who encoded which.

python encoding_process.py NOTES encode MODEL DATA PROCESSES KILLED_AT      the corpus, beside the others that do
python encoding_process.py NOTES VERB ...                                   the command line
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BLOCK = 4


def noting(notes: Path, processes: int, killed_at: int = -1) -> None:
    """Makes blocks small; a line is noted for each that this process encodes, and none is through with its first one
    before all are there. killed_at: its last one, cut short."""
    from embedtune.models import beside, prepared
    from embedtune.models.encoder import Encoder

    prepared.BLOCK = BLOCK
    beside.has_room = lambda: True  # on a small machine too
    whole, prepare = Encoder._encoded, Encoder.prepare
    done = 0
    ids: dict[int, list[str]] = {}  # by the list of the prepared items

    def prepared_with_ids(self: Any, items: Sequence[Any], role: str) -> Any:
        ready = prepare(self, items, role)
        ids[id(ready)] = [item.id for item in items]
        return ready

    def noted(self: Any, items: Any, on_done: Any, role: str) -> Any:
        nonlocal done
        done += 1
        line = {"pid": os.getpid(), "rank": os.environ.get("RANK"), "role": role, "ids": ids.pop(id(items))}
        with (notes / str(os.getpid())).open("a") as file:
            file.write(json.dumps(line) + "\n")
        rows = whole(self, items, on_done, role)
        time.sleep(0.05)  # so that nobody does all
        deadline = time.monotonic() + 60
        while done == 1 and len(list(notes.iterdir())) < processes and time.monotonic() < deadline:
            time.sleep(0.01)
        if done == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    Encoder._encoded = noted  # type: ignore[method-assign]
    Encoder.prepare = prepared_with_ids  # type: ignore[method-assign]


def noted_in(notes: Path) -> list[dict[str, Any]]:
    """Every line that was noted."""
    return [json.loads(line) for file in sorted(notes.iterdir()) for line in file.read_text().splitlines()]


def encode(model: str, data: str) -> None:
    from embedtune.data.dataset import load_dataset
    from embedtune.models.encoder import load_encoder

    encoder, corpus = load_encoder(model), load_dataset(data).corpus
    seen: list[tuple[int, int]] = []
    encoder.encode(corpus, "document", on_progress=lambda *numbers: seen.append(numbers))
    assert seen == sorted(seen)
    assert seen[-1] == (len(corpus), len(corpus))


if __name__ == "__main__":
    folder, verb, *arguments = sys.argv[1:]
    if verb == "encode" and len(arguments) == 4:
        noting(Path(folder), int(arguments[2]), killed_at=int(arguments[3]))
        encode(arguments[0], arguments[1])
    else:
        noting(Path(folder), int(os.environ["WORLD_SIZE"]))
        from embedtune_cli.app import run

        sys.exit(run([verb, *arguments]))
