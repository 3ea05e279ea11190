"""The memory that passes of a model hold, measured on a few short passes of the model itself.

What a pass holds is a constant (weights in another number format) and, for each item of T tokens, b T + a T^2 bytes.
Three passes tell the three apart, for any architecture, number format and implementation of attention.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import distributed
from ..models import cpu
from ..models.encoder import Encoder
from ..models.prepared import Prepared, chunks_by_length
from ..recipe import Recipe
from ..types import Dataset, Items, Role
from . import sizes
from .clock import PhaseKind
from .preflight import device_kind
from .step import backward, embed, training_mode

FEW, MORE = 2, 4  # items of the measured passes
SAMPLE = 200  # items whose length is read
BLOCK_OF_SAMPLE = 20  # samples in a block of items that are sorted together to be encoded
BATCHES = 20  # drawn to find the largest
FRAGMENTS = 0.12  # of a pass's tensors: freed memory that fits no other tensor, and oneDNN's; measured on a CPU
MATRICES = 6  # of a batch's scores that its loss and its gradient hold


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, counts the bytes of tensors that are made and still held; peak: the most at any time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {id(_memory_of(value)) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._hold(value, known)
        return result

    def _hold(self, value: Tensor, known: set[int]) -> None:
        memory = _memory_of(value)
        key = id(memory)
        if key in known or key in self._held:
            return
        size = memory.nbytes() if isinstance(memory, torch.UntypedStorage) else value.numel() * value.element_size()

        def free(_: Any) -> None:
            self.now -= size
            self._held.pop(key, None)

        self._held[key] = weakref.ref(memory, free)
        self.now += size
        self.peak = max(self.peak, self.now)


def _memory_of(value: Tensor) -> Any:
    """What holds the tensor's bytes: its storage; of one that is packed for a library, the tensor itself."""
    return value if value.is_mkldnn else value.untyped_storage()


@contextmanager
def counted(device: torch.device) -> Iterator[Callable[[], tuple[int, int]]]:
    """Gives a function that tells the bytes held beyond those before the block: now, and at most so far. CUDA's
    allocator counts its own; elsewhere tensors are counted."""
    if device.type != "cuda":
        with LiveBytes() as live:
            yield lambda: (live.now, live.peak)
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield lambda: (torch.cuda.memory_allocated(device) - before, torch.cuda.max_memory_allocated(device) - before)


@dataclass(frozen=True)
class Growth:
    """constant + n (linear T + square T^2) bytes for n items of T tokens."""

    constant: float
    linear: float
    square: float

    def of(self, count: int, tokens: int) -> float:
        """Without the constant."""
        return count * (self.linear * tokens + self.square * tokens**2)

    @classmethod
    def through(cls, short: float, long: float, more: float, lengths: tuple[int, int]) -> Growth:
        """From FEW short items, FEW long ones and MORE long ones. Items of one length (images) grow by their number."""
        of_long = max(0.0, more - long) / (MORE - FEW)
        constant = max(0.0, long - FEW * of_long)
        first, last = lengths
        if first == last:
            return cls(constant, of_long / last, 0.0)
        of_short = max(0.0, short - constant) / FEW
        square = max(0.0, (of_long / last - of_short / first) / (last - first))
        return cls(constant, of_long / last - square * last, square)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of the recipe's model in its number format and on its device.

    weights: all of the model's. gradients: of the trained ones; state: the optimizer's. kept: by a graph until its
    backward pass. passing: at most beside that, while the backward pass runs. encoding: by a pass without a graph.
    """

    weights: int
    gradients: int
    state: int
    kept: Growth
    passing: Growth
    encoding: Growth

    def encoded(self, count: int, tokens: int) -> float:
        return self.encoding.constant + self.encoding.of(count, tokens)

    def trained(self, chunks: Sequence[tuple[int, int]], *, cached: bool) -> float:
        """The most that a batch holds beside weights and optimizer, for its chunks of (items, tokens) in the order of
        the pass. cached: by gradient caching, one chunk's graph at a time."""
        most = max((self.encoded(*chunk) for chunk in chunks), default=0.0) if cached else 0.0
        waiting = 0.0 if cached else sum(self.kept.of(*chunk) for chunk in chunks)
        constant = self.kept.constant + self.passing.constant
        for number, chunk in enumerate(chunks):
            kept, passing = self.kept.of(*chunk), self.passing.of(*chunk)
            waiting = max(0.0, waiting - kept)
            # while the first chunk is carried back, gradients take the place of activations
            in_hand = max(kept, self.gradients) if number == 0 else kept + self.gradients
            most = max(most, constant + waiting + in_hand + passing)
        return max(most, float(self.gradients))


def measure(encoder: Encoder, items: Sequence[Prepared], trained: Sequence[torch.nn.Parameter]) -> Footprint:
    """Measures some passes on the longest of these items. The weights' gradients are cleared.

    encoder: as it is trained, in training mode.
    """
    longest = max(items, key=lambda item: item.length)
    lengths = (max(2, longest.length // 2), longest.length) if longest.padded else (longest.length,) * 2
    passes = [(FEW, lengths[0]), (FEW, lengths[1]), (MORE, lengths[1])]
    _with_graph(encoder, _padded(longest, *passes[0]))  # warms up
    graphs = [_with_graph(encoder, _padded(longest, *shape)) for shape in passes]
    for parameter in trained:
        parameter.grad = None
    encoded = [_without_graph(encoder, _padded(longest, *shape)) for shape in passes]

    def growth(values: Sequence[float]) -> Growth:
        return Growth.through(values[0], values[1], values[2], lengths)

    return Footprint(
        weights=sum(tensor.nbytes for tensor in (*encoder.model.parameters(), *encoder.model.buffers())),
        gradients=sum(parameter.nbytes for parameter in trained),
        state=2 * sum(parameter.nbytes for parameter in trained),
        kept=growth([kept for kept, _ in graphs]),
        passing=growth([peak - kept for kept, peak in graphs]),
        encoding=growth(encoded),
    )


def _padded(item: Prepared, count: int, tokens: int) -> list[Prepared]:
    """Items of so many tokens, the last one shorter by one: real chunks have a mask."""
    if not item.padded:
        return [item] * count
    whole = replace(item, padded={name: values[:tokens] for name, values in item.padded.items()}, length=tokens)
    shorter = replace(whole, padded={name: values[: tokens - 1] for name, values in whole.padded.items()})
    return [whole] * (count - 1) + [replace(shorter, length=tokens - 1)]


def _with_graph(encoder: Encoder, items: Sequence[Prepared]) -> tuple[float, float]:
    """Bytes that the graph of one chunk keeps, and the most until it has been carried back."""
    before = encoder.chunk_tokens.bound
    encoder.chunk_tokens.bound = len(items) * items[0].length  # one chunk
    try:
        with counted(encoder.device) as held:
            with encoder.lowered_once():
                tower = embed(encoder, items, "document", chunk_size=None)
            kept, _ = held()
            backward(encoder, [tower], [torch.ones_like(tower.values)])
            return kept, held()[1]
    finally:
        encoder.chunk_tokens.bound = before


def _without_graph(encoder: Encoder, items: Sequence[Prepared]) -> float:
    """The most bytes of one chunk."""
    with counted(encoder.device) as held:
        with encoder.at_rest():
            for _ in range(2):  # weights are packed at their second use
                encoder.forward(items, "document")
        return held()[1]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a short look at the recipe's model on this machine shows.

    resident: bytes of this process beside the model: libraries, data, and what they keep. queries, documents: the
    lengths of a sample, in tokens. encoded_at_once, trained_at_once: tokens of a chunk at most.
    """

    footprint: Footprint
    resident: int
    queries: list[int]
    documents: list[int]
    encoded_at_once: int
    trained_at_once: int
    dimension: int

    @property
    def longest_chunk(self) -> float:
        """Bytes of the largest chunk that is encoded."""
        lengths = sorted(self.documents) * BLOCK_OF_SAMPLE
        return max(self.footprint.encoded(*chunk) for chunk in chunks_of(lengths, self.encoded_at_once))


@dataclass(frozen=True)
class Need:
    """Bytes at most: of the device's memory, and of the host's beside it; all in one on a CPU."""

    device: float
    host: float


def observe(recipe: Recipe, dataset: Dataset, encoder: Encoder) -> Observed:
    """encoder: the recipe's, with its trained weights set. It is left in training mode."""
    training_mode(encoder.model)
    lengths: dict[Role, list[int]] = {}
    sets: list[tuple[Role, Items, Sequence[str]]] = [
        ("query", dataset.queries, list(dataset.qrels)),
        ("document", dataset.corpus, dataset.corpus.ids),
    ]
    prepared: list[Prepared] = []
    for role, items, ids in sets:
        drawn = random.Random("memory").sample(list(ids), min(SAMPLE, len(ids)))
        prepared = encoder.prepare([items[item_id] for item_id in drawn], role)
        lengths[role] = [item.length for item in prepared]
    footprint = measure(encoder, prepared, [p for p in encoder.model.parameters() if p.requires_grad])
    cpu.give_back()
    on_host = footprint.weights if encoder.device.type == "cpu" else 0
    size, limits = recipe.train.chunk_size, encoder.chunk_tokens
    longest = max(max(lengths["query"]), max(lengths["document"]))
    cached = min(limits.most or encoder.tokens_per_chunk, (size or 1) * longest)
    return Observed(
        footprint=footprint,
        resident=max(0, cpu.resident() - on_host),
        queries=lengths["query"],
        documents=lengths["document"],
        encoded_at_once=encoder.tokens_at_once,
        trained_at_once=encoder.tokens_at_once if size is None else cached,
        dimension=encoder.dimension,
    )


def need_of(kind: PhaseKind, recipe: Recipe, observed: Observed, documents: int) -> Need:
    """The most that a phase takes. documents: of the largest set that it encodes."""
    footprint, encoded = observed.footprint, observed.longest_chunk
    state = 0.0
    if kind in ("training", "validation"):  # it is not there yet before, and is released after
        state = footprint.state + (footprint.gradients if recipe.stay_close.pull else 0.0)
    models = 3 if kind == "mixing" else 1  # the mixture and its two ends
    rows = 2 * 4.0 * documents * observed.dimension if kind != "training" else 0.0  # embeddings, as they are and scored
    passes = _training(recipe, observed) if kind == "training" else encoded
    device = models * footprint.weights + state + passes
    if device_kind() == "cpu":
        return Need(observed.resident + device + rows + cpu.GROWTH + FRAGMENTS * passes, 0.0)
    return Need(device, observed.resident + rows)


def _training(recipe: Recipe, observed: Observed) -> float:
    """The most of some batches that are drawn as the run draws them, with their scores."""
    train, drawn = recipe.train, random.Random("batches")
    shard = -(-train.batch_size // distributed.count())
    columns = 0 if recipe.negatives.live is not None else shard * (1 + sizes.own_negatives(recipe))
    most = 0.0
    for _ in range(BATCHES):
        chunks: list[tuple[int, int]] = []
        for lengths, count in ((observed.queries, shard), (observed.documents, columns)):
            chunks += chunks_of([drawn.choice(lengths) for _ in range(count)], observed.trained_at_once)
        most = max(most, observed.footprint.trained(chunks, cached=train.chunk_size is not None))
    scores = 4.0 * min(train.batch_size * sizes.columns(recipe), sizes.LARGEST_MATRIX)
    return most + MATRICES * scores


def chunks_of(lengths: Sequence[int], tokens: int) -> list[tuple[int, int]]:
    """Items of these lengths in chunks, as (items, tokens of the longest)."""
    return [(len(rows), lengths[rows[0]]) for rows in chunks_by_length(lengths, tokens)]
