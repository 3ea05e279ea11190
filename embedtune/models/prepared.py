"""Items as a model takes them, one by one, and how they are put together in chunks.

Each item has its own features, whatever it is: token features without padding, and tensors whose rows are its own
(pixels, patches, image sizes). A chunk pads the former and puts the latter below each other, so that a chunk can be
cut by items anywhere. Where a model's attention tells texts apart by itself, their tokens stand in one row, unpadded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..types import Item
from .store import Block

# Items prepared and sorted together while encoding: bounds memory, large enough that sorting pays.
BLOCK, IMAGE_IN_BLOCK = 4096, 64  # an image takes as much room as so many texts
PIXELS_PER_TOKEN = 256  # a vision transformer's usual patch of 16 x 16
KEPT_BYTES = 2**30  # of prepared images: some 1,700 of 224 x 224 pixels, 7,000 of 112 x 112
KEPT_TEXT_BYTES = 2**27  # of tokens: some 30,000 texts of 256
FLAT = ("input_ids", "position_ids")  # of texts without padding, each numbered from its own beginning
BOUNDARIES, LONGEST = "cu_seq_lens_q", ("max_length_k", "max_length_q")


@dataclass(frozen=True)
class Prepared:
    """One item ready for the model.

    padded: name -> (T,) token features. joined: name -> (n, ...) tensors whose rows are the item's own. constant: what
    the whole chunk shares; only items with the same can share one. raw: the input itself, where a model pads on its
    own, and nothing else is there. length: the item's part of a chunk's memory, in tokens. flat: its token features are
    not padded but stand after those of the item before, as flash attention takes them.
    """

    padded: dict[str, Tensor] = field(default_factory=dict)
    joined: dict[str, Tensor] = field(default_factory=dict)
    constant: tuple[tuple[str, Any], ...] = ()
    raw: Any = None
    length: int = 1
    flat: bool = False

    @property
    def bytes(self) -> int:
        tensors = sum(tensor.nbytes for tensor in (*self.padded.values(), *self.joined.values()))
        return tensors + (len(str(self.raw)) if self.raw is not None else 0)


def separated(features: Mapping[str, Any], count: int, width: int | None) -> list[Prepared] | None:
    """The features of a batch as those of its `count` items; None where they cannot be taken apart.

    width: how many tokens a model without attention mask pads every text to.
    """
    if BOUNDARIES in features:
        return _apart(features)
    found = {name: value for name, value in features.items() if not name.startswith("num_")}  # counts of the batch
    mask, tokens = found.pop("attention_mask", None), found.get("input_ids")
    expected = mask.shape if mask is not None else (count, width)
    if tokens is not None and tokens.shape != expected:
        return None
    like_mask = {k for k, v in found.items() if mask is not None and _is_tokens(k, v) and v.shape == mask.shape}
    others = {k: v for k, v in found.items() if isinstance(v, Tensor) and k not in like_mask}
    if not (like_mask or others) or (count > 1 and any(len(value) != count for value in others.values())):
        return None
    constant = tuple(sorted((k, v) for k, v in found.items() if not isinstance(v, Tensor)))
    return [_one(found, like_mask, others, mask, constant, row, count) for row in range(count)]


def _apart(features: Mapping[str, Any]) -> list[Prepared]:
    """The texts of a row without padding, (1, T) for all of them."""
    lengths = features[BOUNDARIES].diff().tolist()
    constant = tuple(sorted((k, v) for k, v in features.items() if not isinstance(v, Tensor) and k not in LONGEST))
    tokens = zip(*(features[name][0].split(lengths) for name in FLAT), strict=True)
    return [
        Prepared(dict(zip(FLAT, (part.clone() for part in own), strict=True)), {}, constant, None, length, flat=True)
        for own, length in zip(tokens, lengths, strict=True)
    ]


def _in_a_row(chunk: Sequence[Prepared]) -> dict[str, Any]:
    """The same for a chunk, as transformers' DataCollatorWithFlattening makes it, for flash attention."""
    lengths = torch.tensor([len(item.padded["input_ids"]) for item in chunk])
    boundaries = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    text = torch.repeat_interleave(torch.arange(len(chunk), dtype=torch.int32), lengths)
    return {
        **dict(chunk[0].constant),
        **{name: torch.cat([item.padded[name] for item in chunk])[None] for name in FLAT},
        "seq_idx": text[None],
        BOUNDARIES: boundaries,
        "cu_seq_lens_k": boundaries,
        **dict.fromkeys(LONGEST, int(lengths.max())),
    }


def _is_tokens(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and "grid" not in name


def _one(
    found: Mapping[str, Any],
    like_mask: set[str],
    others: Mapping[str, Tensor],
    mask: Tensor | None,
    constant: tuple[tuple[str, Any], ...],
    row: int,
    count: int,
) -> Prepared:
    there = mask[row].bool() if mask is not None else None
    padded = {name: _compact(found[name][row][there]) for name in sorted(like_mask)}
    joined = {name: value.clone() if count == 1 else value[row : row + 1].clone() for name, value in others.items()}
    tokens = int(there.sum()) if there is not None else 0
    return Prepared(padded, joined, constant, None, max(1, tokens + sum(_tokens(*rows) for rows in joined.items())))


def _compact(tokens: Tensor) -> Tensor:
    """(T,) a copy that holds only once what is the same for all tokens, as the token types of a single text are."""
    first = tokens[:1].clone()
    return first.expand(len(tokens)) if (tokens == first).all() else tokens.clone()


def _tokens(name: str, rows: Tensor) -> int:
    """About how many tokens these rows cost: patches, pixels in squares, or tokens themselves."""
    if rows.ndim >= 4:  # (n, C, H, W)
        return rows[..., 0, :, :].numel() // PIXELS_PER_TOKEN
    return rows.shape[0] if rows.is_floating_point() else rows.shape[-1] if name == "input_ids" else 0


def collated(chunk: Sequence[Prepared], pad: int) -> dict[str, Any]:
    """The features of a chunk. Pads on the right: attention masks and mask-aware pooling make that correct for every
    model, whatever side its tokenizer pads on, as a causal model never sees what comes after."""
    if chunk[0].flat:
        return _in_a_row(chunk)
    features: dict[str, Any] = dict(chunk[0].constant)
    if chunk[0].padded:
        lengths = torch.tensor([len(next(iter(item.padded.values()))) for item in chunk])
        width = int(lengths.max())
        for name, first in chunk[0].padded.items():
            batch = torch.full((len(chunk), width), pad if name == "input_ids" else 0, dtype=first.dtype)
            for row, item in enumerate(chunk):
                batch[row, : lengths[row]] = item.padded[name]
            features[name] = batch
        features["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
    for name in chunk[0].joined:
        features[name] = torch.cat([item.joined[name] for item in chunk])
    return features


def blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, some at a time."""
    block: list[Item] = []
    room = BLOCK
    for item in items:
        block.append(item)
        room -= 1 if item.image is None else IMAGE_IN_BLOCK
        if room <= 0:
            yield block
            block, room = [], BLOCK
    if block:
        yield block


def computed_in_blocks(
    items: Iterable[Item], compute: Callable[[list[Item], Callable[[int], None]], npt.NDArray[np.float32]]
) -> Iterator[Block]:
    """The items' rows as blocks that processes share. compute: (n, H) of some items."""
    start = 0
    for block in blocks(items):
        yield Block(start, start + len(block), partial(compute, block))
        start += len(block)


def chunks(items: Sequence[Prepared], tokens: int) -> list[list[int]]:
    """Rows in chunks of items of one kind, by length (`chunks_by_length`); kinds in the order in which they appear."""
    kinds: dict[Hashable, list[int]] = {}
    for row, item in enumerate(items):
        shapes = tuple(
            (name, rows.shape[1:]) for name, rows in item.joined.items()
        )  # images of one size, where it shows
        kinds.setdefault((item.constant, tuple(item.padded), item.flat, shapes), []).append(row)
    return [
        [rows[place] for place in chunk]
        for rows in kinds.values()
        for chunk in chunks_by_length([items[row].length for row in rows], tokens)
    ]


def chunks_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows grouped by length, longest first, so that no chunk exceeds `tokens` after padding.

    A single row longer than `tokens` is a chunk of its own. Ties keep their order, so the result is deterministic.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    found: list[list[int]] = []
    for row in order:
        current = found[-1] if found else []
        if current and (len(current) + 1) * lengths[current[0]] <= tokens:
            current.append(row)
        else:
            found.append([row])
    return found


class Kept:
    """Prepared items by content, the ones used last, within a number of bytes: no image is opened twice while here."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._held: OrderedDict[Hashable, Prepared] = OrderedDict()

    def get(self, key: Hashable) -> Prepared | None:
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: Hashable, item: Prepared) -> None:
        if key in self._held or item.bytes > self.most:
            return
        self._held[key] = item
        self.bytes += item.bytes
        while self.bytes > self.most:
            self.bytes -= self._held.popitem(last=False)[1].bytes


KEPT = Kept(KEPT_BYTES)
"""This process's images: models of one processor share it, as a run's base and tuned model do."""
KEPT_TEXTS = Kept(KEPT_TEXT_BYTES)
"""The same for texts: a validation set, or the corpus that is mined again, is tokenised once."""
