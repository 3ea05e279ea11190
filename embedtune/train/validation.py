"""Validation: training queries that are held out, by which the best checkpoint is chosen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from .. import distributed
from ..data.dataset import subset
from ..data.selection import Selection
from ..evaluate.retrieval import Retrieval, evaluate
from ..models.encoder import Encoder
from ..recipe import Validation
from ..seeds import generator_for
from ..types import Dataset
from .log import Log
from .sizes import draws, training_queries

WHOLE = 1000  # the depth of a measure without a cut-off


def held_out(dataset: Dataset, validation: Validation | None, seed: int) -> tuple[list[str], Dataset | None]:
    """The ids of the queries to train on, and the validation set."""
    query_ids, judged = training_queries(dataset, validation, seed)
    if validation is None:
        return query_ids, None
    return query_ids, _documents(dataset, list(judged), validation.documents, draws(validation, seed))


def _documents(dataset: Dataset, query_ids: list[str], most: int | None, seed: int) -> Dataset:
    """The validation set with at most `most` documents to rank: every judged one, and a seeded draw of the others."""
    chosen = subset(dataset, query_ids)
    if most is None or most >= len(dataset.corpus):
        return chosen
    judged = {doc_id for documents in chosen.qrels.values() for doc_id in documents}
    others = [doc_id for doc_id in dataset.corpus.ids if doc_id not in judged]
    room = max(0, most - len(judged))
    drawn = torch.randperm(len(others), generator=generator_for(seed, "validation documents"))[:room].tolist()
    kept = judged | {others[index] for index in drawn}
    corpus = Selection(dataset.corpus, [doc_id for doc_id in dataset.corpus.ids if doc_id in kept])
    return dataclasses.replace(chosen, corpus=corpus)


@dataclass(kw_only=True)
class Validator:
    """Measures the model as it stands. All processes encode the documents; the main one ranks; all get the value.

    folder: the run's. keep: leave the embeddings in the cache, where mining asks for them at the same step; else they
    are cached only while several processes share the work.
    """

    encoder: Encoder
    dataset: Dataset
    measure: str
    accelerator: Accelerator
    folder: Path
    log: Log
    keep: bool

    def __call__(self) -> float:
        with self.encoder.whole() as encoder:
            return self._value(encoder)

    def _value(self, encoder: Encoder) -> float:
        corpus, shared = encoder.split(self.dataset.corpus), self.accelerator.num_processes > 1
        encoder = encoder.with_cache() if self.keep else encoder
        if shared and not self.keep:
            encoder = encoder.borrowed(str(self.folder.absolute()))
        self.log.tell("phase", name=f"validate on {len(self.dataset.qrels):,} queries", kind="validation")

        def measured() -> float:
            retrieval = Retrieval(depth=1 if "@" in self.measure else WHOLE)  # no deeper than the measure looks
            measures, on_progress = [self.measure], self.log.progress
            evaluation = evaluate(
                encoder, self.dataset, measures=measures, retrieval=retrieval, on_progress=on_progress
            )
            return float(evaluation.measures[self.measure])

        if not self.accelerator.is_main_process:
            encoder.encode(corpus, "document")
        value = distributed.from_first(measured)
        if shared and not self.keep:
            distributed.meet()  # no process of this machine is still encoding
            if self.accelerator.is_local_main_process:
                encoder.forget(corpus, "document")
        return value
