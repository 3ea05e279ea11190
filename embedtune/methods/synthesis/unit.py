from __future__ import annotations

import re

import torch

from .. import MethodSpec
from ._words import cased, change_one, one_of

SPEC = MethodSpec(kind="texts")
SYMBOLS = (("°C", "°F"), ("mm", "cm", "m", "km"), ("ml", "l"), ("mL", "L"), ("g", "kg"))
NAMES = (
    ("second", "minute", "hour"),
    ("millimeter", "centimeter", "meter", "kilometer"),
    ("milliliter", "liter"),
    ("gram", "kilogram"),
)
NEIGHBOURS = {
    name: [group[index] for index in (at - 1, at + 1) if 0 <= index < len(group)]
    for group in (*SYMBOLS, *NAMES)
    for at, name in enumerate(group)
}
_SYMBOLS, _NAMES = ("|".join(name for group in groups for name in group) for groups in (SYMBOLS, NAMES))
# A symbol, and a name without its s, count as a unit behind a number only: "m" and "second" mean much else.
UNIT = re.compile(
    rf"(?:(?<=[0-9])|(?<=[0-9][\s-]))(?P<symbol>{_SYMBOLS})(?!\w)"
    rf"|(?:(?<=[0-9][\s-])|(?<=\b[Oo]ne[\s-])|(?<=\bper\s))(?i:(?P<one>{_NAMES}))(?!\w)"
    rf"|(?<!\w)(?i:(?P<more>{_NAMES}))s(?!\w)"
)


def unit(text: str, *, generator: torch.Generator) -> str | None:
    """Moves one unit of measurement to the next smaller or larger: km to m, minutes to hours (SNSE-CoT, 2405.09848).

    One of the text's units, and one of its neighbours, at random; None where there is no unit. The number stays.

    Ours are the spelled lengths, volumes and masses, and mL and L. Departure: the paper's code compares a parser's
    lemmas; here a unit stands behind a number, or is a plural.
    """
    changes = []
    for match in UNIT.finditer(text):
        written = match.group("symbol") or match.group("one") or match.group("more")
        others = NEIGHBOURS.get(written) or [cased(other, written) for other in NEIGHBOURS[written.lower()]]
        changes.append([(match.start(), match.start() + len(written), other) for other in others])
    return change_one(text, one_of(changes, generator), generator) if changes else None
