"""Merges adapters and proves it: the merged model's embeddings of some items are those of the base with its adapters,
up to the rounding of the number format that they are saved in, and not those of the base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..types import Item, Items, Role
from . import adapters
from .attention import is_flash
from .dtypes import Stored, dtype_in_files, lower
from .encoder import Encoder
from .precision import Resolved

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Floats = npt.NDArray[np.float32]
PROBED = 8  # items of each role
# Furthest that embeddings may move, as a share of their length, in units of the number format's rounding. Rounding all
# weights moves those of MiniLM by 2 units, in bfloat16 and in float16.
UNITS = 16
MERGING = 1e-3  # the same for the merge itself, in float32


@dataclass(frozen=True)
class Probe:
    """Some items of each role, whose embeddings tell models apart. precision: fp32, except with flash attention."""

    items: Mapping[Role, Sequence[Item]]
    precision: Resolved

    @property
    def merging(self) -> float:
        """The furthest that merging in float32 may move an embedding, as a share of its length."""
        return MERGING if self.precision == "fp32" else UNITS * torch.finfo(torch.bfloat16).eps

    def embeddings(self, model: SentenceTransformer, name: str) -> Floats:
        """(n, H)"""
        encoder = Encoder(model, name, self.precision, cached=False)
        return np.concatenate([encoder.encode(list(items), role) for role, items in self.items.items()])


@dataclass(frozen=True)
class Expected:
    """The embeddings, (n, H), of a base with its adapters and of the base alone. changed: whether the adapters hold
    anything that was learned."""

    probe: Probe
    adapted: Floats
    base: Floats
    changed: bool


def probe_of(encoder: Encoder, queries: Items | Sequence[Item], documents: Items | Sequence[Item]) -> Probe:
    """The first items that the model reads."""
    sets: dict[Role, Items | Sequence[Item]] = {"query": queries, "document": documents}
    flash = any(is_flash(name) for name in encoder.attention)
    chosen = {role: _first(encoder, items) for role, items in sets.items()}
    return Probe({role: items for role, items in chosen.items() if items}, "bf16" if flash else "fp32")


def _first(encoder: Encoder, items: Iterable[Item]) -> list[Item]:
    chosen: list[Item] = []
    for item in items:
        if encoder.reads(item):
            chosen.append(item)
        if len(chosen) == PROBED:
            break
    return chosen


def merge_proven(model: SentenceTransformer, name: str, probe: Probe) -> Expected:
    """Merges the model's adapters, in place, in float32.

    Raises InputError where the merged model's embeddings are not those of the base with its adapters.
    """
    parts = adapters.adapted(model)
    changed = any(adapters.has_learned(part.model) for part in parts.values())
    adapted = probe.embeddings(model, name)
    with ExitStack() as switched_off:
        for part in parts.values():
            switched_off.enter_context(part.model.disable_adapter())
        base = probe.embeddings(model, name)
    adapters.merge(model)
    moved = distance(probe.embeddings(model, name), adapted)
    if not moved <= probe.merging:  # NaN is above it
        raise InputError(
            f"{name}: the merged model's embeddings are not those of its base with the adapter: they moved by "
            f"{moved:.2g} of their length, expected at most {probe.merging:.2g}"
        )
    return Expected(probe, adapted, base, changed)


def refuse_lost(model: SentenceTransformer, name: str, expected: Expected, dtype: Stored | None, hint: str) -> None:
    """Rounds the merged model to the number format that it is saved in (None: that of its files), in place, and raises
    InputError, with the hint, where that moves its embeddings too far or leaves nothing of what was learned."""
    dtype = dtype or dtype_in_files(model)
    if dtype != "float32":
        lower(model, dtype)
        lower(model, "float32")
    saved = expected.probe.embeddings(model, name)
    moved, limit = (
        distance(saved, expected.adapted),
        max(expected.probe.merging, UNITS * torch.finfo(getattr(torch, dtype)).eps),
    )
    if not moved <= limit:
        raise InputError(
            f"{name}: in {dtype} the merged model's embeddings move by {moved:.2g} of their length, expected at most "
            f"{limit:.2g}; {hint}"
        )
    if expected.changed and np.array_equal(saved, expected.base):
        lost = "the adapter changes no embedding" if dtype == "float32" else f"rounding to {dtype} loses the adapter"
        raise InputError(f"{name}: {lost}: the merged model's embeddings are the base's, to the bit; {hint}")


def distance(ours: Floats, expected: Floats) -> float:
    """The furthest that a row moved, as a share of its length."""
    lengths = np.linalg.norm(expected, axis=1).clip(min=1e-12)
    return float((np.linalg.norm(ours - expected, axis=1) / lengths).max(initial=0.0))
