"""Where candidates come from: one method a file.

A miner is called with a dataset, whose qrels name the queries, and an encoder. It returns each source that it used with
a run of that source's candidates, scored in the source's own units, best first; most have one source. It may leave out
judged positives; whoever calls it takes out everything else that may not be a negative.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...types import Run

Sourced = dict[str, Run]
"""source -> run."""


def numbered(labels: Sequence[str]) -> list[str]:
    """The labels with a number behind those that came before: dense, dense-2."""
    return [
        label if (earlier := labels[:place].count(label)) == 0 else f"{label}-{earlier + 1}"
        for place, label in enumerate(labels)
    ]
