"""One batch from ids to gradients: encode, score, filter, weight, loss, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, reduce

import torch
from accelerate import Accelerator
from torch import Tensor

from ..models.encoder import Encoder
from ..models.prepared import Prepared
from ..types import Item, Items, Role
from .batch import Batch
from .exchange import gathering
from .gradients import backward, embed, without_negligible
from .objective import EncodedBatch, Objective, Observe, observed, over_prefixes, over_slices
from .slices import Parts, slices_of


class Tokens:
    """Prepared items by id: each text is tokenised once while it stays among the `most` used last.

    What is large or slow to make (images, a frozen tower's output) the encoder itself keeps, by content; of such items
    only what their set says of them is held here.
    """

    def __init__(self, encoder: Encoder, items: Items, role: Role, most: int = 200_000) -> None:
        self._encoder, self._role, self._most = encoder, role, most
        self._item = lru_cache(maxsize=most)(items.__getitem__)
        self._held: OrderedDict[str, Prepared] = OrderedDict()

    def hold(self, items: Sequence[Item]) -> None:
        """Prepares items that are in no set, to be asked for by id at once."""
        fresh = [item for item in items if item.id not in self._held]
        self._held.update(zip([i.id for i in fresh], self._encoder.prepare(fresh, self._role), strict=True))

    def __call__(self, ids: Sequence[str]) -> list[Prepared]:
        absent = [self._item(item_id) for item_id in dict.fromkeys(ids) if item_id not in self._held]
        fresh = dict(zip([item.id for item in absent], self._encoder.prepare(absent, self._role), strict=True))
        found = [fresh.get(item_id) or self._held[item_id] for item_id in ids]
        self._held.update((item.id, fresh[item.id]) for item in absent if not self._encoder.keeps(item))
        for item_id in ids:
            if item_id in self._held:
                self._held.move_to_end(item_id)
        while len(self._held) > max(self._most, len(ids)):
            self._held.popitem(last=False)
        return found


def accumulate_gradients(
    encoder: Encoder,
    objective: Objective,
    batch: Batch,
    tokens: tuple[Tokens, Tokens],
    accelerator: Accelerator,
    *,
    chunk_size: int | None,
    divide_by: int,
    progress: float,
    generator: torch.Generator,
    observe: Observe | None = None,
    keep: float | None = None,
) -> tuple[Tensor, Parts]:
    """Adds this batch's gradient, divided by `divide_by`, to the weights' .grad; returns the loss and its parts, which
    `fetched` makes numbers of: nothing here waits for the device, but for methods that decide by what they see.

    keep: the share of the squared gradient norm, over items, that is carried back; absent, all of it.

    Every process encodes its share of the batch and sees all embeddings, so all compute the same loss; the weights'
    gradients are then this process's part, and their sum over processes is the gradient of the whole batch.
    """
    mine = slice(accelerator.process_index, None, accelerator.num_processes)
    tokens[1].hold(batch.made)
    towers, underway = [], []
    roles: list[tuple[Role, tuple[str, ...]]] = [("query", batch.query_ids), ("document", batch.doc_ids)]
    for prepared, (role, ids) in zip(tokens, roles, strict=True):
        towers.append(embed(encoder, prepared(ids[mine]), role, chunk_size=chunk_size))
        underway.append(gathering(towers[-1], len(ids), accelerator))  # the queries', while documents are encoded
    queries, documents = [gathered() for gathered in underway]
    encoded = EncodedBatch(batch, queries, documents, encoder.similarity, progress)

    def differentiate(loss: Tensor) -> None:
        scaled = loss / divide_by if accelerator.scaler is None else accelerator.scaler.scale(loss / divide_by)
        if scaled.requires_grad:
            scaled.backward()

    slices = slices_of(batch) if not objective.comparing else [range(len(batch.query_ids))]
    if len(slices) == 1:
        loss, parts = over_prefixes(objective, encoded, generator)
        differentiate(loss)
    else:
        loss, parts = over_slices(objective, encoded, generator, slices, differentiate)
    if observe is not None:
        parts |= observed(observe, encoded.detached(), slices)
    if queries.grad is not None or documents.grad is not None:
        gradients = [_gradient(all_values)[mine] for all_values in (queries, documents)]
        if keep is not None:
            towers, parts["skipped"] = without_negligible(encoder, towers, gradients, keep, chunk_size)
        backward(encoder, towers, gradients)
    return loss.detach(), parts


def fetched(values: Sequence[Tensor | float]) -> list[float]:
    """As numbers, brought from the device all at once: the one wait for it."""
    tensors = [value.detach().reshape(()) for value in values if isinstance(value, Tensor)]
    widest = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    numbers = iter(torch.stack([tensor.to(widest) for tensor in tensors]).tolist() if tensors else ())
    return [next(numbers) if isinstance(value, Tensor) else float(value) for value in values]


def _gradient(values: Tensor) -> Tensor:
    return values.grad if values.grad is not None else torch.zeros_like(values)
