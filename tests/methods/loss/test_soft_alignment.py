from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fixture_f import F, fixture, no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.soft_alignment import SoftAlignment
from embedtune.types import Scores


def list_of(student: list[float], judge: list[float] | None = None) -> Scores:
    """One query whose first column is the positive."""
    teacher = torch.tensor([judge]) if judge is not None else None
    names = tuple(f"d{column}" for column in range(len(student)))
    return fixture(torch.tensor([student]), teacher=teacher, query_ids=("q",), doc_ids=names)


def value_of(scores: Scores, loss: SoftAlignment | None = None) -> float:
    loss = loss or SoftAlignment(temperature=1.0, judge_temperature=1.0)
    return float(loss(scores, scores.candidate, no_weights(scores))[0])


def test_both_divergences_by_hand() -> None:
    one, other = [2.0, 1.0, 0.0], [3.0, 1.0, 1.0]
    assert value_of(list_of(one, other)) == pytest.approx(0.069111, abs=2e-6)  # (0.061554 + 0.076667) / 2
    assert value_of(list_of(other, one)) == pytest.approx(0.069111, abs=2e-6)


def test_a_student_like_its_judge_costs_nothing() -> None:
    assert value_of(fixture(teacher=F.clone())) == pytest.approx(0, abs=1e-7)


def test_a_judge_that_is_sure_does_not_blow_up() -> None:
    value = value_of(list_of([0.1, 0.9, 0.9], [1.0, 0.0, 0.0]), SoftAlignment())
    assert value == pytest.approx((2 * 18.420681 - 0.693147) / 2, abs=1e-4)  # 18.420681 is -log 1e-8


def test_a_judges_file(tmp_path: Path) -> None:
    run = tmp_path / "judge.run"
    run.write_text("q d0 3.0\nq d1 1.0\nq d2 1.0\nq d9 5.0\n")
    loss = SoftAlignment(path=str(run), temperature=1.0, judge_temperature=1.0)
    assert value_of(list_of([2.0, 1.0, 0.0, 7.0]), loss) == pytest.approx(0.069111, abs=2e-6)  # d3 is not judged
    with pytest.raises(InputError, match=r"^loss.soft_alignment: needs the ids of queries and documents$"):
        value_of(fixture(), loss)


def test_the_judge_gets_no_gradient() -> None:
    teacher = torch.tensor([[3.0, 1.0, 1.0]], requires_grad=True)
    scores = fixture(torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True), teacher=teacher)
    SoftAlignment()(scores, scores.candidate, no_weights(scores))[0].backward()
    assert teacher.grad is None


def test_without_a_judge_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.soft_alignment: needs a judge's scores; give path, or negatives.teac"):
        value_of(fixture())
