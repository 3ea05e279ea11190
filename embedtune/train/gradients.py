"""Gradient caching: embeddings without a graph, the loss on all of them at once, then the graph again chunk by chunk.

GradCache, arXiv 2101.06983. The gradient is that of one large batch, because the loss sees all embeddings and the
second forward of each chunk restores the generators' states of the first (dropout draws the same masks). Without
`chunk_size` the graph of the first forward is kept and the second is not needed; everything else is the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.cpu import between_chunks
from ..models.encoder import Encoder
from ..models.prepared import Prepared, chunks
from ..types import Role


@dataclass
class Piece:
    """One chunk of a tower's items: which rows it fills, and its graph or what is needed to make it again."""

    rows: list[int]
    items: list[Prepared]
    output: Tensor | None
    state: tuple[Tensor, Tensor | None] | None


@dataclass
class Embedded:
    """The embeddings of one role's items as a leaf that a loss differentiates to, and the way back to the weights."""

    values: Tensor  # (n, H), leaf
    pieces: list[Piece]
    role: Role


def embed(encoder: Encoder, items: Sequence[Prepared], role: Role, *, chunk_size: int | None) -> Embedded:
    """Encodes items in chunks of one kind by length, without a graph, or with one (chunk_size None).

    chunk_size: how many of the longest item a chunk may hold, and so many more of shorter ones.
    """
    if not items:
        return Embedded(torch.empty(0, encoder.dimension, device=encoder.device), [], role)
    pieces = []
    with encoder.without_graph() if chunk_size is not None else nullcontext():
        for rows in chunks(items, _tokens_in_a_chunk(encoder, items, chunk_size)):
            if chunk_size is not None:
                between_chunks(encoder.device)
            chunk = [items[row] for row in rows]
            state = generator_state(encoder.device) if chunk_size is not None else None
            pieces.append(Piece(rows, chunk, encoder.forward(chunk, role), state))
    outputs = torch.cat([piece.output.detach() for piece in pieces if piece.output is not None])
    order = torch.tensor([row for piece in pieces for row in piece.rows], device=outputs.device)
    values = torch.empty_like(outputs).index_copy(0, order, outputs).requires_grad_()
    if chunk_size is not None:
        for piece in pieces:
            piece.output = None
    return Embedded(values, pieces, role)


def _tokens_in_a_chunk(encoder: Encoder, items: Sequence[Prepared], chunk_size: int | None) -> int:
    if chunk_size is None:
        return encoder.tokens_at_once
    return min(encoder.tokens_per_chunk, chunk_size * max(item.length for item in items))


def without_negligible(
    encoder: Encoder, embedded: Sequence[Embedded], gradients: Sequence[Tensor], keep: float, chunk_size: int | None
) -> tuple[list[Embedded], float]:
    """The items that hold a share `keep` of all squared gradient norms, in chunks anew; the share of tokens left out.

    Selective backward: an item with next to no gradient needs no second forward. Those that hold most for each of their
    tokens are taken first, so that as few tokens as may be are computed again. Only for what was embedded without a
    graph, and without dropout, whose masks belong to the first chunks.
    """
    items = [
        {row: item for piece in tower.pieces for row, item in zip(piece.rows, piece.items, strict=True)}
        for tower in embedded
    ]
    squared = torch.cat([gradient.float().square().sum(1) for gradient in gradients]).cpu()
    tokens = torch.tensor([float(of_tower[row].length) for of_tower in items for row in range(len(of_tower))])
    order = (squared / tokens).argsort(descending=True, stable=True)
    held = squared[order].cumsum(0)
    kept = torch.zeros(len(squared), dtype=torch.bool)
    kept[order[: int((held < keep * held[-1]).sum()) + 1]] = True
    found = []
    for tower, of_tower, chosen in zip(embedded, items, torch.split(kept, [len(g) for g in gradients]), strict=True):
        rows = [row for row in range(len(of_tower)) if chosen[row]]
        some = [of_tower[row] for row in rows]
        cut = chunks(some, _tokens_in_a_chunk(encoder, some, chunk_size)) if some else []
        pieces = [
            Piece([rows[place] for place in chunk], [some[place] for place in chunk], None, None) for chunk in cut
        ]
        found.append(Embedded(tower.values, pieces, tower.role))
    return found, 1 - float(tokens[kept].sum() / tokens.sum())


def backward(encoder: Encoder, embedded: Sequence[Embedded], gradients: Sequence[Tensor]) -> None:
    """Carries the gradients at the embeddings, one (n, H) for each `embedded`, into the weights' .grad."""
    for tower, gradient in zip(embedded, gradients, strict=True):
        for piece in tower.pieces:
            output = piece.output
            if output is None:
                between_chunks(encoder.device)
                with restored(piece.state, encoder.device):
                    output = encoder.forward(piece.items, tower.role)
            if output.requires_grad:  # what is frozen has no way back
                output.backward(gradient[piece.rows].to(output.dtype))  # type: ignore[no-untyped-call]
            piece.output = None


def generator_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """The CPU generator's state, and the device's where it has its own."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def restored(state: tuple[Tensor, Tensor | None] | None, device: torch.device) -> Iterator[None]:
    """Runs with the generators as they were at `state`, and puts them back to where they are now."""
    now = generator_state(device)
    try:
        if state is not None:
            _set(state, device)
        yield
    finally:
        _set(now, device)


def _set(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
