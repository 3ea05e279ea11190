"""Validation: some training queries held out, by which the best checkpoint is chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from accelerate import Accelerator

from ..data.dataset import subset
from ..data.selection import Selection
from ..data.split import split_qrels
from ..evaluate.retrieval import Retrieval, evaluate
from ..models.encoder import Encoder
from ..recipe import Validation
from ..seeds import generator_for
from ..types import Dataset

WHOLE = 1000  # how deep a measure without a cut-off looks


def held_out(dataset: Dataset, validation: Validation | None, seed: int) -> tuple[list[str], Dataset | None]:
    """The queries to train on, and the validation set.

    By query, seeded. Queries that share a positive document stay on one side, so that no document that is searched for
    in validation was trained on as a positive.
    """
    query_ids = [q for q, judged in dataset.qrels.items() if any(grade > 0 for grade in judged.values())]
    if validation is None:
        return query_ids, None
    judged = {query_id: dataset.qrels[query_id] for query_id in query_ids}
    parts = split_qrels(judged, {"validation": validation.share}, seed=seed)
    chosen = _documents(dataset, list(parts["validation"]), validation.documents, seed)
    return list(parts["train"]), chosen


def _documents(dataset: Dataset, query_ids: list[str], most: int | None, seed: int) -> Dataset:
    """The validation set with at most `most` documents to rank: every judged one, and a seeded draw of the others."""
    chosen = subset(dataset, query_ids)
    if most is None or most >= len(dataset.corpus):
        return chosen
    judged = {doc_id for documents in chosen.qrels.values() for doc_id in documents}
    others = [doc_id for doc_id in dataset.corpus.ids if doc_id not in judged]
    room = max(0, most - len(judged))
    drawn = torch.randperm(len(others), generator=generator_for(seed, "validation documents"))[:room].tolist()
    kept = judged | {others[i] for i in drawn}
    corpus = Selection(dataset.corpus, [doc_id for doc_id in dataset.corpus.ids if doc_id in kept])
    return dataclasses.replace(chosen, corpus=corpus)


class Validator:
    """Measures the model as it stands. All processes encode the documents; the main one ranks; all get the value."""

    def __init__(
        self,
        encoder: Encoder,
        dataset: Dataset,
        measure: str,
        accelerator: Accelerator,
        folder: Path,
        *,
        keep: bool = False,
    ) -> None:
        """folder: the run's. keep: put the embeddings in the cache, where they will be asked for again at the same
        step; else they are there only while several processes share the work."""
        self._encoder, self._dataset, self._measure, self._accelerator = encoder, dataset, measure, accelerator
        self._folder, self._keep = folder, keep

    def __call__(self) -> float:
        value, corpus = torch.zeros(1, device=self._accelerator.device), self._dataset.corpus
        borrows = not self._keep and self._accelerator.num_processes > 1
        encoder = self._encoder.with_cache() if self._keep else self._encoder
        if borrows:
            encoder = encoder.borrowed(str(self._folder.absolute()))
        if self._accelerator.is_main_process:
            depth = 1 if "@" in self._measure else WHOLE  # no deeper than the measure looks
            found = evaluate(encoder, self._dataset, measures=[self._measure], retrieval=Retrieval(depth=depth))
            value += found.measures[self._measure]
        else:
            encoder.encode(corpus, "document")
        # A sum, not a broadcast: nobody has it before all have their embeddings, which may then go.
        found_by_main = float(self._accelerator.reduce(value, "sum"))
        if borrows and self._accelerator.is_local_main_process:
            encoder.forget(corpus, "document")
        return found_by_main
