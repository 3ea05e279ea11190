"""The momentum encoder: a slow copy of the trained weights, which encodes the documents that a memory queue holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..methods.synthesis.memory_queue import MemoryQueue
from ..models.similarity import scored
from .step import Batch, TrainingStep, embed, gathering, training_mode


@dataclass
class Momentum:
    """One queue's slow weights: after every step, slow = momentum * slow + (1 - momentum) * trained."""

    queue: MemoryQueue
    step: TrainingStep
    trained: list[nn.Parameter]
    slow: list[Tensor]

    @torch.no_grad()
    def offer(self, batch: Batch) -> None:
        """Gives the queue the batch's documents as the slow weights embed them, without dropout."""
        step, tokens = self.step, self.step.tokens[1]
        tokens.hold(batch.made)
        shard = slice(step.accelerator.process_index, None, step.accelerator.num_processes)
        with self._slow_weights():
            tower = embed(step.encoder, tokens(batch.doc_ids[shard]), "document", chunk_size=step.chunk_size)
        documents = gathering(tower, len(batch.doc_ids), step.accelerator)().detach()
        self.queue.keys = scored(documents, step.encoder.similarity)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the slow weights, after an optimizer step."""
        assert self.queue.momentum is not None
        for slow, parameter in zip(self.slow, self.trained, strict=True):
            slow.lerp_(parameter, 1 - self.queue.momentum)

    @contextmanager
    def _slow_weights(self) -> Iterator[None]:
        """The model with the slow weights. (With an adapter, only it is trained, and so only it is copied.)"""
        model = self.step.encoder.model
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


def momenta_of(step: TrainingStep, trained: Sequence[nn.Parameter]) -> list[Momentum]:
    """One for each memory queue that asks for it, at the weights as they are."""
    queues = [make for make in step.objective.vectors if isinstance(make, MemoryQueue) and make.momentum is not None]
    return [Momentum(queue, step, list(trained), [p.detach().clone() for p in trained]) for queue in queues]


def state_of(momenta: Sequence[Momentum]) -> dict[str, Tensor]:
    return {f"{i}.{j}": slow for i, momentum in enumerate(momenta) for j, slow in enumerate(momentum.slow)}


def load_state(momenta: Sequence[Momentum], state: dict[str, Tensor]) -> None:
    for name, slow in state_of(momenta).items():
        slow.copy_(state[name])
