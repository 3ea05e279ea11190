"""Which images of a set are broken: found once by decoding them all, kept in the cache by their content."""

from __future__ import annotations

import json
from pathlib import Path

import PIL

from ..files import cache_folder, fingerprint_of, lock, write_json
from ..types import Items
from .images import MOST_PIXELS, faults_of

_AT_ONCE = 256


def broken(items: Items) -> dict[str, str]:
    """id -> why its image cannot be read, in order. Of several processes the first looks, the others wait."""
    images = {item.id: item.image for item in items if item.image is not None} if pictured(items) else {}
    if not images:
        return {}
    key = fingerprint_of(items.fingerprint, PIL.__version__, str(MOST_PIXELS))
    file = cache_folder() / "images" / f"{key}.json"
    with lock(file.with_suffix(".lock")):
        if not file.exists():
            write_json(file, _found(images))
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return found


def pictured(items: Items) -> int:
    """How many items have an image, without reading them where the set knows."""
    known = getattr(items, "images", None)
    return known if isinstance(known, int) else sum(item.image is not None for item in items)


def _found(images: dict[str, Path]) -> dict[str, str]:
    ids = list(images)
    faults: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        part = ids[start : start + _AT_ONCE]
        reasons = faults_of([images[item_id] for item_id in part])
        faults |= {item_id: reason for item_id, reason in zip(part, reasons, strict=True) if reason is not None}
    return faults
