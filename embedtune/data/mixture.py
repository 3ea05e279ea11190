"""Several datasets as one to train on. Ids begin with their dataset's label: `scifact/12`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..files import fingerprint_of
from ..types import Dataset, Item, Items, Qrels

BETWEEN = "/"


def label_in(item_id: str) -> str:
    """The label of the dataset that an id of a mixture comes from."""
    return item_id.partition(BETWEEN)[0]


class JoinedItems:
    """Several sets of items as one, in their order. `parts` are those sets, by label, under their own ids."""

    def __init__(self, parts: Mapping[str, Items]) -> None:
        self.parts = dict(parts)
        self._first: dict[str, int] = {}  # label -> the row of its first item
        rows = 0
        for label, items in self.parts.items():
            self._first[label] = rows
            rows += len(items)
        self._rows = rows

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(*(text for label, items in self.parts.items() for text in (label, items.fingerprint)))

    @property
    def ids(self) -> Sequence[str]:
        return [f"{label}{BETWEEN}{item_id}" for label, items in self.parts.items() for item_id in items.ids]

    def __len__(self) -> int:
        return self._rows

    def __contains__(self, item_id: object) -> bool:
        label, _, part_id = str(item_id).partition(BETWEEN)
        return label in self.parts and part_id in self.parts[label]

    def __getitem__(self, item_id: str) -> Item:
        label, _, part_id = item_id.partition(BETWEEN)
        return dataclasses.replace(self.parts[label][part_id], id=item_id)

    def __iter__(self) -> Iterator[Item]:
        for label, items in self.parts.items():
            for item in items:
                yield dataclasses.replace(item, id=f"{label}{BETWEEN}{item.id}")

    def row(self, item_id: str) -> int:
        label, _, part_id = item_id.partition(BETWEEN)
        return self._first[label] + self.parts[label].row(part_id)


def mixture_of(datasets: Sequence[Dataset]) -> Dataset:
    """The datasets as one. Raises InputError where two have the same label."""
    labels = [dataset.label for dataset in datasets]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"data.train: two datasets are called {label!r}; rename one of the folders")
    named = dict(zip(labels, datasets, strict=True))
    return Dataset(
        folder=Path(", ".join(str(dataset.folder) for dataset in datasets)),
        name="+".join(labels),
        split=datasets[0].split,
        corpus=JoinedItems({label: dataset.corpus for label, dataset in named.items()}),
        queries=JoinedItems({label: dataset.queries for label, dataset in named.items()}),
        qrels={
            prefixed(label, query_id): {prefixed(label, doc_id): grade for doc_id, grade in judged.items()}
            for label, dataset in named.items()
            for query_id, judged in dataset.qrels.items()
        },
        fingerprint=fingerprint_of(*(text for label in labels for text in (label, named[label].fingerprint))),
        parts=tuple(datasets),
        excluded={
            prefixed(label, query_id): frozenset(prefixed(label, doc_id) for doc_id in doc_ids)
            for label, dataset in named.items()
            for query_id, doc_ids in dataset.excluded.items()
        },
    )


def prefixed(label: str, item_id: str) -> str:
    return f"{label}{BETWEEN}{item_id}"


def own_qrels(qrels: Qrels, label: str) -> Qrels:
    """The judgements of one part, under its own ids."""
    front = label + BETWEEN
    return {
        query_id.removeprefix(front): {doc_id.removeprefix(front): grade for doc_id, grade in judged.items()}
        for query_id, judged in qrels.items()
        if query_id.startswith(front)
    }
