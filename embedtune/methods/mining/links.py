from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ...data.jsonl import decode, read_lines
from ...errors import InputError
from ...models.encoder import Encoder, Progress
from ...models.scorers import EncoderScores
from ...seeds import generator_for
from ...types import Dataset
from . import Sourced
from ._ranking import by_rank, positives_of, queries_of


class Links:
    """Walks along links between documents, such as citations, starting near the positives (BiCA).

    path: lines of `doc_id<TAB>doc_id`; a link counts in both directions.
    hops: the largest number of links between a positive and a candidate. starts: the number of walks; they start from
    the positives' neighbours that are most similar to the query. steps: the length of a walk, which moves to one of the
    `nearest` unvisited neighbours most similar to the query, drawn by softmax(similarity / temperature). extra:
    unvisited documents within reach that are added at random. Dead ends make it shorter.

    Candidates are in the order of the walk (scores are 1/rank); the walk depends on the seed and the query's id.
    Departures from the released code (NiravBhattLab/BiCA), which makes queries from documents first: queries are the
    dataset's own, and similarities are the model's. Raises InputError where a link names an unknown document.
    """

    def __init__(
        self,
        *,
        path: str,
        hops: int = 2,
        starts: int = 3,
        steps: int = 3,
        nearest: int = 5,
        extra: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if min(hops, starts, nearest) < 1 or min(steps, extra) < 0 or not temperature > 0:
            raise InputError("mining.links: expected hops, starts, nearest >= 1, steps, extra >= 0, temperature > 0")
        self.path, self.hops, self.starts, self.steps = path, hops, starts, steps
        self.nearest, self.extra, self.temperature, self.seed = nearest, extra, temperature, seed
        self.links = _read(path)

    def __call__(self, dataset: Dataset, encoder: Encoder, *, on_progress: Progress | None = None) -> Sourced:
        absent = [doc_id for doc_id in self.links if doc_id not in dataset.corpus]
        if absent:
            what = f"{len(absent)} unknown document ids, first {absent[0]!r}"
            raise InputError(f"{self.path}: {what}, in {dataset.folder}")
        reach = {q: self._within(positives_of(dataset.qrels, q)) for q in queries_of(dataset)}
        needed = {doc_id for documents in reach.values() for doc_id in documents}
        scores = EncoderScores(encoder, dataset, needed, on_progress=on_progress) if needed else None
        run = {}
        for query_id, documents in reach.items():
            similar = dict(zip(documents, scores(query_id, documents), strict=True)) if scores and documents else {}
            run[query_id] = by_rank(self._walk(query_id, positives_of(dataset.qrels, query_id), similar))
        return {"links": run}

    def _within(self, positives: list[str]) -> list[str]:
        """The documents at most `hops` links from a positive, which are not positives, near ones first."""
        reached, edge = set(positives), set(positives)
        linked: list[str] = []
        for _ in range(self.hops):
            edge = {other for doc_id in edge for other in self.links.get(doc_id, ())} - reached
            reached |= edge
            linked += sorted(edge)
        return linked

    def _walk(self, query_id: str, positives: list[str], similar: dict[str, np.float32]) -> list[str]:
        generator = generator_for(self.seed, "mining.links", query_id)
        near = {other for doc_id in positives for other in self.links.get(doc_id, ())} & similar.keys()
        visited: dict[str, None] = {}
        for start in _most_similar(near, similar)[: self.starts]:
            node: str | None = start
            visited[start] = None
            for _ in range(self.steps):
                node = self._next(node, visited, similar, generator) if node is not None else None
                if node is not None:
                    visited[node] = None
        rest = [doc_id for doc_id in similar if doc_id not in visited]
        drawn = torch.randperm(len(rest), generator=generator)[: self.extra].tolist()
        return [*visited, *(rest[row] for row in drawn)]

    def _next(
        self, node: str, visited: Iterable[str], similar: dict[str, np.float32], generator: torch.Generator
    ) -> str | None:
        near = _most_similar((set(self.links[node]) & similar.keys()) - set(visited), similar)[: self.nearest]
        if not near:
            return None
        chances = torch.tensor([float(similar[doc_id]) for doc_id in near]).div(self.temperature).softmax(0)
        return near[int(torch.multinomial(chances, 1, generator=generator))]


def _most_similar(doc_ids: Iterable[str], similar: dict[str, np.float32]) -> list[str]:
    return sorted(doc_ids, key=lambda doc_id: (-similar[doc_id], doc_id))


def _read(path: str) -> dict[str, list[str]]:
    """Each document's neighbours. Raises InputError with the line for anything but two columns."""
    links: dict[str, set[str]] = defaultdict(set)
    for number, raw in read_lines(Path(path)):
        fields = decode(raw, f"{path}:{number}").rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) != 2 or not all(fields):
            raise InputError(f"{path}:{number}: expected `doc_id<TAB>doc_id`, got {len(fields)} columns")
        if fields[0] != fields[1]:
            links[fields[0]].add(fields[1])
            links[fields[1]].add(fields[0])
    return {doc_id: sorted(others) for doc_id, others in links.items()}
