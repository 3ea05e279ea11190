from __future__ import annotations

import re

import torch

from .. import MethodSpec
from ._words import cased, change_one, one_of

SPEC = MethodSpec(kind="texts")
MARK = re.compile(r"\(([A-H])\)\s*|^([A-H])[.)]\s+", re.MULTILINE)
END = re.compile(r"[\n;]|[.?!](?=\s|$)|,?(?:\s+(?:and|or))?\s*$")


def option(text: str, *, generator: torch.Generator) -> str | None:
    """Replaces the right option of a question, where its solution names it, by another (SNSE-CoT, arXiv 2405.09848).

    For texts that list options, as (A) red (B) blue, or line by line as A. red, and name one of them outside of the
    list: its words, or its letter as (B). One of those places, drawn at random, gets another option. None where there
    is no list of two options, or where none or several are named, as the right one is then not known.

    Departure: the paper's data says which option is right; a text does not.
    """
    options, listed = _options(text)
    which = {words.casefold(): index for index, words in enumerate(options)}
    which |= {f"({letter})": index for letter, index in zip("abcdefgh", range(len(options)), strict=False)}
    # The longest first: "iron oxide" does not name "iron".
    words = "|".join(re.escape(name) for name in sorted(options, key=len, reverse=True))
    named = [
        (*match.span(), which[match.group().casefold()])
        for match in re.finditer(rf"\([A-H]\)|(?<!\w)(?:{words})(?!\w)", text, re.IGNORECASE)
        if match.group().casefold() in which
        and not any(start < match.end() and match.start() < end for start, end in listed)
    ]
    if len({options[index].casefold() for _, _, index in named}) != 1:
        return None
    start, end, right = one_of(named, generator)
    letters = text[start:end].startswith("(")
    others = [
        f"({chr(ord('A') + index)})" if letters else cased(name, text[start])
        for index, name in enumerate(options)
        if name.casefold() != options[right].casefold()
    ]
    return change_one(text, [(start, end, other) for other in others], generator)


def _options(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The listed options, A first, and where each stands with its mark."""
    marks: list[re.Match[str]] = []
    for mark in MARK.finditer(text):
        if (mark.group(1) or mark.group(2)) == chr(ord("A") + len(marks)):
            marks.append(mark)
    options, listed = [], []
    ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
    for mark, after in zip(marks, ends, strict=True):
        end = END.search(text, mark.end(), after)
        stop = end.start() if end else after
        options.append(text[mark.end() : stop].strip())
        listed.append((mark.start(), stop))
    return (options, listed) if len(options) > 1 and all(options) else ([], [])
