# ruff: noqa: SIM905 - words are read and edited as lines, not as lists of strings
from __future__ import annotations

import torch

from .. import MethodSpec
from ._words import WORD, cased, change_one, one_of

SPEC = MethodSpec(kind="texts", experimental=True)
# None begins with a vowel's sound, so that "a" stays right; objects have a plural in -s.
CONCEPTS = {
    "object": (
        "ball bear bed bicycle bird boat book bottle bowl boy cake car cat chair clock cow cup dog fork frisbee "
        "giraffe girl horse kite lamp laptop motorcycle person phone pizza plane plate sheep sign skateboard sofa "
        "spoon surfboard table tie toilet train tree truck vase zebra"
    ).split(),
    "colour": "black blue brown gold gray green pink purple red silver tan white yellow".split(),
    "location": (
        "bathroom beach bedroom city desert field forest garden hallway kitchen lake mountain park river road "
        "sidewalk station street"
    ).split(),
    "size": "big giant gigantic huge large little massive medium miniature short small tall tiny".split(),
}
WITHOUT_PLURAL = frozenset({"sheep", "person", "city", *CONCEPTS["colour"], *CONCEPTS["size"]})


def concept_swap(text: str, *, generator: torch.Generator) -> str | None:
    """Replaces one word by another of its kind: object, colour, place or size (InpaintCOCO, arXiv 2403.02875).

    A random word of the text that is in a list is replaced by a random other word of the same list and number (dog,
    dogs). None where no word is in a list. English, for captions.

    Second-hand: the paper says what is replaced; the lists are ours, small, and to be edited (CONCEPTS). Words of
    direction, which may count as location, are the method `orientation`.
    """
    changes = []
    for match in WORD.finditer(text):
        name = match.group().lower()
        for words in CONCEPTS.values():
            plural = name not in words and name[:-1] in words and name.endswith("s")
            if name not in words and (not plural or name[:-1] in WITHOUT_PLURAL):
                continue
            others = [word for word in words if word != name.removesuffix("s" if plural else "")]
            if plural:
                others = [f"{word}s" for word in others if word not in WITHOUT_PLURAL]
            changes.append([(*match.span(), cased(other, match.group())) for other in others])
    return change_one(text, one_of(changes, generator), generator) if changes else None
