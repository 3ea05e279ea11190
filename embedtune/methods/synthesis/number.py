from __future__ import annotations

import re

import torch

from .. import MethodSpec
from ._words import change_one

SPEC = MethodSpec(kind="texts")
# Not within a word or a name (p53, COVID-19), and not an ordinal (2nd).
NUMBER = re.compile(r"(?<!\w)(?<!\w[-.,:/])[0-9]+(?:[.,][0-9]+)*(?![0-9]|(?:st|nd|rd|th)\b)")


def number(text: str, *, generator: torch.Generator) -> str | None:
    """Replaces one number by another with as many digits (SNSE-CoT, arXiv 2405.09848).

    One of the text's numbers, at random. Its new first digit is 1 to 9; points and commas stay. None where the text has
    no number in digits: spelled ones are not seen, as in the paper's code.

    Departure: the paper's code takes the numbers that a parser finds before nouns; here any that stands alone.
    """
    changes = [(*match.span(), _another(match.group(), generator)) for match in NUMBER.finditer(text)]
    return change_one(text, changes, generator)


def _another(written: str, generator: torch.Generator) -> str:
    while True:
        digits = torch.randint(10, (len(written),), generator=generator, device=generator.device).tolist()
        digits[0] = digits[0] % 9 + 1
        new = "".join(str(digit) if old.isdigit() else old for digit, old in zip(digits, written, strict=True))
        if new != written:
            return new
