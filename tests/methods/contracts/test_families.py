"""What every method of a family must do. A new file of a family is tested here by being there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from embedtune import methods
from embedtune.errors import InputError
from embedtune.methods import contracts
from embedtune.methods._trial import Contract, ContractBroken, Trial, trial_of
from embedtune.types import Scores

FILES = {"judge", "replay"}  # methods that read a file
TRIALS = [
    trial_of(family, name, **({"path": "-"} if name in FILES else {}))
    for family in methods.FAMILIES
    for name in methods.names(family)
]
CASES = [
    (trial, contract)
    for trial in TRIALS
    for contract in contracts.contracts_of(trial)
    if trial.method.name != "replay"  # which uses the pairs of its file, and no others
]


def name_of(value: Trial | Contract) -> str:
    return f"{value.method.family}.{value.method.name}" if isinstance(value, Trial) else value.__name__


@pytest.mark.parametrize("family", methods.FAMILIES)
def test_no_family_is_empty(family: str) -> None:
    assert methods.names(family)


@pytest.mark.parametrize(("trial", "contract"), CASES, ids=name_of)
def test_a_method_keeps_its_familys_contract(trial: Trial, contract: Contract, judged_run: str) -> None:
    contract(trial_of(trial.method.family, trial.method.name, path=judged_run) if "path" in trial.options else trial)


@pytest.mark.parametrize("name", methods.names("weighting"))
def test_a_weighting_states_its_neutral_options(name: str) -> None:
    assert methods.describe("weighting", name).spec.neutral is not None


class Broken(Trial):
    """A trial whose method is a function of the test."""

    def __init__(self, like: str, method: Callable[..., Any]) -> None:
        family, _, name = like.partition(".")
        trial = trial_of(family, name)
        super().__init__(trial.method, trial.options)
        object.__setattr__(self, "broken", method)

    def make(self, **options: Any) -> Any:
        return self.broken  # type: ignore[attr-defined]


def keep_all(scores: Scores) -> Tensor:
    return torch.ones_like(scores.candidate)


def first_columns(scores: Scores) -> Tensor:
    return scores.candidate & (torch.arange(scores.candidate.shape[1]) < 6)


def of_everything(scores: Scores, keep: Tensor) -> Tensor:
    return scores.student.detach()


def of_largest_only(scores: Scores, keep: Tensor) -> Tensor:
    return torch.full_like(scores.student, torch.inf).masked_fill(~keep, 0.0)


def always_the_same(pairs: Any, size: int, context: Any, *, generator: Any) -> Any:
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def repeats(scores: Tensor, positive_score: float, *, generator: Any) -> Tensor:
    return torch.zeros(4, dtype=torch.int64)


def pushes_positives(scores: Scores, keep: Tensor, log_weights: Tensor) -> Any:
    return (scores.student * scores.positive).sum(), {}


def sees_dropped(scores: Scores, keep: Tensor, log_weights: Tensor) -> Any:
    return -(scores.student * scores.positive).sum() + scores.student.square().sum(), {}


@pytest.mark.parametrize(
    ("like", "method", "contract"),
    [
        ("filtering.absolute", keep_all, "takes_candidates_away"),
        ("filtering.absolute", keep_all, "decides_about_one_query"),
        ("filtering.absolute", first_columns, "decides_in_any_order"),
        ("filtering.absolute", first_columns, "leaves_unscored_candidates"),
        ("sampling.top", repeats, "draws_without_replacement"),
        ("batching.shuffle", always_the_same, "uses_every_pair_once"),
        ("synthesis.negation", lambda text, *, generator: text, "makes_other_texts"),
        ("synthesis.noise", lambda scores, keep, *, generator: (scores, keep), "appends_constant_negatives"),
        ("weighting.hardness", of_everything, "weighs_negatives_only"),
        ("weighting.hardness", of_largest_only, "weighs_negatives_only"),
        ("weighting.hardness", of_everything, "weighs_nothing_when_neutral"),
        ("loss.infonce", pushes_positives, "falls_as_a_positive_rises"),
        ("loss.infonce", sees_dropped, "drops_as_if_deleted"),
        ("loss.infonce", sees_dropped, "leaves_out_rows_without_negatives"),
        ("loss.infonce", sees_dropped, "refuses_a_batch_without_negatives"),
        ("loss.debiased", sees_dropped, "is_infonce_when_neutral"),
    ],
)
def test_a_contract_finds_the_method_that_breaks_it(like: str, method: Callable[..., Any], contract: str) -> None:
    trial = Broken(like, method)
    (function,) = [one for one in contracts.contracts_of(trial) if one.__name__ == contract]
    with pytest.raises((ContractBroken, InputError)):
        function(trial)
