"""One search in each process of a launch, which share it: python searching_process.py FOLDER.

Writes FOLDER/RANK.npz: what the process has in the end, and how many queries it searched itself.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

K = 7


def vectors() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    return tuple(generator.standard_normal((count, 96)).astype(np.float32) for count in (90, 700))  # type: ignore[return-value]


def small_blocks() -> None:
    from embedtune.search import exact, together

    exact.QUERIES = together.QUERIES = 16
    exact._DOCUMENTS, exact._SORTED, together.WORTH = 64, 8, 0


def main(folder: Path) -> None:
    from accelerate import Accelerator

    from embedtune.search.exact import Searcher
    from embedtune.search.together import search_together
    from embedtune.train.live import LiveNegatives

    small_blocks()
    accelerator, (queries, documents) = Accelerator(cpu=True), vectors()
    searcher, whole, searched = Searcher(documents), Searcher.keys, 0

    def noted(self: Searcher, rows: Any, *arguments: Any) -> Any:
        nonlocal searched
        searched += len(rows)
        time.sleep(0.2)  # so that nobody does all
        return whole(self, rows, *arguments)

    accelerator.wait_for_everyone()
    Searcher.keys = noted  # type: ignore[method-assign]
    scores, rows = search_together(searcher, queries, K, "the vectors above")
    Searcher.keys = whole  # type: ignore[method-assign]
    live: Any = SimpleNamespace(_searcher=searcher, _depth=K, _accelerator=accelerator)
    of_parts = LiveNegatives._keys(live, queries).numpy()
    number = accelerator.process_index
    np.savez(folder / f"{number}.npz", scores=scores, rows=rows, searched=searched, of_parts=of_parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
