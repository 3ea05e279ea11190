from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from fixture_f import fixture

from embedtune.errors import InputError
from embedtune.methods.filtering.judge import Judge
from embedtune.types import Scores


@pytest.fixture
def path(tmp_path: Path) -> str:
    """d0 is q0's positive at .9; of its candidates .895 is too near and .88 is not, and d3 was not judged."""
    file = tmp_path / "judge.run"
    file.write_text("q0 d0 0.9\nq0 d1 0.895\nq0 d2 0.88\nq1 d0 0.99\nq1 d9 0.5\n")
    return str(file)


def scores() -> Scores:
    ids = {"query_ids": ("q0", "q1"), "doc_ids": ("d0", "d1", "d2", "d3")}
    return fixture(torch.zeros(2, 4), **ids)


def test_a_candidate_near_the_positives_score_is_dropped(path: str) -> None:
    assert Judge(path=path)(scores()).tolist() == [[False, False, True, True], [True, False, True, True]]


def test_a_fixed_bar(path: str) -> None:
    keep = Judge(path=path, margin=None, at_least=0.5)(scores())
    assert keep.tolist() == [[False, False, False, True], [False, False, True, True]]


def test_yes_everywhere_leaves_nothing_and_no_everywhere_everything(tmp_path: Path) -> None:
    file = tmp_path / "all.run"
    for verdict, kept in (("1.0", 0), ("0.0", 6)):
        file.write_text("".join(f"q{q} d{d} {verdict}\n" for q in range(2) for d in range(4)))
        assert int(Judge(path=str(file), margin=None, at_least=0.5)(scores()).sum()) == kept


def test_scores_without_ids_are_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"^filtering.judge: needs the ids of queries and documents$"):
        Judge(path=path)(dataclasses.replace(scores(), doc_ids=()))


def test_both_rules_off_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"^filtering.judge: both rules are off; give margin or at_least$"):
        Judge(path=path, margin=None)
