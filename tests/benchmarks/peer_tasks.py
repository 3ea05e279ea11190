"""The nouns of `peer.py`: tasks, the variants of each, and which of them are compared."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from measuring import HERE

SCRIPTS = {"peer": HERE / "run_sentence_transformers.py", "ours": HERE / "run_embedtune.py"}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to do a task's work, in a process of its own.

    arguments: of the side's script; for `command`, a whole command line. precision: whose rate its share is of.
    replays: the variant whose batches it trains on.
    """

    name: str
    side: Literal["peer", "ours", "command"]
    arguments: tuple[str, ...]
    precision: str = "fp32"
    replays: str | None = None

    def command(self, batches: Path) -> list[str]:
        """The command line. batches: a folder for the batches that the peer records and ours replays."""
        if self.side == "command":
            return list(self.arguments)
        verb, *given = self.arguments
        if verb == "train" and self.side == "peer":
            given += ["--record", str(_batches_of(self.name, batches))]
        if self.replays is not None:  # first, so that a named variant may have another batching
            replay = f'batching={{name: replay, path: "{_batches_of(self.replays, batches)}"}}'
            given = ["--set", replay, *given]
        return [sys.executable, str(SCRIPTS[self.side]), verb, *given]


def _batches_of(variant: str, folder: Path) -> Path:
    return folder / f"{variant.replace(', ', '-')}.json"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times faster `ours` is than `other`: by `seconds`, or those of the second time, `again_seconds`."""

    ours: str
    other: str
    value: str = "seconds"

    @property
    def title(self) -> str:
        return f"{self.ours}{' again' if self.value != 'seconds' else ''} / {self.other}"


@dataclass(frozen=True, kw_only=True)
class Task:
    """work: what is counted a second, with how often its tokens go through the linear layers, for the share."""

    name: str
    variants: tuple[Variant, ...]
    comparisons: tuple[Comparison, ...]
    work: Literal["pair", "document"] | None = None
    passes: int = 0
    max_length: int = 0
