"""An encoder: a sentence-transformers model with its own pooling, prompts and normalisation, and how to run it.

Items are prepared once (tokenised without padding), then encoded in chunks that are sorted by length and bounded in
tokens, so that little is padded and a chunk stays in cache. The same two calls serve training and inference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.mixture import JoinedItems
from ..errors import InputError
from ..files import fingerprint_of
from ..recipe import Model, Precision
from ..types import Item, Items, Role
from . import store
from .loading import load_model
from .precision import DTYPES, Resolved, resolve_device, resolve_precision
from .similarity import Similarity

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Progress = Callable[[int, int], None]
# Tokens in one chunk: on a CPU small enough for the cache (8 x 256 was fastest), on a GPU large enough to fill it.
TOKENS_PER_CHUNK = {"cpu": 2048, "cuda": 32768, "mps": 8192}
# Items tokenised and sorted together while encoding: bounds memory, large enough that sorting pays.
BLOCK = 4096


@dataclass(frozen=True)
class Prepared:
    """One item ready for the model: its unpadded token features, or the raw input where a model pads by itself."""

    features: dict[str, Tensor] | None  # name -> (T,)
    raw: Any
    length: int


class Encoder:
    """Turns items into embeddings. `model` is the sentence-transformers model, whose weights training changes."""

    def __init__(self, model: SentenceTransformer, name: str, precision: Resolved, *, cached: bool = True) -> None:
        self.model = model
        self.name = name
        self.precision = precision
        self.cached = cached
        self.device: torch.device = model.device
        self.tokens_per_chunk = TOKENS_PER_CHUNK[self.device.type]
        self._identity: tuple[int, str] | None = None
        self._constant: dict[Role, dict[str, Any]] = {}

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension() or 0)

    @property
    def similarity(self) -> Similarity:
        name = self.model.similarity_fn_name
        if name not in ("cosine", "dot"):
            raise InputError(f"model {self.name}: similarity {name!r} is not supported; cosine and dot are")
        return cast(Similarity, name)

    @property
    def max_length(self) -> int | None:
        return cast("int | None", self.model.max_seq_length)

    def prompt(self, role: Role) -> str | None:
        """The text put before each item of a role: the model's own names for it, as encode_query/_document use them."""
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        found = next((self.model.prompts[name] for name in names if name in self.model.prompts), None)
        return found or None

    @property
    def fingerprint(self) -> str:
        """What embeddings depend on to the last bit: the model's identity, the precision, the libraries' versions."""
        return fingerprint_of(self.identity, self.precision, json.dumps(store.versions(), sort_keys=True))

    @property
    def identity(self) -> str:
        """Which model this is, whatever computes it: weights, processor, modules, prompts, truncation."""
        tensors = self.model.state_dict()
        version = sum(tensor._version for tensor in tensors.values())
        if self._identity is None or self._identity[0] != version:
            settings = {
                "prompts": [self.prompt("query"), self.prompt("document")],
                "max_length": self.max_length,
                "similarity": self.similarity,
                "modules": [f"{type(module).__name__} {_config_of(module)}" for module in self.model],
            }
            processor = _processor_of(self.model)
            parts = (weights_fingerprint(self.model), processor, json.dumps(settings, sort_keys=True, default=str))
            self._identity = (version, fingerprint_of(*parts))
        return self._identity[1]

    def prepare(self, items: Sequence[Item], role: Role) -> list[Prepared]:
        """Tokenises items without padding, in order."""
        prepared: list[Prepared] = []
        texts = [item.content for item in items]
        for start in range(0, len(texts), 64):  # the tokenizer pads what it is given; small groups waste little
            prepared += self._prepare(texts[start : start + 64], role)
        return prepared

    def _prepare(self, texts: list[str], role: Role) -> list[Prepared]:
        features = self.model.preprocess(texts, prompt=self.prompt(role), task=role)
        mask = features.pop("attention_mask", None)
        if mask is None or "input_ids" not in features or mask.shape != features["input_ids"].shape:
            return [Prepared(None, text, len(text) // 4 + 1) for text in texts]
        padded = {k: v for k, v in features.items() if isinstance(v, Tensor) and v.shape == mask.shape}
        self._constant[role] = {k: v for k, v in features.items() if k not in padded}
        rows = mask.bool()
        lengths = rows.sum(1).tolist()
        return [
            Prepared({k: v[i][rows[i]].clone() for k, v in padded.items()}, None, int(length))
            for i, length in enumerate(lengths)
        ]

    def forward(self, chunk: Sequence[Prepared], role: Role) -> Tensor:
        """(n, H) embeddings of one chunk as the model gives them, in its precision; records a graph where enabled."""
        features = self._collate(chunk, role)
        features = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        with torch.autocast(self.device.type, dtype=DTYPES[self.precision], enabled=self.precision != "fp32"):
            return cast(Tensor, self.model(features, task=role)["sentence_embedding"])

    def _collate(self, chunk: Sequence[Prepared], role: Role) -> dict[str, Any]:
        """Pads on the right. Attention masks and mask-aware pooling make that correct for every text model, whatever
        side its tokenizer pads on: a causal model never sees what comes after, and last-token pooling looks it up."""
        if chunk[0].features is None:
            return cast(
                "dict[str, Any]",
                self.model.preprocess([p.raw for p in chunk], prompt=self.prompt(role), task=role),
            )
        width = max(p.length for p in chunk)
        fill = {"input_ids": getattr(self.model.tokenizer, "pad_token_id", None) or 0}
        features: dict[str, Any] = dict(self._constant[role])
        for name in chunk[0].features:
            batch = torch.full((len(chunk), width), fill.get(name, 0), dtype=chunk[0].features[name].dtype)
            for row, item in enumerate(chunk):
                batch[row, : item.length] = cast("dict[str, Tensor]", item.features)[name]
            features[name] = batch
        lengths = torch.tensor([p.length for p in chunk])
        features["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        return features

    @torch.inference_mode()
    def encode(
        self, items: Items | Sequence[Item], role: Role, *, on_progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        """(n, H) float32 embeddings in the items' order, as the model gives them (not yet normalised for scoring).

        Where `items` has a fingerprint they come memory-mapped from the content-keyed cache, computed once.
        """
        content = getattr(items, "fingerprint", None)
        if self.cached and content is not None:
            key = store.Key(encoder=self.fingerprint, role=role, items=content, count=len(items))
            shape = (len(items), self.dimension)
            return store.cached(key, shape, lambda rows: self._fill(rows, items, role, on_progress))
        rows = np.empty((len(items), self.dimension), dtype=np.float32)
        self._fill(rows, items, role, on_progress)
        return rows

    def _fill(
        self, rows: npt.NDArray[np.float32], items: Iterable[Item], role: Role, on_progress: Progress | None
    ) -> None:
        if isinstance(items, JoinedItems):
            self._fill_from_parts(rows, items, role, on_progress)
            return
        was_training = self.model.training
        self.model.eval()
        try:
            start = done = 0
            for block in _blocks(items, BLOCK):
                prepared = self.prepare(block, role)
                for chunk in chunks_by_length([p.length for p in prepared], self.tokens_per_chunk):
                    embeddings = self.forward([prepared[i] for i in chunk], role)
                    rows[[start + i for i in chunk]] = embeddings.float().cpu().numpy()
                    done += len(chunk)
                    if on_progress is not None:
                        on_progress(done, len(rows))
                start += len(block)
        finally:
            self.model.train(was_training)

    def _fill_from_parts(
        self, rows: npt.NDArray[np.float32], items: JoinedItems, role: Role, on_progress: Progress | None
    ) -> None:
        """A mixture's embeddings are its parts', which have their own places in the cache."""
        start = 0
        for part in items.parts.values():
            encoded = self.encode(part, role, on_progress=on_progress)
            for first in range(0, len(part), BLOCK):  # never a whole corpus in memory
                block = encoded[first : first + BLOCK]
                rows[start + first : start + first + len(block)] = block
            start += len(part)


def load_encoder(
    model: Model | str, *, device: str = "auto", precision: Precision = "fp32", cached: bool = True
) -> Encoder:
    """Loads an encoder by recipe block, folder, hub id, or `package:MODULE/folder`.

    Raises InputError for a model, device or precision that is not to be had.
    """
    config = model if isinstance(model, Model) else Model(name=str(model))
    where = resolve_device(device)
    resolved = resolve_precision(precision, where)
    return Encoder(load_model(config, where), config.name, resolved, cached=cached)


def chunks_by_length(lengths: Sequence[int], tokens: int, most: int | None = None) -> list[list[int]]:
    """Rows grouped by length, longest first, so that no chunk exceeds `tokens` after padding (nor `most` rows).

    A single row longer than `tokens` is a chunk of its own. Ties keep their order, so the result is deterministic.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    chunks: list[list[int]] = []
    for row in order:
        current = chunks[-1] if chunks else []
        fits = current and (len(current) + 1) * lengths[current[0]] <= tokens and (most is None or len(current) < most)
        if fits:
            current.append(row)
        else:
            chunks.append([row])
    return chunks


def weights_fingerprint(model: torch.nn.Module) -> str:
    """sha256 over names, shapes, types and bytes of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _config_of(module: torch.nn.Module) -> str:
    describe: Any = getattr(module, "get_config_dict", dict)
    return json.dumps(describe(), sort_keys=True, default=str)


def _processor_of(model: SentenceTransformer) -> str:
    tokenizer = getattr(model, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr(tokenizer)
    # Truncation and padding are set per call on a shared object; they are covered by max_length.
    described = json.loads(backend.to_str())
    described["truncation"] = described["padding"] = None
    return json.dumps(described, sort_keys=True)


def _blocks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block
