"""Negatives whose text is made from a positive's, by rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ..data.relevance import text_key
from ..types import Dataset, Item, Pair


def maker_of(item_id: str) -> str:
    """The name of the rule that made an item, by the item's id."""
    return item_id.split(":", 2)[1]


def made_documents(
    makers: Sequence[tuple[str, Any]], pairs: Sequence[Pair], dataset: Dataset, generator: torch.Generator
) -> dict[str, list[Item]]:
    """query_id -> what each rule makes of the pair's first positive; nothing where a rule does not apply."""
    made: dict[str, list[Item]] = {}
    for pair in pairs if makers else ():
        source = dataset.corpus[pair.positives[0]]
        for name, make in makers:
            text = make(source.content, generator=generator)
            if text is not None:
                item_id = f"made:{name}:{source.id}:{text_key(text)}"
                item = dataclasses.replace(source, id=item_id, title="", text=text, made=True)  # an image stays
                made.setdefault(pair.query_id, []).append(item)
    return made
