from __future__ import annotations

from typing import Any

from ... import methods
from ...errors import InputError
from ...models.encoder import Encoder, Progress
from ...types import Dataset, Run
from . import Sourced, numbered


class Union:
    """Joins the candidates of several retrievers, each with its quota (R2anker, arXiv 2206.08063; reconstructed).

    sources: miners with their options, and optionally a `quota`: at most how many documents a query gets from it that
    no other source has added before. The sources take turns and add one document each. Without a quota a source adds
    all its documents. Each document keeps its source and rank in the evidence, so that sources can be compared.

    R2anker draws from its union uniformly: sample with `window`. Only its abstract was read; quotas are our own.
    """

    def __init__(self, *, sources: list[dict[str, object]]) -> None:
        if not sources:
            raise InputError("mining.union.sources: expected at least one {name: MINER, option: value, quota: N}")
        self.miners: list[tuple[str, int | None, Any]] = []
        for number, source in enumerate(sources):
            name, quota = source.get("name"), source.get("quota")
            where = f"mining.union.sources.{number}"
            if not isinstance(name, str):
                raise InputError(f"{where}: expected {{name: MINER, option: value, quota: N}}, got {source!r}")
            if quota is not None and (not isinstance(quota, int) or isinstance(quota, bool) or quota < 1):
                raise InputError(f"{where}.quota: expected a whole number above 0, got {quota!r}")
            options = {key: value for key, value in source.items() if key not in ("name", "quota")}
            self.miners.append((name, quota, methods.bind("mining", name, options)))

    def __call__(self, dataset: Dataset, encoder: Encoder, *, on_progress: Progress | None = None) -> Sourced:
        results: list[tuple[str, int | None, Run]] = []
        for _, quota, miner in self.miners:
            results += [(s, quota, run) for s, run in miner(dataset, encoder, on_progress=on_progress).items()]
        labels = numbered([label for label, _, _ in results])
        joined: Sourced = {label: {} for label in labels}
        for query_id in dict.fromkeys(query_id for _, _, run in results for query_id in run):
            lists = [list(run.get(query_id, {})) for _, _, run in results]
            for label, (_, _, run), chosen in zip(
                labels, results, share([q for _, q, _ in results], lists), strict=True
            ):
                joined[label][query_id] = {doc_id: run[query_id][doc_id] for doc_id in chosen}
        return joined


def share(quotas: list[int | None], lists: list[list[str]]) -> list[list[str]]:
    """Each source's documents, when the sources take turns and each document is added once."""
    taken: set[str] = set()
    chosen: list[list[str]] = [[] for _ in lists]
    waiting = [iter(ranked) for ranked in lists]
    active = list(range(len(lists)))
    while active:
        for source in list(active):
            quota = quotas[source]
            document = next((d for d in waiting[source] if d not in taken), None)
            if document is None or (quota is not None and len(chosen[source]) >= quota):
                active.remove(source)
                continue
            taken.add(document)
            chosen[source].append(document)
    return chosen
