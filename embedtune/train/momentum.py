"""The momentum encoder: a slow copy of what is trained, which encodes the documents that a memory queue holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..methods.synthesis.memory_queue import MemoryQueue
from ..models.encoder import Encoder
from ..models.prepared import Prepared
from ..models.similarity import scored
from .batch import Batch
from .exchange import gathering
from .gradients import embed
from .modes import training_mode
from .objective import Objective
from .step import Tokens


@dataclass
class Momentum:
    """One queue's slow weights: after every step, slow = momentum * slow + (1 - momentum) * trained."""

    queue: MemoryQueue
    encoder: Encoder
    trained: list[nn.Parameter]
    slow: list[Tensor]

    @torch.no_grad()
    def offer(self, batch: Batch, tokens: Tokens, accelerator: Accelerator, chunk_size: int | None) -> None:
        """Gives the queue the batch's documents as the slow weights embed them, without dropout."""
        tokens.hold(batch.made)
        mine = slice(accelerator.process_index, None, accelerator.num_processes)
        items: Sequence[Prepared] = tokens(batch.doc_ids[mine])
        with self._in_place():
            own = embed(self.encoder, items, "document", chunk_size=chunk_size)
        self.queue.keys = scored(gathering(own, len(batch.doc_ids), accelerator)().detach(), self.encoder.similarity)

    @torch.no_grad()
    def follow(self) -> None:
        """After an optimizer step."""
        assert self.queue.momentum is not None
        for slow, parameter in zip(self.slow, self.trained, strict=True):
            slow.lerp_(parameter, 1 - self.queue.momentum)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """The model with the slow weights. (With an adapter, only it is trained, and so only it is copied.)"""
        model = self.encoder.model
        kept = [parameter.data for parameter in self.trained]
        model.eval()
        try:
            for parameter, slow in zip(self.trained, self.slow, strict=True):
                parameter.data = slow
            yield
        finally:
            for parameter, data in zip(self.trained, kept, strict=True):
                parameter.data = data
            training_mode(model)


def momenta_of(objective: Objective, encoder: Encoder, trained: Sequence[nn.Parameter]) -> list[Momentum]:
    """One for each memory queue that asks for it, at the weights as they are."""
    queues = [make for make in objective.vectors if isinstance(make, MemoryQueue) and make.momentum is not None]
    return [Momentum(queue, encoder, list(trained), [p.detach().clone() for p in trained]) for queue in queues]


def state_of(momenta: Sequence[Momentum]) -> dict[str, Tensor]:
    return {f"{i}.{j}": slow for i, momentum in enumerate(momenta) for j, slow in enumerate(momentum.slow)}


def load_state(momenta: Sequence[Momentum], state: dict[str, Tensor]) -> None:
    for name, slow in state_of(momenta).items():
        slow.copy_(state[name])
