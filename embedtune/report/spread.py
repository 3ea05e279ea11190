"""How scores lie before and after: each query's best positive and its best other document, from the runs kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.trec import read_run
from ..evaluate.measures import ranked
from ..evaluate.sources import Measured, unchanged
from ..types import Qrels, Run

BINS = 28


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model. positives: each query's best positive's score; others: its best other document's.

    first: the share of queries whose best positive stands before every other document. absent: queries without any
    positive among those found.
    """

    positives: list[float]
    others: list[float]
    first: float
    absent: int

    @property
    def gap(self) -> float:
        """How far the mean of positives lies above that of others, in deviations (the root mean square of both's)."""
        positives, others = np.array(self.positives), np.array(self.others)
        if len(positives) < 2 or len(others) < 2:
            return float("nan")
        deviation = float(np.sqrt((positives.var(ddof=1) + others.var(ddof=1)) / 2))
        return float(positives.mean() - others.mean()) / deviation if deviation > 0 else float("nan")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One dataset before and after training."""

    label: str
    before: Side
    after: Side

    @property
    def edges(self) -> list[float]:
        """Bins that both sides share."""
        values = [*self.before.positives, *self.before.others, *self.after.positives, *self.after.others]
        return [float(edge) for edge in np.histogram_bin_edges(values, bins=BINS)]


def spread_of(base: Measured, tuned: Measured) -> Spread | None:
    """None where the dataset, or a run, is no longer there as it was evaluated."""
    dataset = unchanged(base)
    files = [part.where / "run.trec" for part in (base, tuned)]
    if dataset is None or base.fingerprint != tuned.fingerprint or not all(file.exists() for file in files):
        return None
    # A guard reports on some of a set's queries only.
    qrels = {query_id: dataset.qrels[query_id] for query_id in dataset.qrels if query_id in base.query_ids}
    before, after = (side_of(read_run(file), qrels) for file in files)
    return Spread(label=base.label, before=before, after=after)


def side_of(run: Run, qrels: Qrels) -> Side:
    """Over the queries that have a positive."""
    positives, others, first, absent = [], [], 0, 0
    judged = {q: {d for d, grade in found.items() if grade > 0} for q, found in qrels.items()}
    judged = {query_id: relevant for query_id, relevant in judged.items() if relevant}
    for query_id, relevant in judged.items():
        scores = run.get(query_id, {})
        order = ranked(scores)
        best, other = (next((d for d in order if (d in relevant) == wanted), None) for wanted in (True, False))
        positives += [] if best is None else [scores[best]]
        others += [] if other is None else [scores[other]]
        first += best is not None and best == order[0]
        absent += best is None
    return Side(positives=positives, others=others, first=first / max(1, len(judged)), absent=absent)


def shares(values: list[float], edges: list[float]) -> list[float]:
    """The share of values in each bin."""
    counts, _ = np.histogram(values, bins=edges)
    return [float(share) for share in counts / max(1, len(values))]
