# ruff: noqa: SIM905 - words are read and edited as lines, not as lists of strings
from __future__ import annotations

from itertools import combinations

import torch

from .. import MethodSpec
from ._english import DETERMINERS, FUNCTION_WORDS
from ._words import WORD, changed, one_of
from .concept_swap import CONCEPTS
from .number import NUMBER

SPEC = MethodSpec(kind="texts")
ADJECTIVES = frozenset({*CONCEPTS["colour"], *CONCEPTS["size"], *"bright cold dark hot long new old young".split()})
NOUNS = frozenset(CONCEPTS["object"] + CONCEPTS["location"])
NO_ADVERBS = frozenset("assembly family fly italy july only reply supply".split())
Span = tuple[int, int]


def word_swap(text: str, *, generator: torch.Generator) -> str | None:
    """Swaps two words or phrases of the same kind: who did what to whom (NegCLIP, arXiv 2210.01936).

    Kinds are nouns, plural nouns, adjectives, adverbs, names, numbers, pairs of adjective and noun, and noun phrases of
    at least three words (the big dog). A random one
    of the swaps that are possible; the words stay the same, their order changes. None where there are no two of a kind
    that differ. English.

    Departures: the paper's code asks a parser for nouns, adjectives, adverbs and phrases; here lists, endings and what
    comes before stand in (a word after "the" is a noun where it does not look like an adjective), so that some swaps
    cross kinds. Verb phrases are left alone.
    """
    swaps = [
        (one, other)
        for spans in _kinds(text).values()
        for one, other in combinations(spans, 2)
        if text[one[1] : other[0]].strip()  # "big red" means what "red big" does
        and text[slice(*one)].casefold() != text[slice(*other)].casefold()
    ]
    if not swaps:
        return None
    one, other = one_of(swaps, generator)
    first, second = text[slice(*one)], text[slice(*other)]
    if not text[: one[0]].strip() and first[0].isupper():  # the capital is the sentence's, not the word's
        first, second = first[0].lower() + first[1:], second[0].upper() + second[1:]
    return changed(text, (*one, second), (*other, first))


def _kinds(text: str) -> dict[str, list[Span]]:
    """Where the words of each kind stand, in order."""
    groups: dict[str, list[Span]] = {}
    before, before_kind, before_span = "", "", (0, 0)
    phrase: int | None = None  # where the determiner stands before which only adjectives came since
    for match in WORD.finditer(text):
        word, span = match.group(), match.span()
        starts = not before or text[before_span[1] : span[0]].strip() in (".", "!", "?", ":")
        beside = not text[before_span[1] : span[0]].strip()
        kind = _kind(word, "" if starts else before, before_kind if beside else "", starts)
        if kind == before_kind == "name" and beside:  # San Francisco
            span = (groups["name"].pop()[0], span[1])
        groups.setdefault(kind, []).append(span)
        if kind in ("noun", "nouns") and before_kind == "adjective" and beside:
            groups.setdefault(f"adjective and {kind}", []).append((before_span[0], span[1]))
            if phrase is not None:
                groups.setdefault("noun phrase", []).append((phrase, span[1]))
        if word.lower() in DETERMINERS or not beside or kind != "adjective":
            phrase = span[0] if word.lower() in DETERMINERS else None
        before, before_kind, before_span = word.lower(), kind, span
    groups.pop("", None)
    groups["number"] = [match.span() for match in NUMBER.finditer(text)]
    return groups


def _kind(word: str, before: str, before_kind: str, starts: bool) -> str:
    name = word.lower()
    if name in FUNCTION_WORDS or not name.isalpha() or len(name) < 2:
        return ""
    if word[0].isupper() and not starts:
        return "name"
    if name in ADJECTIVES or (len(name) > 5 and name.endswith(("ous", "ful", "ive", "less", "able", "ible", "ical"))):
        return "adjective"
    if name.endswith("ly") and len(name) > 4 and name not in NO_ADVERBS:
        return "adverb"
    if name in NOUNS or name.removesuffix("s") in NOUNS or before in DETERMINERS or before_kind == "adjective":
        return "nouns" if name.endswith("s") and not name.endswith("ss") else "noun"
    return ""
