"""Items as a model takes them, one by one, and how chunks are put together from them.

Each item has its own features: token features without padding, and tensors whose rows are its own (pixels, patches,
image sizes). A chunk pads the former and stacks the latter, so a chunk can be cut between any two items. Where a
model's attention tells texts apart by itself, their tokens stand in one row without padding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..types import Item
from .beside import Rows
from .store import Block

T = TypeVar("T")
# Items that are prepared and sorted together while encoding: bounds memory, large enough that sorting pays.
BLOCK, IMAGE_IN_BLOCK = 4096, 64  # an image takes as much memory as so many texts
PIXELS_PER_TOKEN = 256  # a vision transformer's usual patch of 16 x 16
KEPT_BYTES = 2**30  # of prepared images: some 1,700 of 224 x 224 pixels, 7,000 of 112 x 112
KEPT_TEXT_BYTES = 2**27  # of tokens: some 30,000 texts of 256
FLAT = ("input_ids", "position_ids")  # of texts without padding, each numbered from its own beginning
BOUNDARIES, LONGEST = "cu_seq_lens_q", ("max_length_k", "max_length_q")


@dataclass(frozen=True)
class Prepared:
    """One item ready for the model.

    padded: name -> (T,) token features. joined: name -> (n, ...) tensors whose rows are the item's own. constant: what
    the whole chunk shares; only items with equal constants share a chunk. raw: the input itself, for a model that pads
    on its own; everything else is empty then. length: the item's part of a chunk's memory, in tokens. flat: its token
    features are not padded but follow those of the item before, as flash attention takes them.
    """

    padded: dict[str, Tensor] = field(default_factory=dict)
    joined: dict[str, Tensor] = field(default_factory=dict)
    constant: tuple[tuple[str, Any], ...] = ()
    raw: Any = None
    length: int = 1
    flat: bool = False

    @property
    def tokens(self) -> int:
        """How many tokens a chunk pads; 0 where there is nothing to pad."""
        return len(next(iter(self.padded.values()))) if self.padded else 0

    @property
    def bytes(self) -> int:
        tensors = sum(tensor.nbytes for tensor in (*self.padded.values(), *self.joined.values()))
        return tensors + (len(str(self.raw)) if self.raw is not None else 0)


def separated(features: Mapping[str, Any], count: int, width: int | None) -> list[Prepared] | None:
    """The features of a batch as those of its `count` items; None where they cannot be taken apart.

    width: how many tokens a model without attention mask pads every text to.
    """
    if BOUNDARIES in features:
        return _separated_row(features)
    features = {name: value for name, value in features.items() if not name.startswith("num_")}  # counts of the batch
    mask, tokens = features.pop("attention_mask", None), features.get("input_ids")
    expected = mask.shape if mask is not None else (count, width)
    if tokens is not None and tokens.shape != expected:
        return None
    tensors = {name: value for name, value in features.items() if isinstance(value, Tensor)}
    by_token = {name for name, value in tensors.items() if mask is not None and _is_by_token(name, value, mask)}
    others = {name: value for name, value in tensors.items() if name not in by_token}
    if not tensors or (count > 1 and any(len(value) != count for value in others.values())):
        return None
    constant = tuple(sorted((name, value) for name, value in features.items() if name not in tensors))
    items = []
    for row in range(count):
        seen = mask[row].bool() if mask is not None else torch.zeros(0)
        padded = {name: _compact(tensors[name][row][seen]) for name in sorted(by_token)}
        joined = {name: value.clone() if count == 1 else value[row : row + 1].clone() for name, value in others.items()}
        length = int(seen.sum()) + sum(_tokens(name, rows) for name, rows in joined.items())
        items.append(Prepared(padded, joined, constant, length=max(1, length)))
    return items


def _is_by_token(name: str, value: Tensor, mask: Tensor) -> bool:
    return value.shape == mask.shape and not value.is_floating_point() and "grid" not in name


def _compact(tokens: Tensor) -> Tensor:
    """(T,) a copy that stores a value once where it is the same for all tokens, as the token types of a text are."""
    first = tokens[:1].clone()
    return first.expand(len(tokens)) if (tokens == first).all() else tokens.clone()


def _tokens(name: str, rows: Tensor) -> int:
    """About how many tokens these rows cost: patches, pixels in squares, or tokens themselves."""
    if rows.ndim >= 4:  # (n, C, H, W)
        return rows[..., 0, :, :].numel() // PIXELS_PER_TOKEN
    return rows.shape[0] if rows.is_floating_point() else rows.shape[-1] if name == "input_ids" else 0


def _separated_row(features: Mapping[str, Any]) -> list[Prepared]:
    """The texts of one row without padding, (1, T) for all of them."""
    lengths = features[BOUNDARIES].diff().tolist()
    constant = tuple(sorted((k, v) for k, v in features.items() if not isinstance(v, Tensor) and k not in LONGEST))
    texts = zip(*(features[name][0].split(lengths) for name in FLAT), strict=True)
    return [
        Prepared({k: v.clone() for k, v in zip(FLAT, text, strict=True)}, {}, constant, length=length, flat=True)
        for text, length in zip(texts, lengths, strict=True)
    ]


def _collated_row(chunk: Sequence[Prepared]) -> dict[str, Any]:
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


def collated(chunk: Sequence[Prepared], pad: int) -> dict[str, Any]:
    """The features of a chunk. It pads on the right, also where the tokenizer pads on the left: attention masks and
    pooling by mask make that correct for every model, since a causal model never sees later tokens."""
    if chunk[0].flat:
        return _collated_row(chunk)
    features: dict[str, Any] = dict(chunk[0].constant)
    if chunk[0].padded:
        lengths = torch.tensor([item.tokens for item in chunk])
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


def pads(chunk: Sequence[Prepared]) -> bool | None:
    """Whether `collated` pads the chunk; None where the model itself decides, or where there is nothing to pad."""
    if not chunk[0].tokens or chunk[0].flat:
        return None
    return len({item.tokens for item in chunk}) > 1


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
    items: Iterable[Item],
    prepare: Callable[[list[Item]], list[T]],
    compute: Callable[[list[T], Callable[[int], None]], Rows],
) -> Iterator[Block]:
    """The items' rows as blocks that processes share. compute: starts to compute (n, H) of some items."""
    start = 0
    for block in blocks(items):
        yield Block(start, start + len(block), partial(prepare, block), compute)
        start += len(block)


def chunks(items: Sequence[Prepared], tokens: int) -> list[list[int]]:
    """Rows in chunks of items of one kind, by length (`chunks_by_length`); kinds in the order in which they appear."""
    kinds: dict[Hashable, list[int]] = {}
    for row, item in enumerate(items):
        shapes = tuple((name, rows.shape[1:]) for name, rows in item.joined.items())  # images of one size
        kinds.setdefault((item.constant, tuple(item.padded), item.flat, shapes), []).append(row)
    return [
        [rows[index] for index in chunk]
        for rows in kinds.values()
        for chunk in chunks_by_length([items[row].length for row in rows], tokens)
    ]


def chunks_by_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows grouped by length, longest first, so that no chunk exceeds `tokens` after padding.

    A single row longer than `tokens` is a chunk of its own. Ties keep their order, so the result is deterministic.
    """
    grouped: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        current = grouped[-1] if grouped else []
        if current and (len(current) + 1) * lengths[current[0]] <= tokens:
            current.append(row)
        else:
            grouped.append([row])
    return grouped


class Kept:
    """Prepared items by content, the latest used, within a number of bytes. A kept image is not opened again."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._items: OrderedDict[Hashable, Prepared] = OrderedDict()
        self._alone = Lock()  # items are prepared on several threads

    def get(self, key: Hashable) -> Prepared | None:
        with self._alone:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: Hashable, item: Prepared) -> None:
        with self._alone:
            if key in self._items or item.bytes > self.most:
                return
            self._items[key] = item
            self.bytes += item.bytes
            while self.bytes > self.most:
                self.bytes -= self._items.popitem(last=False)[1].bytes


KEPT = Kept(KEPT_BYTES)
"""This process's images. Models with the same processor share them, as a run's base and tuned model do."""
KEPT_TEXTS = Kept(KEPT_TEXT_BYTES)
"""The same for texts: a validation set, or a corpus that is mined repeatedly, is tokenised once."""
