from __future__ import annotations

import re

import torch

from .. import MethodSpec
from ._english import (
    ARTICLES,
    AUXILIARIES,
    DETERMINERS,
    PARTICIPLES,
    PAST_TENSE,
    PREPOSITIONS,
    PRONOUNS,
    THIRD_PERSON,
    VERBS,
)
from ._words import WORD, Change, cased, change_one, changed

SPEC = MethodSpec(kind="texts")
WITHOUT_NOT = {"cannot": "can", "can't": "can", "won't": "will", "shan't": "shall", "ain't": "is"}
SHORT = re.compile(r"(?:i'm|(?:it|he|she|that|there|what)'s|(?:i|you|he|she|it|we|they)'(?:re|ve|ll|d))", re.IGNORECASE)
PLURAL = PRONOUNS & {"i", "you", "we", "they", "who"}


def negation(text: str, *, generator: torch.Generator) -> str | None:
    """Negates a text: adds a "not", or removes one (SNSE-CoT, arXiv 2405.09848).

    The first rule that applies: a "not", "n't", "never" or "no" is removed; "not" follows an auxiliary, a random one
    of them; the first verb becomes do, does or did not with its base; "Not" comes before everything. None where the
    text has no word.

    English. Departures: the paper's code asks a parser for auxiliaries and the root; here small lists stand in
    (_english.py), so that an unknown verb gets the "Not" in front, and a noun that looks like a verb may be taken for
    one. "never" and "no" are ours.
    """
    words = list(WORD.finditer(text))
    lower = [word.group().lower().replace("’", "'") for word in words]
    if not words:
        return None
    following = [*lower[1:], ""]
    changes: list[Change] = []
    for word, name, after in zip(words, lower, following, strict=True):
        if name in WITHOUT_NOT or name.endswith("n't"):
            changes.append((*word.span(), cased(WITHOUT_NOT.get(name, name[:-3]), word.group()[:1])))
        elif name in ("not", "never") or (name == "no" and after not in ("", "one", "longer", "more", "less")):
            changes.append(_without(text, *word.span()))
    if not changes:
        for number, (word, name, after) in enumerate(zip(words, lower, following, strict=True)):
            if _is_auxiliary(word.group(), name, lower[number - 1] if number else "", after):
                changes.append((word.end(), word.end(), " not"))
    if changes:
        return change_one(text, changes, generator)
    for word, name, before, after in zip(words[1:], lower[1:], lower[:-1], following[1:], strict=True):
        verb = _negated(name, before, after)
        if verb:
            return changed(text, (*word.span(), verb))
    start, first = words[0].start(), words[0].group()
    begin = lower[0] if lower[0] in (DETERMINERS | PREPOSITIONS | PRONOUNS) - {"i"} else first
    return changed(text, (start, words[0].end(), f"Not {begin}"))


def _without(text: str, start: int, end: int) -> Change:
    """A word and the space beside it."""
    if text[:start].strip():
        return start - (len(text[:start]) - len(text[:start].rstrip())), end, ""
    rest = text[end:].lstrip()
    return start, len(text) - len(rest) + len(rest[:1]), cased(rest[:1], text[start])


def _is_auxiliary(word: str, name: str, before: str, after: str) -> bool:
    if SHORT.fullmatch(name):
        return True
    if before in ARTICLES or (before and not word.islower()):  # "a can", "in May"
        return False
    if name in ("have", "has", "had"):
        return after in PARTICIPLES or after.endswith("ed")
    return name in AUXILIARIES or (name in ("do", "does", "did") and bool(after) and after not in DETERMINERS)


def _negated(name: str, before: str, after: str) -> str | None:
    """A finite verb with "not"; None for a word that is more likely a noun, an adjective or a participle."""
    if before in DETERMINERS | PREPOSITIONS:
        return None
    if name in THIRD_PERSON:
        return f"does not {THIRD_PERSON[name]}"
    if name in PAST_TENSE and after != "by":
        return f"did not {PAST_TENSE[name]}"
    plural = before in PLURAL or (before.endswith("s") and not before.endswith("ss"))
    return f"do not {name}" if name in VERBS and plural else None
