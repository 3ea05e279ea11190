from __future__ import annotations

import torch

from .. import MethodSpec
from ._words import WORD, cased, change_one

SPEC = MethodSpec(kind="texts")
PAIRS = (("east", "west"), ("south", "north"), ("front", "back"), ("left", "right"), ("far", "near"))
OPPOSITE = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}


def orientation(text: str, *, generator: torch.Generator) -> str | None:
    """Turns one word of direction into its opposite: east to west, left to right (SNSE-CoT, arXiv 2405.09848).

    One of the text's words of direction, at random; None where it has none. The verb "left" and the noun "right" are
    changed too.
    """
    changes = [
        (*match.span(), cased(OPPOSITE[match.group().lower()], match.group()))
        for match in WORD.finditer(text)
        if match.group().lower() in OPPOSITE
    ]
    return change_one(text, changes, generator)
