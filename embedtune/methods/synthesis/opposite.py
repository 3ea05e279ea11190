# ruff: noqa: SIM905 - words are read and edited as lines, not as lists of strings
from __future__ import annotations

import torch

from .. import MethodSpec
from ._words import WORD, Change, cased, change_one, replacement

SPEC = MethodSpec(kind="texts")
PAIRS = tuple(
    tuple(pair.split("/"))
    for pair in (
        "above/below before/after behind/before inside/outside over/under up/down upstairs/downstairs with/without "
        "first/last top/bottom left/right front/back indoors/outdoors "
        "big/small large/small huge/tiny tall/short long/short high/low deep/shallow thick/thin wide/narrow "
        "heavy/light "
        "old/young old/new modern/ancient hot/cold warm/cool wet/dry clean/dirty full/empty bright/dark sunny/cloudy "
        "open/closed fast/slow loud/quiet hard/soft rough/smooth sharp/blunt strong/weak rich/poor happy/sad good/bad "
        "beautiful/ugly alive/dead awake/asleep male/female black/white near/far early/late raw/cooked round/square "
        "more/less most/least many/few always/never increase/decrease increases/decreases increased/decreased "
        "activate/inhibit activates/inhibits higher/lower larger/smaller longer/shorter better/worse "
        "standing/sitting opening/closing pushing/pulling smiling/frowning coming/going rising/falling man/woman "
        "men/women boy/girl boys/girls day/night"
    ).split()
)
OPPOSITES: dict[str, list[str]] = {}
for _one, _other in PAIRS:
    OPPOSITES.setdefault(_one, []).append(_other)
    OPPOSITES.setdefault(_other, []).append(_one)


def opposite(text: str, *, generator: torch.Generator) -> str | None:
    """Turns one word into its opposite: hot to cold, above to below (antonyms of FSC-CLIP, arXiv 2410.05210).

    One of the text's words that are in the list, and one of its opposites, at random. An article in front is adapted.
    None where no word is in the list. English.

    Departure: the paper looks antonyms up in WordNet; here a list of common ones stands in, to be edited (PAIRS), and a
    word is taken as it is written, in any of its meanings.
    """
    changes: list[Change] = [
        replacement(text, *match.span(), cased(other, match.group()))
        for match in WORD.finditer(text)
        for other in OPPOSITES.get(match.group().lower(), ())
    ]
    return change_one(text, changes, generator)
