from __future__ import annotations

import torch

from .. import MethodSpec

SPEC = MethodSpec(kind="texts")
TRIES = 10


def bigram_shuffle(text: str, *, generator: torch.Generator) -> str | None:
    """Shuffles pairs of neighbouring words: the same words, another order (FSC-CLIP, arXiv 2410.05210).

    Words are separated by blanks. The first and second stay together, the third and fourth, and so on. None where ten
    tries give no other text.
    """
    words = text.split()
    pairs = [words[index : index + 2] for index in range(0, len(words), 2)]
    for _ in range(TRIES if len(pairs) > 1 else 0):
        order = torch.randperm(len(pairs), generator=generator, device=generator.device).tolist()
        shuffled = [word for index in order for word in pairs[index]]
        if [word.casefold() for word in shuffled] != [word.casefold() for word in words]:
            return " ".join(shuffled)
    return None
