# ruff: noqa: SIM905 - words are read and edited as lines, not as lists of strings
from __future__ import annotations

import re
from itertools import combinations, product

import torch

from .. import MethodSpec
from ._words import WORD, Change, cased, changed, one_of, replacement
from .number import number

SPEC = MethodSpec(kind="texts")
SHAPES = (
    "circle hexagon kite parallelogram pentagon rectangle rhombus semicircle square trapezoid triangle".split(),
    "altitude angle arc chord diagonal diameter median midpoint radius secant tangent".split(),
)
RELATIONS = (
    "parallel perpendicular".split(),
    "inscribed circumscribed".split(),
    "bisects trisects intersects touches".split(),
    "bisect trisect intersect touch".split(),
    "congruent similar".split(),
    "inside outside on".split(),
    "acute obtuse right".split(),
    "equilateral isosceles scalene".split(),
    "horizontal vertical".split(),
    "longer shorter".split(),
    "greater less".split(),
)
LABEL = re.compile(r"(?<![\w'])[A-Z]{2,6}(?![\w'])")


def geometry(text: str, *, generator: torch.Generator) -> str | None:
    """Changes a geometry caption in one thing: shape, labels, number or relation (MMGeoLM, arXiv 2505.20152).

    One of the four changes, at random among those that apply. Shapes and relations become others of their kind, by
    lists to be edited (SHAPES, RELATIONS); a number becomes another of as many digits; of two labels such as AB and CD
    one letter each is exchanged, so that no letter is new and the labels are not a permutation of the old ones. None
    where no change applies. English.

    Departure: the paper lets a language model write ten captions with these changes; here they are rules.
    """
    made = [
        _one(text, _words(text, SHAPES), generator),
        _labels(text, generator),
        number(text, generator=generator),
        _one(text, _words(text, RELATIONS), generator),
    ]
    variants = [one for one in made if one is not None]
    return one_of(variants, generator) if variants else None


def _one(text: str, changes: list[Change], generator: torch.Generator) -> str | None:
    return changed(text, one_of(changes, generator)) if changes else None


def _words(text: str, kinds: tuple[list[str], ...]) -> list[Change]:
    changes = []
    for match in WORD.finditer(text):
        name = match.group().lower()
        for kind in kinds:
            plural = "s" if name not in kind and name.endswith("s") and name[:-1] in kind else ""
            single = name.removesuffix("s") if plural else name
            others = [f"{other}{plural}" for other in kind if other != single] if single in kind else []
            changes += [replacement(text, *match.span(), cased(other, match.group())) for other in others]
    return changes


def _labels(text: str, generator: torch.Generator) -> str | None:
    """The text with a letter of one label exchanged with a letter of another, where that names other things."""
    labels = [match for match in LABEL.finditer(text) if len(set(match.group())) > 1]
    before = {frozenset(label.group()) for label in labels}
    variants = []
    for one, other in combinations(labels, 2):
        letters, other_letters = set(one.group()), set(other.group())
        for letter, instead in product(sorted(letters - other_letters), sorted(other_letters - letters)):
            names = one.group().replace(letter, instead), other.group().replace(instead, letter)
            if not {frozenset(name) for name in names} <= before:
                variants.append(((*one.span(), names[0]), (*other.span(), names[1])))
    return changed(text, *one_of(variants, generator)) if variants else None
