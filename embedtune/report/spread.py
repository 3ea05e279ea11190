"""The scores before and after training: each query's best positive and its best other document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.runs import load_run
from ..evaluate.measures import ranked
from ..evaluate.sources import Measured, unchanged
from ..types import Qrels, Run
from .record import RunRecord

BINS = 28
MOST_DATASETS = 6  # whose scores are shown


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model. positives: each query's best positive's score; others: its best other document's.

    first: the share of queries whose best positive stands before every other document. absent: the number of queries
    with no positive among the retrieved documents.
    """

    positives: list[float]
    others: list[float]
    first: float
    absent: int

    @property
    def means(self) -> tuple[float, float]:
        return float(np.mean(self.positives)), float(np.mean(self.others))

    @property
    def gap(self) -> float | None:
        """How far the mean of positives lies above that of others, in deviations (the root mean square of both's).

        None where a side has fewer than two values, or no deviation.
        """
        positives, others = np.array(self.positives), np.array(self.others)
        if len(positives) < 2 or len(others) < 2:
            return None
        deviation = float(np.sqrt((positives.var(ddof=1) + others.var(ddof=1)) / 2))
        return float(positives.mean() - others.mean()) / deviation if deviation > 0 else None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One dataset before and after training."""

    label: str
    before: Side
    after: Side


def shared_edges(spreads: Sequence[Spread]) -> list[float]:
    """The edges of bins for all spreads."""
    sides = [side for spread in spreads for side in (spread.before, spread.after)]
    values = [value for side in sides for value in (*side.positives, *side.others)]
    return [float(edge) for edge in np.histogram_bin_edges(values, bins=BINS)]


def spreads_of(record: RunRecord) -> tuple[list[Spread], list[str]]:
    """Those of the datasets that both models were evaluated on, and a sentence for each that cannot be shown."""
    labels = [label for label in record.base if label in record.tuned]
    spreads, notes = [], []
    for label in labels[:MOST_DATASETS]:
        spread = spread_of(record.base[label], record.tuned[label])
        if spread is None:
            name = record.base[label].label
            notes.append(f"{name}: scores are not shown; the dataset is not there as it was evaluated.")
        elif all((spread.before.positives, spread.before.others, spread.after.positives, spread.after.others)):
            spreads.append(spread)
    if len(labels) > MOST_DATASETS:
        notes.append(f"Scores are shown for the first {MOST_DATASETS} of {len(labels)} datasets.")
    return spreads, notes


def spread_of(base: Measured, tuned: Measured) -> Spread | None:
    """None where the dataset, or a run, is no longer there as it was evaluated."""
    dataset = unchanged(base)
    files = [part.where / "run.trec" for part in (base, tuned)]
    if dataset is None or base.fingerprint != tuned.fingerprint or not all(file.exists() for file in files):
        return None
    # A guard reports on some of a set's queries only.
    qrels = {query_id: dataset.qrels[query_id] for query_id in dataset.qrels if query_id in base.query_ids}
    before, after = (side_of(load_run(file), qrels) for file in files)
    return Spread(label=base.label, before=before, after=after)


def side_of(run: Run, qrels: Qrels) -> Side:
    """Over the queries that have a positive."""
    positives, others, first, absent = [], [], 0, 0
    relevant = {query_id: {d for d, grade in judged.items() if grade > 0} for query_id, judged in qrels.items()}
    relevant = {query_id: documents for query_id, documents in relevant.items() if documents}
    for query_id, documents in relevant.items():
        scores = run.get(query_id, {})
        ranking = ranked(scores)
        positive = next((doc_id for doc_id in ranking if doc_id in documents), None)
        other = next((doc_id for doc_id in ranking if doc_id not in documents), None)
        positives += [] if positive is None else [scores[positive]]
        others += [] if other is None else [scores[other]]
        first += positive is not None and positive == ranking[0]
        absent += positive is None
    return Side(positives=positives, others=others, first=first / max(1, len(relevant)), absent=absent)


def shares(values: list[float], edges: list[float]) -> list[float]:
    """The share of values in each bin."""
    counts, _ = np.histogram(values, bins=edges)
    return [float(share) for share in counts / max(1, len(values))]
