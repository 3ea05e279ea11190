"""What the processes of a run send each other, while they go on computing: embeddings, and sums of gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn

from .gradients import Embedded

BUCKET = 8_000_000  # gradients that are summed at once
UNDERWAY = 2  # buckets at once: the next is filled while one is summed, and no more memory is taken


def gathering(tower: Embedded, count: int, accelerator: Accelerator) -> Callable[[], Tensor]:
    """Starts to gather all processes' embeddings; what it returns waits for them.

    Those are (count, H) in the batch's order, as a leaf. Process r holds rows r, r + world, ... On a GPU the wait is
    its stream's, not the host's.
    """
    world = accelerator.num_processes
    if world == 1:
        return lambda: tower.values
    share = -(-count // world)
    own = tower.values.detach()
    padded = own.new_zeros(share, own.shape[1])
    padded[: len(own)] = own
    stacked = own.new_empty(world, share, own.shape[1])
    work = torch.distributed.all_gather(list(stacked), padded, async_op=True)

    def gathered() -> Tensor:
        work.wait()
        return stacked.transpose(0, 1).reshape(world * share, -1)[:count].clone().requires_grad_()

    return gathered


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Sums .grad over processes, in buckets. A parameter that no process used keeps no gradient."""
    if accelerator.num_processes == 1:
        return
    underway: deque[Callable[[], None]] = deque()
    for bucket in _buckets(_used(parameters, accelerator)):
        underway.append(_summing(bucket))
        if len(underway) == UNDERWAY:
            underway.popleft()()
    for finish in underway:
        finish()


def _used(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> Iterator[Tensor]:
    """The gradients of those that any process has one of; where this one has none, of zeros."""
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=accelerator.device)
    for parameter, uses in zip(parameters, accelerator.reduce(used, "sum").tolist(), strict=True):
        if uses > 0:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            yield parameter.grad


def _buckets(gradients: Iterator[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        bucket.append(gradient)
        if sum(held.numel() for held in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _summing(bucket: list[Tensor]) -> Callable[[], None]:
    """Starts to sum a bucket; what it returns waits for the sum and puts it in place."""
    flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
    work = torch.distributed.all_reduce(flat, async_op=True)

    def finish() -> None:
        work.wait()
        for gradient, piece in zip(bucket, torch.split(flat, [held.numel() for held in bucket]), strict=True):
            gradient.copy_(piece.view_as(gradient))

    return finish
