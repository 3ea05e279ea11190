"""Which passage stands for a document in training: for each query the one that the untouched model scores best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..data.mixture import own_qrels
from ..data.passages import document_in, passages_of
from ..files import fingerprint_of
from ..models.encoder import Encoder
from ..models.scorers import EncoderScores
from ..types import Dataset, Items, Qrels


def in_passages(dataset: Dataset, encoder: Encoder) -> Dataset:
    """The dataset with passages for documents, where the encoder splits them; else the dataset.

    Each positive is the passage of the positive document that scores best for the query: most passages of a long
    document do not answer the query, and to train on all would pull it towards them. Documents that are judged not
    relevant are left out: every document that is not a positive may be a negative.
    """
    corpus = encoder.split(dataset.corpus)
    if corpus is dataset.corpus:
        return dataset
    split = dataclasses.replace(dataset, corpus=corpus)
    positives = {q: {d: grade for d, grade in judged.items() if grade > 0} for q, judged in dataset.qrels.items()}
    needed = {item_id for judged in positives.values() for d in judged for item_id in passages_of(corpus, d)}
    scores = EncoderScores(encoder, split, needed)
    qrels: Qrels = {}
    for query_id, judged in positives.items():
        best = best_passages(query_id, list(judged), corpus, scores)
        qrels[query_id] = dict(zip(best, judged.values(), strict=True))
    return _with_qrels(split, qrels, encoder)


def best_passages(query_id: str, doc_ids: Sequence[str], corpus: Items, scores: EncoderScores) -> list[str]:
    """The passage of each document that scores best for a query; of equal ones the first."""
    passages = [passages_of(corpus, doc_id) for doc_id in doc_ids]
    if not passages:
        return []
    values = scores(query_id, [item_id for of_document in passages for item_id in of_document])
    starts = np.cumsum([0, *map(len, passages)]).tolist()
    return [
        of_document[int(np.argmax(values[start : start + len(of_document)]))]
        for of_document, start in zip(passages, starts, strict=False)
    ]


def passage_by_document(dataset: Dataset, query_id: str) -> dict[str, str]:
    """The passages that stand for a query's positives in a dataset of `in_passages`, by document."""
    return {document_in(item_id): item_id for item_id in dataset.qrels[query_id]}


def _with_qrels(split: Dataset, qrels: Qrels, encoder: Encoder) -> Dataset:
    """The split dataset with these judgements, and its parts with theirs."""
    chosen = sorted(f"{query_id}\t{item_id}" for query_id, judged in qrels.items() for item_id in judged)
    parts = tuple(
        _with_qrels(dataclasses.replace(part, corpus=encoder.split(part.corpus)), own_qrels(qrels, part.label), encoder)
        for part in split.parts
    )
    fingerprint = fingerprint_of(split.fingerprint, split.corpus.fingerprint, *chosen)
    return dataclasses.replace(split, qrels=qrels, fingerprint=fingerprint, parts=parts)
