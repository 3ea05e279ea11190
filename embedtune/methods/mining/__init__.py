"""Miners retrieve candidates for negatives. One file is one miner.

    miner(dataset, encoder, *, on_progress, OPTIONS) -> {source: {query_id: {doc_id: score}}}

dataset: its qrels name the queries to mine for. encoder: the model that is trained. on_progress: called with what is
done and the total, or None. The result has each source that the miner used (most have one) with a run of its
candidates, scored in the source's own units, best first. Judged positives may be in it; the caller removes them, and
everything else that may not be a negative.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...types import Run

Sourced = dict[str, Run]
"""source -> run."""


def numbered(labels: Sequence[str]) -> list[str]:
    """The labels with a number behind those that came before: dense, dense-2."""
    return [
        label if (earlier := labels[:index].count(label)) == 0 else f"{label}-{earlier + 1}"
        for index, label in enumerate(labels)
    ]
