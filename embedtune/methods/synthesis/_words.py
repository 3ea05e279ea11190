"""What the makers of texts share: finding words, drawing among them, and changing a text in one place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
Change = tuple[int, int, str]
"""Characters from start to end become these."""


def one_of(choices: Sequence[T], generator: torch.Generator) -> T:
    return choices[int(torch.randint(len(choices), (), generator=generator, device=generator.device))]


def changed(text: str, *changes: Change) -> str | None:
    """The text with the changes in place; None where it then is empty, or reads the same but for case and space."""
    new, at = "", 0
    for start, end, by in sorted(changes):
        new, at = new + text[at:start] + by, end
    new += text[at:]
    return new if new.strip() and new.casefold().split() != text.casefold().split() else None


def change_one(text: str, changes: Sequence[Change], generator: torch.Generator) -> str | None:
    """The text with one of these changes; None where there are none."""
    return changed(text, one_of(changes, generator)) if changes else None


def replacement(text: str, start: int, end: int, by: str) -> Change:
    """The word in another one's place, with an article before it that fits: an old dog, a young dog."""
    article = re.search(r"\b(an?)(\s+)$", text[:start], re.IGNORECASE)
    if article is None:
        return start, end, by
    fitting = cased("an" if by[:1].lower() in tuple("aeiou") else "a", article[1])
    return article.start(), end, f"{fitting}{article[2]}{by}"


def cased(word: str, like: str) -> str:
    """The word in capitals, with a capital, or as it is: as the other word is written."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
