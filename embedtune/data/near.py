"""Texts that are nearly equal, found by MinHash (Broder 1997) and locality-sensitive hashing with datasketch."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

THRESHOLD = 0.8
MOST = 100_000  # texts that are compared without being asked for: some ten seconds
LEAST = 0.6
_WIDTH = 4
_BANDS, _ROWS = 16, 4  # two texts are compared if all 4 hashes of a band are equal
_HASHES = _BANDS * _ROWS


@dataclass(frozen=True, kw_only=True)
class Near:
    """A text that is nearly another one. similarity: the Jaccard similarity of their sets of 4 characters in a row."""

    item_id: str
    other_id: str
    similarity: float


def near(texts: Mapping[str, str], others: Mapping[str, str], threshold: float = THRESHOLD) -> list[Near]:
    """For each text (id -> text) the nearest of `others` with a similarity of at least `threshold`, if there is one.

    Case and white space make no difference. A text of more than 4 times the longest of `texts` is not looked at. The
    similarities are exact; hashing misses 1 of 5,000 pairs of similarity 0.8 and 1 of 9 of 0.6. Raises InputError where
    datasketch is not installed, and for a threshold below 0.6 or above 1.
    """
    if not LEAST <= threshold <= 1:
        raise InputError(f"expected a similarity from {LEAST} to 1, got {threshold:g}")
    sets = {item_id: _pieces(text) for item_id, text in texts.items()}
    longest = max(map(len, sets.values()), default=0) / threshold  # a longer text shares too little with each of them
    most = 4 * max(map(len, texts.values()), default=0)  # characters; documents of pages are not even taken apart
    near_enough = ((item_id, _pieces(text)) for item_id, text in others.items() if len(text) <= most)
    known = {item_id: pieces for item_id, pieces in near_enough if 0 < len(pieces) <= longest}
    if not sets or not known:
        return []
    index = _sketch_module().MinHashLSH(num_perm=_HASHES, params=(_BANDS, _ROWS))
    for item_id, pieces in known.items():
        index.insert(item_id, _sketch(pieces), check_duplication=False)
    pairs = []
    for item_id, pieces in sets.items():
        candidates = sorted(index.query(_sketch(pieces))) if pieces else []
        scored = [(len(pieces & known[other]) / len(pieces | known[other]), other) for other in candidates]
        similarity, other_id = max(scored, default=(0.0, ""))
        if similarity >= threshold:
            pairs.append(Near(item_id=item_id, other_id=other_id, similarity=similarity))
    return pairs


def is_installed() -> bool:
    return importlib.util.find_spec("datasketch") is not None


def _pieces(text: str) -> frozenset[str]:
    """Every 4 characters in a row; the text itself where it is shorter."""
    folded = " ".join(text.casefold().split())
    return frozenset(folded[start : start + _WIDTH] for start in range(max(1, len(folded) - _WIDTH + 1))) - {""}


def _sketch(pieces: Iterable[str]) -> Any:
    sketch = _sketch_module().MinHash(num_perm=_HASHES, hashfunc=zlib.crc32)
    sketch.update_batch([piece.encode() for piece in pieces])
    return sketch


def _sketch_module() -> Any:
    try:
        import datasketch
    except ImportError:
        raise InputError(
            "looking for near-duplicates needs datasketch: pip install 'embedtune[near-duplicates]'"
        ) from None
    return datasketch
