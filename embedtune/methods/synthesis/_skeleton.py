from __future__ import annotations

import torch

from embedtune.methods import MethodSpec

SPEC = MethodSpec(kind="texts")


def skeleton(text: str, *, generator: torch.Generator) -> str | None:
    """Swaps two words that stand next to each other: say in one line what yours does (and cite its paper).

    None where the text has no two different neighbours. Say what each option does and where you depart.
    """
    words = text.split()
    rows = [row for row in range(len(words) - 1) if words[row].casefold() != words[row + 1].casefold()]
    if not rows:
        return None
    row = rows[int(torch.randint(len(rows), (), generator=generator))]
    words[row], words[row + 1] = words[row + 1], words[row]
    return " ".join(words)
