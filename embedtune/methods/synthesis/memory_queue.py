from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...files import fingerprint_of
from ...types import Scores
from .. import MethodSpec
from ._columns import append, embeddings

SPEC = MethodSpec(kind="vectors", neutral={"size": 0})
EMPTY = 0


class MemoryQueue(nn.Module):
    """Adds the documents of earlier steps as negatives, first in, first out (MoCo, arXiv 1911.05722).

    size: documents held; the paper takes 65,536, the codes of small models 4,096. 0 is off.
    hardest: use only this many for each query, the most similar ones (selective negatives, arXiv 2501.16360,
        second-hand). Absent: all.
    momentum: the embeddings come from a slow copy of the trained weights, which keeps this share of itself at each step
        (MoCo: 0.999). Absent: they are the student's embeddings of earlier steps, which drift with age.

    A call first adds the queue's embeddings as constants; in training it then stores the batch's real documents:
    positives and mined negatives. Embeddings and hashes of document ids are state, saved with the checkpoint. A
    stored document is no negative where the batch has the same document, nor for a query that it is judged relevant
    for. A document that comes again replaces its older embedding.

    Departures: in the batch a query meets the student's own embeddings of documents, with their gradient, and only the
    queue's are the slow copy's. There is no second view with documents as queries. Raises InputError without
    embeddings, document ids or the queries' judged documents.
    """

    embeddings: Tensor  # (size, H)
    documents: Tensor  # (size,) hashes of document ids
    position: Tensor  # of the next document to be taken in

    def __init__(self, *, size: int = 4096, hardest: int | None = None, momentum: float | None = None) -> None:
        super().__init__()
        if momentum is not None and not 0 <= momentum < 1:
            raise InputError(f"synthesis.memory_queue.momentum: expected 0 to below 1, got {momentum}")
        if size < 0 or (hardest is not None and hardest < 1):
            raise InputError("synthesis.memory_queue: expected size of at least 0 and hardest of at least 1")
        self.size, self.hardest, self.momentum = size, hardest, momentum
        self.keys: Tensor | None = None  # (D, H) the batch's documents by the slow copy, set before a call
        self.register_buffer("embeddings", torch.empty(size, 0))
        self.register_buffer("documents", torch.full((size,), EMPTY))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def forward(self, scores: Scores, keep: Tensor, *, generator: torch.Generator) -> tuple[Scores, Tensor]:
        if not self.size:
            return scores, keep
        queries, documents = embeddings(scores, "memory_queue")
        if len(scores.doc_ids) != len(documents) or len(scores.positive_ids) != len(queries):
            raise InputError("synthesis.memory_queue: needs the documents' ids and the queries' judged documents")
        if not self.embeddings.shape[1]:
            self.to(documents.device)
            self.embeddings = documents.new_zeros(self.size, documents.shape[1])
        ids = hashes(scores.doc_ids, like=self.documents)
        filled = self.documents != EMPTY
        held = self.embeddings[filled]  # (M, H)
        allowed = ~torch.isin(self.documents[filled], ids).expand(len(queries), -1)
        allowed = allowed & ~self._judged(self.documents[filled], scores.positive_ids)
        if self.hardest is not None:
            similar = (queries @ held.T).masked_fill(~allowed, -torch.inf)
            chosen = similar.topk(min(self.hardest, len(held)), dim=1).indices
            allowed = allowed & torch.zeros_like(allowed).scatter(1, chosen, True)
        if self.training:
            self._take(ids, documents if self.keys is None else self.keys)
        return append(scores, keep, held, allowed)

    def _judged(self, held: Tensor, positive_ids: Sequence[Collection[str]]) -> Tensor:
        """(Q, M) bool, the held documents (M,) that each query is judged relevant for."""
        names = hashes(chain.from_iterable(positive_ids), like=held)
        judged, column = torch.unique(names, return_inverse=True)  # (J,), (N,)
        counts = held.new_tensor([*map(len, positive_ids)])
        rows = torch.arange(len(counts), device=held.device).repeat_interleave(counts)  # (N,)
        relevant = torch.zeros(len(counts), len(judged) + 1, dtype=torch.bool, device=held.device)
        relevant[rows, column] = True
        position = torch.searchsorted(judged, held)  # (M,)
        known = torch.cat([judged, held.new_tensor([EMPTY])])[position] == held
        return relevant[:, position] & known

    def start(self, trained: Sequence[nn.Parameter]) -> None:
        """Begins the slow copy at the trained weights. With an adapter, it is of the adapter alone."""
        for index, parameter in enumerate(trained):
            self.register_buffer(f"slow_{index}", parameter.detach().clone())

    @property
    def slow(self) -> list[Tensor]:
        """The slow copy's weights, in the order of the trained ones."""
        return [weights for name, weights in self.named_buffers() if name.startswith("slow_")]

    @torch.no_grad()
    def follow(self, trained: Sequence[nn.Parameter]) -> None:
        """Moves the slow copy after an optimizer step: slow = momentum * slow + (1 - momentum) * trained."""
        assert self.momentum is not None
        for slow, parameter in zip(self.slow, trained, strict=True):
            slow.lerp_(parameter, 1 - self.momentum)

    @contextmanager
    def slow_weights(self, trained: Sequence[nn.Parameter]) -> Iterator[None]:
        """Runs with the slow copy's weights in the model."""
        kept = [parameter.data for parameter in trained]
        try:
            for parameter, slow in zip(trained, self.slow, strict=True):
                parameter.data = slow
            yield
        finally:
            for parameter, data in zip(trained, kept, strict=True):
                parameter.data = data

    def _take(self, ids: Tensor, documents: Tensor) -> None:
        real = (ids != EMPTY).nonzero().flatten()[-self.size :]
        self.documents[torch.isin(self.documents, ids[real])] = EMPTY
        slots = (self.position + torch.arange(len(real), device=ids.device)) % self.size
        self.embeddings[slots], self.documents[slots] = documents[real], ids[real]
        self.position = (self.position + len(real)) % self.size

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict[prefix + "embeddings"]  # their width is known only when saved
        self.embeddings = torch.empty_like(saved, device=self.embeddings.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def hashes(names: Iterable[str], like: Tensor) -> Tensor:
    """(n,) int64, above 0 and the same in every process; EMPTY for a made column, which has no name."""
    return like.new_tensor([*map(hash_of, names)])


@lru_cache(maxsize=2**18)
def hash_of(name: str) -> int:
    """As `hashes`, of one name."""
    return int(fingerprint_of(name)[:15], 16) + 1 if name else EMPTY
