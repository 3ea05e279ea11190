"""How many documents a model reads whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..types import Item
from .encoder import Encoder
from .prepared import blocks


@dataclass(frozen=True, kw_only=True)
class CutDocuments:
    """Of `documents` with a text and without an image, `cut` have more than the `room` tokens that the model reads
    beside its prompt and special tokens. max_length: with those; None: the model reads any length."""

    documents: int
    cut: int
    room: int | None
    max_length: int | None


def cut_documents(documents: Iterable[Item], encoder: Encoder) -> CutDocuments:
    """Counts the documents that the encoder cuts. Raises InputError for a tokenizer that does not say where it cuts."""
    room, count, cut = encoder.preparer.room(), 0, 0
    for block in blocks(documents):
        texts = [item.content for item in block if item.image is None and item.content]
        count += len(texts)
        if room is not None and texts:
            cut += sum(len(offsets) > room for offsets in encoder.preparer.offsets(texts))
    return CutDocuments(documents=count, cut=cut, room=room, max_length=encoder.max_length)
