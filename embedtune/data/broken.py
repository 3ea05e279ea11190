"""The broken images of a set: all are decoded once, and the result is kept in the cache by their content."""

from __future__ import annotations

import json

import PIL

from ..files import cache_folder, fingerprint_of, lock, write_json
from ..types import Dataset, Items
from .images import MOST_PIXELS, faults_of


def broken(items: Items) -> dict[str, str]:
    """id -> the reason why its image cannot be read. Of several processes the first decodes, the others wait for it."""
    images = {item.id: item.image for item in items if item.image is not None} if pictured(items) else {}
    if not images:
        return {}
    key = fingerprint_of(items.fingerprint, PIL.__version__, str(MOST_PIXELS))
    file = cache_folder() / "images" / f"{key}.json"
    with lock(file.with_suffix(".lock")):
        if not file.exists():
            reasons = zip(images, faults_of(list(images.values())), strict=True)
            write_json(file, {item_id: reason for item_id, reason in reasons if reason is not None})
    faults: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return faults


def is_textual(dataset: Dataset) -> bool:
    """Whether queries and documents are texts, without images."""
    return not pictured(dataset.corpus) and not pictured(dataset.queries)


def pictured(items: Items) -> int:
    """The number of items with an image; they are read only where the set does not know it."""
    known = getattr(items, "images", None)
    return known if isinstance(known, int) else sum(item.image is not None for item in items)
