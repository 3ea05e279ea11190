"""Processes share a search: the same bits as one, and none searches all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import searching_process
from training_process import launch

from embedtune.search import exact, together
from embedtune.search.exact import Searcher


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_search_and_have_the_bits_of_one(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(processes, searching_process.__file__, tmp_path, EMBEDTUNE_CACHE=str(tmp_path / "cache"))
    monkeypatch.setattr(exact, "QUERIES", 16)
    monkeypatch.setattr(exact, "_DOCUMENTS", 64)
    queries, documents = searching_process.vectors()
    searcher = Searcher(documents)
    keys = searcher.keys(queries, searching_process.K)
    scores, rows = searcher.unpack(keys)
    searched = []
    for number in range(processes):
        with np.load(tmp_path / f"{number}.npz") as results:
            assert (results["scores"] == scores).all()
            assert (results["rows"] == rows).all()
            assert (results["of_parts"] == keys.numpy()).all()
            searched.append(int(results["searched"]))
    assert sum(searched) == len(queries)
    assert max(searched) < len(queries)


def test_a_small_search_and_one_process_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not together.is_shared(10**6, (10**6, 384))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert together.is_shared(10**4, (10**4, 384))
    assert not together.is_shared(100, (10**6, 384))
    assert not together.is_shared(1000, (100, 384))
