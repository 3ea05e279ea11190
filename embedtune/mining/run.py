from __future__ import annotations

from ..data.trec import read_run
from ..encode.encoder import Encoder
from ..errors import InputError
from ..types import Dataset, Run


def run(dataset: Dataset, encoder: Encoder, *, path: str) -> Run:
    """Takes candidates from a TREC run file: another system's, an earlier `mine`, or negatives that came with the data.

    Raises InputError where the run names queries or documents that the dataset does not have.
    """
    found = read_run(path)
    for kind, known, named in (
        ("query", dataset.queries, found),
        ("document", dataset.corpus, {doc_id for ranked in found.values() for doc_id in ranked}),
    ):
        absent = [item_id for item_id in named if item_id not in known]
        if absent:
            raise InputError(f"{path}: {len(absent)} unknown {kind} ids, first {absent[0]!r}, in {dataset.folder}")
    return found
