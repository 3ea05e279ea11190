from __future__ import annotations

from ...data.trec import read_run
from ...errors import InputError
from ...models.encoder import Encoder, Progress
from ...types import Dataset
from . import Sourced


class Run:
    """Takes candidates from a TREC run file: of another system, an earlier `mine`, or the data's own negatives.

    path: the file, read once. Raises InputError where it names queries or documents that the dataset does not have.
    """

    def __init__(self, *, path: str) -> None:
        self.path = path
        self.ranking = read_run(path)

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
