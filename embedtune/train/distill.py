"""A second stream of batches: unlabelled text on which the student is held to the base model's own scores."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import methods
from ..data.dataset import load_texts
from ..data.relevance import Relevance
from ..errors import InputError
from ..models.encoder import Encoder
from ..models.scorers import EncoderScores
from ..recipe import Distill
from ..search.exact import as_run, exact_search, tie_order
from ..seeds import generator_for
from ..types import Dataset, Pair
from .batch import Batch, lay_out
from .objective import Objective


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Each query's list is the base model's best documents for it; the first stands in for a positive, since a batch
    is laid out around one, but the loss knows only the base model's scores."""

    dataset: Dataset
    lists: dict[str, list[str]]
    relevance: Relevance
    objective: Objective
    batch_size: int
    seed: int

    def batch(self, step: int) -> Batch:
        """The batch of a step: a pure function of the seed and the step."""
        query_ids = list(self.lists)
        order = torch.randperm(len(query_ids), generator=generator_for(self.seed, "distill", step))
        drawn = [query_ids[place] for place in order[: self.batch_size].tolist()]
        pairs = [Pair(query_id=query_id, positives=(self.lists[query_id][0],)) for query_id in drawn]
        return lay_out(pairs, {query_id: self.lists[query_id][1:] for query_id in drawn}, self.relevance)


def stream_of(distill: Distill, base: Encoder, steps: int, seed: int) -> Stream:
    """base: the untouched model, whose embeddings are cached. Raises InputError for a folder with too little text."""
    corpus, queries = load_texts(distill.data)
    if len(corpus) <= distill.candidates:
        raise InputError(
            f"stay_close.distill: {distill.data} has {len(corpus)} documents; {distill.candidates} candidates need more"
        )
    order = torch.randperm(len(queries), generator=generator_for(seed, "distill queries"))
    ids = list(queries.ids)
    query_ids = [ids[place] for place in order[: steps * distill.batch_size].sort().values.tolist()]
    documents = base.encode(corpus, "document")
    scores, rows = exact_search(
        base.encode([queries[query_id] for query_id in query_ids], "query"),
        documents,
        distill.candidates + 1,
        similarity=base.similarity,
        tie_order=tie_order(corpus.ids),
    )
    run = as_run(query_ids, corpus.ids, scores, rows)
    itself = queries is corpus  # a document that stands for a query finds itself first
    lists = {q: [d for d in found if not (itself and d == q)][: distill.candidates] for q, found in run.items()}
    dataset = Dataset(
        folder=Path(distill.data),
        name=Path(distill.data).name,
        split="unlabelled",
        corpus=corpus,
        queries=queries,
        qrels={query_id: {found[0]: 1} for query_id, found in lists.items()},
        fingerprint=corpus.fingerprint + queries.fingerprint,
    )
    temperatures = {"temperature": distill.temperature, "teacher_temperature": distill.temperature}
    losses = [("listwise_kl", distill.weight, methods.bind("loss", "listwise_kl", temperatures))]
    objective = Objective(filters=[], texts=[], vectors=[], weightings=[], losses=losses)
    return Stream(
        dataset=dataset,
        lists=lists,
        relevance=Relevance(dataset),
        objective=dataclasses.replace(objective, teacher=EncoderScores(base, dataset)),
        batch_size=distill.batch_size,
        seed=seed,
    )
