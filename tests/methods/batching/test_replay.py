from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.batching import BatchContext
from embedtune.methods.batching.replay import replay
from embedtune.types import Pair

PAIRS = [Pair(query_id=f"q{n}", positives=(f"d{n}", f"e{n}")) for n in range(5)]


def replayed(tmp_path: Path, content: Any, size: int = 3) -> list[list[str]]:
    path = tmp_path / "batches.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    batches = replay(PAIRS, size, BatchContext(), path=str(path), generator=torch.Generator())
    return [[pair.query_id for pair in batch] for batch in batches]


def test_batches_come_in_the_files_order(tmp_path: Path) -> None:
    batches = [[["q3", "d3"], ["q1", "e1"]], [["q0", "d0"], ["q4", "d4"], ["q2", "d2"]]]
    assert replayed(tmp_path, batches) == [["q3", "q1"], ["q0", "q4", "q2"]]
    assert replayed(tmp_path, {"batches": batches[:1], "losses": [1.0]}) == [["q3", "q1"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[["q0", "d1"]]], r"batch 1: \['q0', 'd1'\] is not a positive pair of the training data"),
        ([[["q0", "d0"]], [["q0", "e0"]]], r"batch 2: \['q0', 'e0'\] was used before; give one epoch of batches"),
        (
            [[["q0", "d0"], ["q1", "d1"], ["q2", "d2"], ["q3", "d3"]]],
            "batch 1 has 4 pairs, more than train.batch_size 3",
        ),
        ([[["q0", 3]]], r"batch 1: expected \[query_id, doc_id\], got \['q0', 3\]"),
        ([[]], r"expected a list of batches, each a list of \[query_id, doc_id\] pairs"),
        ({"losses": []}, "expected a list of batches"),
        ("not json", "cannot be read as JSON batches: "),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        replayed(tmp_path, content)
    assert str(caught.value).startswith(str(tmp_path / "batches.json"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.json: cannot be read as JSON batches: .*No such file"):
        replay(PAIRS, 3, BatchContext(), path=str(tmp_path / "none.json"), generator=torch.Generator())
