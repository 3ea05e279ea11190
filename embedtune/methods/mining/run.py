from __future__ import annotations

from pathlib import Path
from typing import Literal

from ...data.runs import RunFile, load_run
from ...errors import InputError
from ...models.encoder import Encoder, Progress
from ...types import Dataset
from . import Sourced


class Run:
    """Takes candidates from a run's file: of another system, an earlier `mine`, or the data's own negatives.

    path: the file, read once. third_column: what the last of 3 columns holds, a rank or a score, where the file does
    not show it. Raises InputError where it names queries or documents that the dataset does not have.
    """

    def __init__(self, *, path: str, third_column: Literal["rank", "score"] | None = None) -> None:
        self.path = path
        self.ranking = load_run(RunFile(Path(path), third_column))

    def __call__(self, dataset: Dataset, encoder: Encoder, *, on_progress: Progress | None = None) -> Sourced:
        for kind, known, named in (
            ("query", dataset.queries, self.ranking),
            ("document", dataset.corpus, {doc_id for ranked in self.ranking.values() for doc_id in ranked}),
        ):
            absent = [item_id for item_id in named if item_id not in known]
            if absent:
                where = f"in {dataset.folder}"
                raise InputError(f"{self.path}: {len(absent)} unknown {kind} ids, first {absent[0]!r}, {where}")
        return {"run": {query_id: self.ranking[query_id] for query_id in dataset.qrels if query_id in self.ranking}}
