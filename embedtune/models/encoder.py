"""An encoder: a sentence-transformers model with its own pooling, prompts and normalisation, and how to run it.

Items are prepared once (tokenised without padding, images opened), then encoded in chunks that are sorted by length and
bounded in tokens, so that little is padded and a chunk stays in cache. The same two calls serve training and inference.
"""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.mixture import JoinedItems
from ..data.passages import Splitter, split
from ..errors import InputError
from ..files import fingerprint_of
from ..recipe import Model, Passages, Precision
from ..types import Item, Items, Role
from . import TOKENS_PER_CHUNK, cpu, store
from .attention import implementations_of, is_flash, masks_known
from .beside import Rows, brought, moved, row_index
from .compose import from_tower
from .device_memory import ChunkTokens, attempt
from .dtypes import Weights, dtype_of
from .loading import load_model, model_of
from .lowering import LoweredWeights
from .modules import modules_of, weights_fingerprint
from .precision import DTYPES, Resolved, resolve_device, resolve_precision
from .prepare import Preparer, kind_of, role_prompt
from .prepared import BLOCK, Prepared, chunks, computed_in_blocks, pads
from .recomputed import fewer_activations
from .similarity import Similarity

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Progress = store.Progress
Result = TypeVar("Result")
Prepare = Callable[[Sequence[Item], Role], list[Prepared]]


class Encoder:
    """Turns items into embeddings. `model` is the sentence-transformers model, whose weights training changes."""

    sharded = False  # whether each process holds its rows of the weights only

    def __init__(
        self,
        model: SentenceTransformer,
        name: str,
        precision: Resolved,
        *,
        cached: bool = True,
        passages: Passages | None = None,
        chunk_tokens: int | None = None,
    ) -> None:
        """cached: whether embeddings of sets with a fingerprint are kept on disk. passages: how `split` splits.
        chunk_tokens: how many tokens are encoded at once; None: the device's own number.

        Raises InputError for flash attention in fp32, and for passages that are longer than the model reads.
        """
        self.model = model
        self.name = name
        self.precision = precision
        self.attention = implementations_of(model)
        if precision == "fp32" and any(is_flash(name) for name in self.attention):
            raise InputError(f"model {name}: {self.attention[0]} computes in bf16 or fp16 alone, and precision is fp32")
        self.cached = cached
        self.device: torch.device = model.device
        self.preparer = Preparer(model, name)
        self.passages = passages
        if passages is not None and (room := self.preparer.room()) is not None and passages.tokens > room:
            raise InputError(
                f"passages of {passages.tokens} tokens are longer than the {room} that {name} reads of a document "
                f"(its maximum length is {self.max_length}, with special tokens and prompt); give at most {room}"
            )
        self.borrower: str | None = None  # set: the embeddings it caches are for one use and are then removed
        self.cached_towers: Prepare | None = None  # set: items are prepared as the outputs of frozen towers
        self.tokens_per_chunk = TOKENS_PER_CHUNK[self.device.type]
        self.chunk_tokens = ChunkTokens(asked=chunk_tokens)  # one for all copies of this encoder
        self._lowered = LoweredWeights(self.device, DTYPES[precision])
        self._identities: dict[str, tuple[int, str]] = {}  # part of the model -> its weights' version, its identity

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension() or 0)

    @property
    def tokens_at_once(self) -> int:
        """Tokens in one chunk where memory does not matter. Half precision takes as many bytes, so twice the tokens:
        with bf16 on a CPU encoding is 5 to 8% faster and training 4%; fp32 is slower with more."""
        return self.chunk_tokens.most or self.tokens_per_chunk * (1 if self.precision == "fp32" else 2)

    @property
    def similarity(self) -> Similarity:
        """Raises InputError for a similarity other than cosine and dot."""
        name = self.model.similarity_fn_name
        if name not in ("cosine", "dot"):
            raise InputError(f"model {self.name}: similarity {name!r} is not supported; cosine and dot are")
        return cast(Similarity, name)

    @property
    def max_length(self) -> int | None:
        return cast("int | None", self.model.max_seq_length)

    @property
    def where(self) -> str:
        """The model and its device, for messages."""
        return f"{self.name} on {self.device}"

    @property
    def dtype(self) -> Weights:
        """The number format of the transformers' weights in memory."""
        return dtype_of(self.model)

    def prompt(self, role: Role) -> str | None:
        """The text before each item of a role."""
        return role_prompt(self.model, role)

    @property
    def fingerprint(self) -> str:
        """Everything that embeddings depend on to the last bit: the model's identity, the precision, the number format
        of the weights, the implementation of attention, the kind of device, how many tokens are encoded at once, the
        libraries' versions."""
        return self.fingerprint_of(self.identity)

    def fingerprint_of(self, *parts: str) -> str:
        """The same for the named parts of the model."""
        versions = json.dumps(store.versions(self.dtype), sort_keys=True)
        environment = (self.precision, self.dtype, *self.attention, self.device.type, versions)
        asked = self.chunk_tokens.asked  # other chunks are padded to other lengths, which changes the last bits
        chunk = () if asked is None else (f"chunk_tokens {asked}",)
        return fingerprint_of(*parts, self.preparer.architecture, *environment, *chunk)

    @property
    def identity(self) -> str:
        """Which model this is, on any device: weights, processor, modules, prompts, truncation."""
        return self._identity_of(self.model, "whole")

    @property
    def document_identity(self) -> str:
        """The identity of what encodes documents: of a model with a tower for each role, that of the document tower as
        a model of its own. Training queries alone leaves it as it was, and with it every index."""
        from sentence_transformers import SentenceTransformer

        routes = getattr(self.model[0], "sub_modules", None)
        if routes is None or set(routes) != {"query", "document"}:
            return self.identity
        tower = SentenceTransformer(
            modules=[*routes["document"], *list(self.model)[1:]],
            device=str(self.device),
            prompts=self.model.prompts,
            similarity_fn_name=self.model.similarity_fn_name,
            truncate_dim=self.model.truncate_dim,
        )
        return Encoder(tower, self.name, self.precision).identity

    def fingerprint_for(self, role: Role) -> str:
        """Everything that the embeddings of one role depend on. Of a model with a tower for each role it covers that
        tower only, so that documents are not encoded again where only queries were trained."""
        routes = getattr(self.model[0], "sub_modules", None)
        if routes is None or set(routes) != {"query", "document"}:
            return self.fingerprint
        return self.fingerprint_of(self._identity_of(routes[role], role), *map(_config_of, list(self.model)[1:]))

    def _identity_of(self, part: torch.nn.Module, name: str) -> str:
        version = sum(tensor._version for tensor in part.state_dict().values())
        entry = self._identities.get(name)
        if entry is None or entry[0] != version:
            settings = {
                "prompts": [self.prompt("query"), self.prompt("document")],
                "max_length": self.max_length,
                "similarity": self.similarity,
                "modules": [f"{type(module).__name__} {_config_of(module)}" for module in modules_of(self.model)],
            }
            if self.model.truncate_dim is not None:
                settings["truncate_dim"] = self.model.truncate_dim
            described = json.dumps(settings, sort_keys=True, default=str)
            parts = (weights_fingerprint(part), self.preparer.readers, described)
            entry = self._identities[name] = (version, fingerprint_of(*parts))
        return entry[1]

    def split(self, corpus: Items) -> Items:
        """The corpus's passages; the corpus itself where documents are not split."""
        if self.passages is None:
            return corpus
        tokens, stride = self.passages.tokens, self.passages.stride
        tokenizer = fingerprint_of(self.preparer.readers)
        return split(corpus, Splitter(tokens=tokens, stride=stride, offsets=self.preparer.offsets, tokenizer=tokenizer))

    def with_cache(self) -> Encoder:
        """The same model with its embeddings cached; other weights later have other keys."""
        same = copy.copy(self)
        same.cached = True
        return same

    def borrowed(self, borrower: str) -> Encoder:
        """The same with its embeddings in the cache for one use, so that processes share the work; `forget` removes
        them. borrower: names the use, so that no other use's embeddings are removed."""
        same = self.with_cache()
        same.borrower = borrower
        return same

    def forget(self, items: Items, role: Role) -> None:
        """Removes the items' embeddings from the cache; of a mixture, its parts' too."""
        for part in items.parts.values() if isinstance(items, JoinedItems) else ():
            self.forget(part, role)
        store.forget(self.key(items, role))

    @contextmanager
    def whole(self) -> Iterator[Encoder]:
        """The encoder for work that every process does at its own pace. All processes enter at once."""
        yield self

    def in_step(self, parts: list[list[int]]) -> list[list[int]]:
        """The rows of each chunk that this process passes through the model, and empty ones where passes are counted
        in common."""
        return parts

    def attempt(self, call: Callable[[], Result]) -> Result | None:
        """The call's result; None where memory ran out and less may be tried."""
        return attempt(call, self.device)

    def prepare(self, items: Sequence[Item], role: Role) -> list[Prepared]:
        """The items ready for the model, in order. Raises InputError for a broken image, and for an item that the model
        cannot take."""
        return (self.cached_towers or self.preparer)(items, role)

    def reads(self, item: Item) -> bool:
        """Whether the model takes an item of its kind: text, an image, or both at once."""
        return self.preparer.reads(kind_of(item))

    def refuse_unread(self, items: Iterable[Item]) -> None:
        """Raises InputError for an item of a kind that the model does not take."""
        self.preparer.refuse_unread(items)

    def keeps(self, item: Item) -> bool:
        """Whether the prepared item is kept in memory by content, beyond the call."""
        return item.image is not None or self.cached_towers is not None

    def forward(self, chunk: Sequence[Prepared], role: Role) -> Tensor:
        """(n, H) embeddings of one chunk in the model's precision, cut to its truncate_dim; records a graph where
        gradients are enabled."""
        features = self.features(chunk, role)
        with self.autocast(), self._while_training(), masks_known(features, pads(chunk)):
            output = from_tower(self.model, features) if self.cached_towers else self.model(features, task=role)
        return cast(Tensor, output["sentence_embedding"][:, : self.model.truncate_dim])

    def features(self, chunk: Sequence[Prepared], role: Role) -> dict[str, Any]:
        """A chunk's features on the model's device."""
        features = self.preparer.features(chunk, role)
        return {k: moved(v, self.device) if isinstance(v, Tensor) else v for k, v in features.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32")

    @contextmanager
    def _while_training(self) -> Iterator[None]:
        """Around a forward pass that may record a graph. Gradient checkpointing holds less by itself."""
        checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules())
        if checkpointing or not torch.is_grad_enabled():
            yield
            return
        with fewer_activations(self.model), cpu.while_training(self.device, DTYPES[self.precision]):
            yield

    def lowered_once(self) -> AbstractContextManager[None]:
        """Around the chunks of a pass that records a graph, so that weights are converted to the precision once; not
        around a change of the weights."""
        return nullcontext() if self.precision == "fp32" else self._lowered.once(self.model)

    def forget_lowered(self) -> None:
        """Frees the copies of frozen weights in half precision."""
        self._lowered = LoweredWeights(self.device, DTYPES[self.precision])

    @contextmanager
    def without_graph(self) -> Iterator[None]:
        """The same without a graph; weights are also packed once where that is faster."""
        packed = cpu.while_encoding(self.device, DTYPES[self.precision])
        with torch.no_grad(), self.lowered_once(), self.autocast(), packed:
            yield

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """The same in evaluation mode."""
        was_training = self.model.training
        self.model.eval()
        try:
            with self.without_graph():
                yield
        finally:
            self.model.train(was_training)

    @torch.inference_mode()
    def encode(
        self, items: Items | Sequence[Item], role: Role, *, on_progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """(n, H) float32 embeddings in the items' order, as the model gives them (not yet normalised for scoring).

        Where `items` has a fingerprint they come memory-mapped from the cache, computed once, in blocks that processes
        share. on_progress: (done, total), counted over all of these processes.
        """
        shape = (len(items), self.dimension)

        def in_blocks() -> Iterator[store.Block]:
            if isinstance(items, JoinedItems):
                return self._blocks_of_parts(items, role, on_progress)
            prepare, compute = partial(self.prepare, role=role), partial(self._encoded, role=role)
            if self.cached_towers is None:
                return computed_in_blocks(items, prepare, compute)
            # a frozen tower computes what it has not seen, so nothing is prepared while the model computes
            return computed_in_blocks(items, list, lambda block, on_done: compute(prepare(block), on_done))

        if self.cached and hasattr(items, "fingerprint"):
            return store.cached(self.key(cast(Items, items), role), shape, in_blocks, on_progress)
        return store.computed(shape, in_blocks, on_progress)

    def key(self, items: Items, role: Role) -> store.Key:
        """The cache's key for the embeddings of these items."""
        content = items.fingerprint if self.borrower is None else fingerprint_of(items.fingerprint, self.borrower)
        return store.Key(encoder=self.fingerprint_for(role), role=role, items=content, count=len(items))

    def _encoded(self, items: Sequence[Prepared], on_done: Callable[[int], None], role: Role) -> Rows:
        """(n, H) of one block. Its rows leave the device together, so that no chunk is waited for."""
        rows = torch.empty(len(items), self.dimension, device=self.device)
        done = 0
        with self.at_rest():
            for chunk, output in self.by_chunk(items, lambda part: self.forward(part, role).float()):
                rows.index_copy_(0, row_index(chunk, self.device), output)
                done += len(chunk)
                on_done(done)
                cpu.between_chunks(self.device)
        return brought(rows)

    def by_chunk(
        self, items: Sequence[Prepared], compute: Callable[[list[Prepared]], Tensor]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Each chunk's rows, with what is computed of its items. Where the memory does not hold a chunk, that one and
        those after it are halved. Raises InputError where it does not hold one item."""
        pending = deque(chunks(items, self.tokens_at_once))
        while pending:
            rows = pending.popleft()
            part = [items[row] for row in rows]
            output = self.attempt(partial(compute, part))
            if output is not None:
                yield rows, output
                continue
            self.chunk_tokens.halve(part, self.where)
            rest = [row for chunk in (rows, *pending) for row in chunk]
            smaller = chunks([items[row] for row in rest], self.tokens_at_once)
            pending = deque([rest[index] for index in chunk] for chunk in smaller)

    def _blocks_of_parts(self, items: JoinedItems, role: Role, on_progress: Progress | None) -> Iterator[store.Block]:
        """A mixture's embeddings are those of its parts, which have cache entries of their own."""
        start = 0
        for part in items.parts.values():
            encoded = cache(partial(self.encode, part, role, on_progress=on_progress))
            for first in range(0, len(part), BLOCK):  # never a whole corpus in memory
                rows = slice(first, min(first + BLOCK, len(part)))
                compute = partial(_rows_of, encoded, rows)
                yield store.whole_block(start + rows.start, start + rows.stop, compute)
            start += len(part)


def load_encoder(
    model: Model | str,
    *,
    device: str = "auto",
    precision: Precision = "fp32",
    cached: bool = True,
    seed: int = 0,
    merged: bool = True,
) -> Encoder:
    """Loads an encoder by recipe block, folder, hub id, or `package:MODULE/path`.

    A model with code of its own needs `Model(name=..., trust_remote_code=True)`; nothing asks on stdin. seed: of the
    projections of a composed model. merged: whether adapters are merged into the base. Its weights are as
    `Model(dtype=...)` says: by default as small as the checkpoint has them, where the precision computes in that, else
    float32. Raises InputError for a model, device or precision that is not available.
    """
    config = model_of(model)
    torch_device = resolve_device(device)
    resolved = resolve_precision(precision, torch_device)
    cpu.bound_kernels()
    loaded = load_model(config, torch_device, seed=seed, frozen_in=resolved, merged=merged)
    return Encoder(
        loaded, config.label, resolved, cached=cached, passages=config.passages, chunk_tokens=config.chunk_tokens
    )


def _rows_of(encoded: Callable[[], npt.NDArray[np.float32]], rows: slice) -> npt.NDArray[np.float32]:
    return encoded()[rows]


def _config_of(module: torch.nn.Module) -> str:
    describe: Any = getattr(module, "get_config_dict", dict)
    return json.dumps(describe(), sort_keys=True, default=str)
