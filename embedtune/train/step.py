"""One batch from pairs to gradients: lay out, encode, exchange between processes, score, and carry back.

Gradient caching (GradCache, arXiv 2101.06983): embeddings without a graph, the loss on all of them at once, then the
graph again chunk by chunk. The gradient is that of one large batch, because the loss sees all embeddings and the second
forward of each chunk restores the generators' states of the first (dropout draws the same masks). Without `chunk_size`
the graph of the first forward is kept and there is no second one. Where the memory does not hold it, gradient caching
takes over; where it does not hold a chunk, that and later ones are halved.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial, reduce
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.distributed
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.relevance import Relevance, item_key, text_key
from ..errors import InputError
from ..methods.synthesis.memory_queue import MemoryQueue
from ..models.beside import moved, row_index
from ..models.cpu import between_chunks
from ..models.encoder import Encoder
from ..models.prepared import Prepared, chunks
from ..models.similarity import Similarity, scored
from ..types import Dataset, Item, Items, Pair, Role, Scores
from .objective import Objective, Observe, Parts, is_count, loss_in_slices, loss_of, mean_parts, observed, slices_of

_log = logging.getLogger(__name__)
GeneratorState = tuple[Tensor, Tensor | None]
"""The CPU's generator and the device's, where it has its own."""
FILLER = Item(id="", text="-")
BUCKET = 8_000_000  # gradients that are summed over processes at once
REPLICATED = {"made", "replaced", "skipped", "gradient_norm"}  # numbers for the log that are no sums over processes


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Q queries and D different documents. positive, candidate: (Q, D) bool, as in `types.Scores`.

    own_negatives: (Q, D) bool, True where the column was mined or made for this very row.

    made: the last documents, which are in no corpus. made_queries: (Q,) bool.
    """

    query_ids: tuple[str, ...]
    doc_ids: tuple[str, ...]
    positive: Tensor
    candidate: Tensor
    own_negatives: Tensor
    positive_ids: tuple[frozenset[str], ...]
    made: tuple[Item, ...]
    made_queries: Tensor

    def of(self, rows: Sequence[int]) -> Batch:
        """These queries with all of the batch's documents."""
        index = torch.tensor(rows, dtype=torch.int64)
        return replace(
            self,
            query_ids=tuple(self.query_ids[row] for row in rows),
            positive=self.positive[index],
            candidate=self.candidate[index],
            own_negatives=self.own_negatives[index],
            positive_ids=tuple(self.positive_ids[row] for row in rows),
            made_queries=self.made_queries[index],
        )


def lay_out(
    pairs: Sequence[Pair],
    negatives: Mapping[str, Sequence[str]],
    relevance: Relevance,
    made: Mapping[str, Sequence[Item]] | None = None,
) -> Batch:
    """The batch of these pairs: their positives, the negatives drawn and those made for their queries, each once."""
    made = made or {}
    items = {item.id: item for pair in pairs for item in made.get(pair.query_id, ())}
    query_ids = tuple(pair.query_id for pair in pairs)
    positives = [doc_id for pair in pairs for doc_id in pair.positives]
    drawn = [doc_id for query_id in query_ids for doc_id in negatives.get(query_id, ())]
    real = tuple(dict.fromkeys([*positives, *drawn]))
    doc_ids = (*real, *items)
    column = {doc_id: index for index, doc_id in enumerate(doc_ids)}
    shape = (len(query_ids), len(doc_ids))
    positive = marked(shape, ([column[d] for d in relevance.positives[q] if d in column] for q in query_ids))
    of_made = ([item.id for item in made.get(query_id, ())] for query_id in query_ids)
    of_query = ([*negatives.get(query_id, ()), *ids] for query_id, ids in zip(query_ids, of_made, strict=True))
    own_negatives = marked(shape, ([column[doc_id] for doc_id in ids] for ids in of_query))
    with_key: dict[str, list[int]] = {}  # content -> its columns
    for index, keys in enumerate([*map(relevance.document_keys, real), *((item_key(i),) for i in items.values())]):
        for key in keys:
            with_key.setdefault(key, []).append(index)
    forbidden = (
        [c for key in relevance.forbidden_keys(query_id) for c in with_key.get(key, ())]
        + [column[d] for d in relevance.forbidden_ids(query_id) if d in column]
        for query_id in query_ids
    )
    candidate = marked(shape, forbidden).logical_or_(positive).logical_not_()
    return Batch(
        query_ids=query_ids,
        doc_ids=doc_ids,
        positive=positive,
        candidate=candidate,
        own_negatives=own_negatives & candidate,
        positive_ids=tuple(map(relevance.judged_positive, query_ids)),
        made=tuple(items.values()),
        made_queries=torch.tensor([relevance.is_made(query_id) for query_id in query_ids]),
    )


def marked(shape: tuple[int, int], columns: Iterable[Sequence[int]]) -> Tensor:
    """(Q, D) bool, True at the columns listed for each row."""
    listed = list(columns)
    values = np.zeros(shape, dtype=np.bool_)
    rows = np.arange(len(listed)).repeat([*map(len, listed)])
    values[rows, np.fromiter(chain.from_iterable(listed), dtype=np.int64, count=len(rows))] = True
    return torch.from_numpy(values)


def made_documents(
    makers: Sequence[tuple[str, Any]], pairs: Sequence[Pair], dataset: Dataset, generator: torch.Generator
) -> dict[str, list[Item]]:
    """query_id -> the texts that each rule makes of the pair's first positive; none where a rule does not apply."""
    made: dict[str, list[Item]] = {}
    for pair in pairs if makers else ():
        source = dataset.corpus[pair.positives[0]]
        for name, make in makers:
            text = make(source.content, generator=generator)
            if text is not None:
                item_id = f"made:{name}:{source.id}:{text_key(text)}"
                item = replace(source, id=item_id, title="", text=text, made=True)  # an image stays
                made.setdefault(pair.query_id, []).append(item)
    return made


class Tokens:
    """Prepared items by id: each text is tokenised once while it stays among the `most` used last.

    What is large or slow to make (images, a frozen tower's output) the encoder itself keeps, by content.
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
        prepared = [fresh.get(item_id) or self._held[item_id] for item_id in ids]
        self._held.update((item.id, fresh[item.id]) for item in absent if not self._encoder.keeps(item))
        for item_id in ids:
            if item_id in self._held:
                self._held.move_to_end(item_id)
        while len(self._held) > max(self._most, len(ids)):
            self._held.popitem(last=False)
        return prepared


@dataclass(frozen=True)
class EncodedBatch:
    """A batch with its embeddings, queries (Q, H) and documents (D, H), and what else its scores depend on."""

    batch: Batch
    queries: Tensor
    documents: Tensor
    similarity: Similarity
    progress: float

    @property
    def query_ids(self) -> tuple[str, ...]:
        return self.batch.query_ids

    def detached(self) -> EncodedBatch:
        return replace(self, queries=self.queries.detach(), documents=self.documents.detach())

    def scores(self, rows: Sequence[int] | None = None, dimensions: int | None = None) -> Scores:
        """The scores of some queries (None: all) with all documents, in float32, on the first dimensions."""
        batch, device, queries = self.batch, self.queries.device, self.queries
        if rows is not None:
            batch = batch.of(rows)
            some = slice(rows[0], rows[-1] + 1, rows.step) if isinstance(rows, range) else row_index(rows, device)
            queries = queries[some]
        if dimensions is not None and dimensions > queries.shape[1]:
            raise InputError(f"matryoshka: {dimensions} dimensions are more than the model's {queries.shape[1]}")
        made, paired = {item.id for item in batch.made}, batch.positive.nonzero(as_tuple=True)
        q, d = (scored(values[:, :dimensions], self.similarity) for values in (queries, self.documents))
        return Scores(
            student=q @ d.T,
            positive=moved(batch.positive, device),
            candidate=moved(batch.candidate, device),
            own=moved(batch.own_negatives, device),
            queries=q,
            documents=d,
            query_ids=batch.query_ids,
            doc_ids=tuple("" if item_id in made else item_id for item_id in batch.doc_ids),
            positive_ids=batch.positive_ids,
            made=moved(torch.tensor([item_id in made for item_id in batch.doc_ids]), device) if made else None,
            made_by=tuple(rule_of(item_id) if item_id in made else "" for item_id in batch.doc_ids) if made else (),
            made_queries=moved(batch.made_queries, device) if batch.made_queries.any() else None,
            progress=self.progress,
            positive_pairs=(moved(paired[0], device), moved(paired[1], device)),
        )


def rule_of(item_id: str) -> str:
    """The name of the rule that made an item."""
    return item_id.split(":", 2)[1]


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """What every batch of a run is computed with.

    tokens: those of queries, then of documents. chunk_size: how many of the longest item are encoded at once; None:
    without gradient caching. keep: the share of the squared gradient norm that is carried back (selective backward).
    accumulate: batches of one optimizer step, by which each one's gradient is divided. logged: the numbers that any
    process has had for the log, by batch and name, and whether each is a count.
    """

    encoder: Encoder
    objective: Objective
    tokens: tuple[Tokens, Tokens]
    accelerator: Accelerator
    chunk_size: int | None = None
    keep: float | None = None
    accumulate: int = 1
    logged: dict[tuple[int, str], bool] = field(default_factory=dict)

    @property
    def shard(self) -> slice:
        """This process's rows of a batch's items."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    @property
    def local(self) -> bool:
        """Whether each process takes the loss of its own queries alone: the objective treats each by itself, and keeps
        nothing of what it has seen."""
        keeps = (
            self.objective.comparing or self.objective.vectors or any(True for _ in self.objective.modules.buffers())
        )
        return self.accelerator.num_processes > 1 and not keeps

    def sum_over(self, numbers: Sequence[Tensor | float]) -> Tensor:
        """(n,) float64, the sums over all processes, on the device, which is not waited for."""
        device = self.accelerator.device
        tensors = {index: number.detach() for index, number in enumerate(numbers) if isinstance(number, Tensor)}
        known = [0.0 if index in tensors else float(number) for index, number in enumerate(numbers)]
        sums = moved(torch.tensor(known, dtype=torch.float64), device)
        if tensors:
            on_device = torch.stack([moved(tensor.reshape(()), device).double() for tensor in tensors.values()])
            sums = sums.index_copy(0, row_index(tensors, device), on_device)
        torch.distributed.all_reduce(sums)
        return sums

    def adds(self, numbers: Parts) -> Parts:
        """What of these numbers this process adds to those of the whole batch: the first one adds what all have."""
        if self.accelerator.is_main_process:
            return numbers
        return {name: number for name, number in numbers.items() if self.local and name not in REPLICATED}

    def differentiate(self, loss: Tensor) -> None:
        scaler = self.accelerator.scaler
        divided = loss / self.accumulate
        scaled = divided if scaler is None else scaler.scale(divided)
        if scaled.requires_grad:
            scaled.backward()


ROLES: tuple[Role, Role] = ("query", "document")


def prepared(step: TrainingStep, batch: Batch) -> list[list[Prepared]]:
    """This process's shard of the batch's queries, and of its documents, ready for the model."""
    step.tokens[1].hold(batch.made)
    ids = (batch.query_ids, batch.doc_ids)
    return [tokens(of_role[step.shard]) for tokens, of_role in zip(step.tokens, ids, strict=True)]


def accumulate_gradients(
    step: TrainingStep,
    batch: Batch,
    generator: torch.Generator,
    *,
    progress: float,
    observe: Observe | None = None,
    items: Sequence[Sequence[Prepared]] | None = None,
) -> tuple[Tensor, Parts]:
    """Adds the batch's gradient to the weights' .grad; returns the loss and numbers for the log.

    items: what `prepared` gives, where it has been called before.

    `numbers_of` makes numbers of both. Nothing here waits for the device, except methods that decide by values.

    Every process encodes its shard of the batch and sees all embeddings. It computes the loss of its own queries
    (`TrainingStep.local`), and loss and numbers are then what these add to the whole's (`numbers_of`); else all
    compute the same loss. The weights' gradients are of this process's shard, and their sum over processes is the
    gradient of the whole batch.
    """
    encoder, objective = step.encoder, step.objective
    shard = step.shard
    towers: list[Tower] = []
    underway = []
    shards = zip(ROLES, items or prepared(step, batch), batch.positive.shape, strict=True)
    with encoder.lowered_once() if step.chunk_size is None else encoder.without_graph():
        for role, of_role, count in shards:
            towers.append(embed(encoder, of_role, role, chunk_size=step.chunk_size, earlier=towers))
            # the queries' are exchanged while documents are encoded
            underway.append(gathering(towers[-1], count, step.accelerator))
    queries, documents = [wait() for wait in underway]
    encoded = EncodedBatch(batch, queries, documents, encoder.similarity, progress)
    slices = slices_of(batch.positive) if not objective.comparing else [range(len(batch.query_ids))]
    if step.local:
        rows = range(len(batch.query_ids))[shard]
        slices_here = [rows[part.start : part.stop] for part in slices_of(batch.positive[shard])] if len(rows) else []
        loss, parts = loss_in_slices(objective, encoded, generator, slices_here, step.differentiate, step.sum_over)
    elif len(slices) == 1:
        loss, parts = loss_of(objective, encoded, generator)
        step.differentiate(loss)
    else:
        loss, parts = loss_in_slices(objective, encoded, generator, slices, step.differentiate)
    if observe is not None:
        parts |= observed(observe, encoded.detached(), slices)
    if step.local or queries.grad is not None or documents.grad is not None:
        at_queries, at_documents = (
            values.grad if values.grad is not None else torch.zeros_like(values) for values in (queries, documents)
        )
        of_documents = scattered(at_documents, step.accelerator) if step.local else at_documents[shard]
        gradients = [at_queries[shard], of_documents]
        if step.keep is not None:
            towers, parts["skipped"] = without_negligible(encoder, towers, gradients, step.keep, step.chunk_size)
        backward(encoder, towers, gradients)
    return loss.detach(), parts


@torch.no_grad()
def slow_documents(
    step: TrainingStep, batch: Batch, items: Sequence[Prepared], queue: MemoryQueue, trained: Sequence[nn.Parameter]
) -> Tensor:
    """(D, H) the batch's documents as the queue's slow copy embeds them, without dropout. items: this process's."""
    step.encoder.model.eval()
    with queue.slow_weights(trained):
        tower = embed(step.encoder, items, "document", chunk_size=step.chunk_size)
    training_mode(step.encoder.model)
    documents = gathering(tower, len(batch.doc_ids), step.accelerator)().detach()
    return scored(documents, step.encoder.similarity)


def fetched(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The values as numbers, brought from the device all at once: the step's one wait for it."""
    tensors = {name: value.detach().reshape(()) for name, value in values.items() if isinstance(value, Tensor)}
    widest = reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()), torch.float32)
    numbers = torch.stack([tensor.to(widest) for tensor in tensors.values()]).tolist() if tensors else []
    from_device = dict(zip(tensors, numbers, strict=True))
    return {name: from_device[name] if name in from_device else float(value) for name, value in values.items()}


def numbers_of(step: TrainingStep, batches: Sequence[Parts], others: Parts) -> dict[str, float]:
    """The means over a step's batches, and the others as they are, from what each process adds to them.

    The step's one wait for the device.
    """
    if step.accelerator.num_processes > 1:
        of_process = [*batches, others]
        flat = {(index, name): part for index, parts in enumerate(of_process) for name, part in parts.items()}
        whole: list[Parts] = [{} for _ in of_process]
        for (index, name), number in summed(step, flat).items():
            whole[index][name] = number
        *batches, others = whole
    return fetched({**mean_parts(batches), **others})


def summed(step: TrainingStep, numbers: Mapping[tuple[int, str], Tensor | float]) -> dict[tuple[int, str], float]:
    """The sums over processes by name, of the names that any process has; a count is an int.

    Processes tell each other their names only where one has a new one: else one sum says all.
    """
    known = step.logged
    values = [numbers.get(name, 0.0) for name in known]
    here = [float(name in numbers) for name in known]
    sums = step.sum_over([*values, *here, len(numbers.keys() - known.keys())]).tolist()
    if sums[-1]:
        names: list[Any] = [None] * step.accelerator.num_processes
        torch.distributed.all_gather_object(names, {name: is_count(number) for name, number in numbers.items()})
        for of_process in names:
            known.update(of_process)
        return summed(step, numbers)
    by_name = zip(known.items(), sums, sums[len(known) :], strict=False)
    return {name: round(value) if counts else value for (name, counts), value, processes in by_name if processes}


@dataclass
class Piece:
    """One chunk of a tower's items: their rows in the tower, and its graph or what is needed to make it again."""

    rows: list[int]
    items: list[Prepared]
    output: Tensor | None = None
    state: GeneratorState | None = None


@dataclass
class Tower:
    """The embeddings of one role's items as a leaf that a loss differentiates to, and the way back to the weights.

    after: the generators' state after the pieces, each piece has the state before it.
    """

    values: Tensor  # (n, H) float32, leaf
    pieces: list[Piece]
    role: Role
    after: GeneratorState | None = None

    def drop_graphs(self) -> None:
        for piece in self.pieces:
            piece.output = None

    @property
    def draws(self) -> bool:
        """Whether the forward pass drew random numbers, as dropout does."""
        states = [state for state in (self.pieces[0].state, self.after) if state is not None]
        return len(states) == 2 and not _same_state(*states)


def embed(
    encoder: Encoder,
    items: Sequence[Prepared],
    role: Role,
    *,
    chunk_size: int | None,
    earlier: Sequence[Tower] = (),
) -> Tower:
    """Encodes items in chunks of similar length: without a graph, or with one where chunk_size is None.

    chunk_size: how many of the longest item a chunk may hold, and so many more of shorter ones. The values are float32
    in any precision: a process without items must gather the same type as the others. earlier: towers of the same
    batch, whose graphs are dropped where the memory does not hold them beside this one.
    """
    pieces, start = None, generator_state(encoder.device)
    while pieces is None:
        cached = chunk_size is not None or not encoder.chunk_tokens.whole_graphs
        pieces = _encoded_pieces(encoder, items, role, chunk_size, cached)
        if pieces is None:  # all again in smaller chunks, with the random numbers that those draw
            _set_generators(start, encoder.device)
            for tower in earlier:
                tower.drop_graphs()
    nothing = torch.empty(0, encoder.dimension, device=encoder.device)
    outputs = torch.cat([nothing, *(p.output.detach().float() for p in pieces if p.rows and p.output is not None)])
    order = row_index((row for piece in pieces for row in piece.rows), outputs.device)
    values = torch.empty_like(outputs).index_copy(0, order, outputs).requires_grad_()
    if cached:
        for piece in pieces:
            piece.output = None
    return Tower(values, pieces, role, generator_state(encoder.device))


def _encoded_pieces(
    encoder: Encoder, items: Sequence[Prepared], role: Role, chunk_size: int | None, cached: bool
) -> list[Piece] | None:
    """The items in pieces with their outputs. None where memory ran out; then fewer tokens are taken from here on."""
    pieces: list[Piece] = []
    with encoder.without_graph() if cached else nullcontext():
        for rows in _chunks(encoder, items, chunk_size):
            if cached:
                between_chunks(encoder.device)
            chunk, state = _items_of(encoder, items, rows, role), generator_state(encoder.device)
            output = encoder.attempt(partial(encoder.forward, chunk, role))
            if output is None:
                _take_less(encoder, chunk, cached)
                return None
            pieces.append(Piece(rows, chunk, output, state))
    return pieces


def _chunks(encoder: Encoder, items: Sequence[Prepared], chunk_size: int | None) -> list[list[int]]:
    """The rows of each chunk; none for a filler, where other processes have more chunks and passes are in common."""
    return encoder.in_step(chunks(items, _tokens_in_a_chunk(encoder, items, chunk_size)) if items else [])


def _items_of(encoder: Encoder, items: Sequence[Prepared], rows: Sequence[int], role: Role) -> list[Prepared]:
    return [items[row] for row in rows] if rows else encoder.prepare([FILLER], role)


def _take_less(encoder: Encoder, chunk: Sequence[Prepared], cached: bool) -> None:
    """After memory ran out: smaller chunks; or gradient caching, where the graphs of a whole batch were kept."""
    if cached:
        encoder.chunk_tokens.halve(chunk, encoder.where)
    elif encoder.chunk_tokens.whole_graphs:
        encoder.chunk_tokens.whole_graphs = False
        _log.warning(
            "%s: out of memory with the graph of a whole batch; gradient caching from here on, with the same gradient "
            "(train.chunk_size)",
            encoder.where,
        )


def _same_state(one: GeneratorState, other: GeneratorState) -> bool:
    return all(a is b or torch.equal(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None)


def _tokens_in_a_chunk(encoder: Encoder, items: Sequence[Prepared], chunk_size: int | None) -> int:
    if chunk_size is None:
        return encoder.tokens_at_once
    most = encoder.chunk_tokens.most or encoder.tokens_per_chunk
    return min(most, chunk_size * max(item.length for item in items))


def backward(encoder: Encoder, towers: Sequence[Tower], gradients: Sequence[Tensor]) -> None:
    """Carries the gradients at the embeddings, (n, H) for each tower, into the weights' .grad."""
    with encoder.lowered_once():
        for tower, gradient in zip(towers, gradients, strict=True):
            _carry_back_all(encoder, tower, gradient, towers)


def _carry_back_all(encoder: Encoder, tower: Tower, gradient: Tensor, towers: Sequence[Tower]) -> None:
    """Carries one tower's gradient back. towers: all of the batch, whose graphs are dropped where memory runs out."""
    pending: deque[tuple[Piece, list[nn.Parameter] | None]] = deque((piece, None) for piece in tower.pieces)
    while pending:
        piece, weights = pending.popleft()
        has_graph = piece.output is not None
        without = _carry_back(encoder, tower.role, piece, gradient, weights)
        if not without:
            continue
        for other in towers:
            other.drop_graphs()
        if has_graph:
            _take_less(encoder, piece.items, cached=False)
            pending.appendleft((piece, without))
        elif tower.draws:
            _carry_back_by_host(encoder, tower.role, piece, gradient, without)
        else:
            encoder.chunk_tokens.halve(piece.items, encoder.where)
            pending.extendleft((half, without) for half in _halves(piece))


def _carry_back(
    encoder: Encoder, role: Role, piece: Piece, gradient: Tensor, weights: list[nn.Parameter] | None
) -> list[nn.Parameter]:
    """Carries a piece's gradient into the .grad of these weights (None: all that are trained).

    Returns the weights that did not get it because memory ran out. A weight gets all of a piece's gradient at once.
    """
    wanted = [p for p in encoder.model.parameters() if p.requires_grad] if weights is None else weights
    before = [_gradient_version(weight) for weight in wanted]
    if encoder.attempt(partial(_differentiate, encoder, role, piece, gradient, weights)):
        return []
    return [weight for weight, version in zip(wanted, before, strict=True) if _gradient_version(weight) == version]


def _gradient_version(weight: nn.Parameter) -> int | None:
    return None if weight.grad is None else weight.grad._version


def _differentiate(
    encoder: Encoder, role: Role, piece: Piece, gradient: Tensor, weights: list[nn.Parameter] | None
) -> bool:
    output, piece.output = piece.output, None
    if output is None:
        between_chunks(encoder.device)
        with restored(piece.state, encoder.device):
            output = encoder.forward(piece.items, role)
    if output.requires_grad:  # frozen modules have no way back
        rows = row_index(piece.rows, gradient.device)
        at_output = gradient[rows].to(output.dtype) if piece.rows else torch.zeros_like(output)
        output.backward(at_output, inputs=weights)  # type: ignore[no-untyped-call]
    return True


def _carry_back_by_host(
    encoder: Encoder, role: Role, piece: Piece, gradient: Tensor, weights: list[nn.Parameter]
) -> None:
    """The same with the activations kept in the host's memory: smaller pieces would draw other dropout masks than the
    loss has seen. Later batches come in smaller chunks. Raises InputError where this does not fit either."""
    with torch.autograd.graph.save_on_cpu():
        without = _carry_back(encoder, role, piece, gradient, weights)
    if without:
        raise InputError(
            f"{encoder.where}: out of memory in the backward pass of {len(piece.items)} items; lower train.chunk_size "
            "or model.chunk_tokens"
        )
    if len(piece.items) > 1:
        encoder.chunk_tokens.halve(piece.items, encoder.where)


def _halves(piece: Piece) -> list[Piece]:
    middle = len(piece.rows) // 2
    parts = (slice(middle, None), slice(middle))
    return [replace(piece, rows=piece.rows[part], items=piece.items[part]) for part in parts]


def without_negligible(
    encoder: Encoder, towers: Sequence[Tower], gradients: Sequence[Tensor], keep: float, chunk_size: int | None
) -> tuple[list[Tower], float]:
    """Selective backward: an item with next to no gradient needs no second forward.

    Returns the items that hold a share `keep` of all squared gradient norms, in new chunks, and the share of tokens
    left out. Items with most gradient for each of their tokens come first, so that few tokens are computed again. Only
    for towers embedded without a graph and without dropout, whose masks belong to the first chunks.
    """
    by_row = [
        {row: item for piece in tower.pieces if piece.rows for row, item in zip(piece.rows, piece.items, strict=True)}
        for tower in towers
    ]
    squared = torch.cat([gradient.float().square().sum(1) for gradient in gradients]).cpu()
    tokens = torch.tensor([float(items[row].length) for items in by_row for row in range(len(items))])
    order = (squared / tokens).argsort(descending=True, stable=True)
    held = squared[order].cumsum(0)
    kept = torch.zeros(len(squared), dtype=torch.bool)
    kept[order[: int((held < keep * held[-1:]).sum()) + 1]] = True
    chosen = []
    for tower, items, mask in zip(towers, by_row, torch.split(kept, [len(g) for g in gradients]), strict=True):
        rows = mask.nonzero().flatten().tolist()
        some = [items[row] for row in rows]
        parts = _chunks(encoder, some, chunk_size)
        pieces = [Piece([rows[i] for i in part], _items_of(encoder, some, part, tower.role)) for part in parts]
        chosen.append(Tower(tower.values, pieces, tower.role))
    return chosen, 1 - float(tokens[kept].sum() / tokens.sum().clamp(min=1))


def generator_state(device: torch.device) -> GeneratorState:
    """The state of the CPU's generator, and of the device's where it has its own (CUDA, MPS)."""
    if device.type == "cpu":
        return torch.get_rng_state(), None
    where = (device,) if device.type == "cuda" else ()
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state(*where)


def _set_generators(state: GeneratorState, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        where = (device,) if device.type == "cuda" else ()
        torch.get_device_module(device).set_rng_state(state[1], *where)


@contextmanager
def restored(state: GeneratorState | None, device: torch.device) -> Iterator[None]:
    """Runs with the generators as they were at `state`, and puts them back to where they are now."""
    now = generator_state(device)
    try:
        if state is not None:
            _set_generators(state, device)
        yield
    finally:
        _set_generators(now, device)


def gathering(tower: Tower, count: int, accelerator: Accelerator) -> Callable[[], Tensor]:
    """Starts to gather all processes' embeddings; the function that it returns waits for them.

    They are (count, H) in the batch's order, as a leaf. Process r holds rows r, r + world, ... On a GPU its stream
    waits, not the host.
    """
    world = accelerator.num_processes
    if world == 1:
        return lambda: tower.values
    share = -(-count // world)
    values = tower.values.detach()
    padded = values.new_zeros(share, values.shape[1])
    padded[: len(values)] = values
    stacked = values.new_empty(world, share, values.shape[1])
    work = torch.distributed.all_gather(list(stacked), padded, async_op=True)

    def wait() -> Tensor:
        work.wait()
        return stacked.transpose(0, 1).reshape(world * share, -1)[:count].clone().requires_grad_()

    return wait


def scattered(gradient: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's rows of the sum of all processes' gradients at the gathered embeddings, (count, H)."""
    world, rank = accelerator.num_processes, accelerator.process_index
    share = -(-len(gradient) // world)
    padded = gradient.new_zeros(share * world, gradient.shape[1])
    padded[: len(gradient)] = gradient
    by_process = padded.view(share, world, -1).transpose(0, 1).contiguous()
    of_shard = torch.empty_like(by_process[0])
    torch.distributed.reduce_scatter(of_shard, list(by_process))
    return of_shard[: len(range(rank, len(gradient), world))]


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Sums .grad over processes, a bucket at a time. A parameter that no process used keeps no gradient."""
    if accelerator.num_processes == 1:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=accelerator.device)
    bucket: list[Tensor] = []
    for parameter, uses in zip(parameters, accelerator.reduce(used, "sum").tolist(), strict=True):
        if uses > 0:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
        if sum(gradient.numel() for gradient in bucket) >= BUCKET:
            _sum_bucket(bucket)
            bucket = []
    _sum_bucket(bucket)


def _sum_bucket(gradients: Sequence[Tensor]) -> None:
    if not gradients:
        return
    widest = reduce(torch.promote_types, (gradient.dtype for gradient in gradients), torch.float32)
    flat = torch.cat([gradient.reshape(-1).to(widest) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, values in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(values.view_as(gradient))


def average_gradients(modules: nn.Module, accelerator: Accelerator) -> None:
    """Makes .grad the same on all processes, for modules whose whole gradient each process has computed."""
    for parameter in modules.parameters() if accelerator.num_processes > 1 else ():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


@torch.no_grad()
def agree_on_state(tensors: Mapping[str, Tensor], accelerator: Accelerator) -> list[str]:
    """Gives every process the main one's values of what differs by a bit; returns the names of these tensors.

    One small collective compares sums over the bits. Each process holds rows of its own of what is shared out.
    """
    named = {name: values.detach() for name, values in tensors.items() if not isinstance(values, DTensor)}
    if accelerator.num_processes == 1 or not named:
        return []
    sums = torch.stack([_sum_of_bits(values).to(accelerator.device) for values in named.values()])
    extremes = torch.stack([sums, ~sums])  # the largest complement is the complement of the smallest
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    differs = (extremes[0] != ~extremes[1]).tolist()
    different = [name for name, unlike in zip(named, differs, strict=True) if unlike]
    for name in different:
        torch.distributed.broadcast(named[name], 0)
        torch.autograd.graph.increment_version(named[name])  # cached embeddings are named by the counted version
    return different


def _sum_of_bits(values: Tensor) -> Tensor:
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return values.contiguous().view(kinds[values.element_size()]).sum(dtype=torch.int64)


def training_mode(*models: nn.Module) -> None:
    """Training mode; batch-norm stays in evaluation mode, or a batch's statistics would depend on its chunks."""
    for model in models:
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
