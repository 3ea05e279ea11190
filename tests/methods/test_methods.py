from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embedtune import methods
from embedtune.errors import InputError
from embedtune.types import Scores

ALL = [(family, name) for family in methods.FAMILIES for name in methods.names(family)]


def test_a_method_is_known_by_its_file() -> None:
    assert {"infonce", "debiased", "bsc"} <= set(methods.names("loss"))
    assert not [name for _, name in ALL if name.startswith("_")]


@pytest.mark.parametrize(("family", "name"), ALL)
def test_every_method_says_what_it_does_and_binds_with_its_defaults(family: str, name: str) -> None:
    described = methods.describe(family, name)
    assert 30 < len(described.summary) < 130, "one line that says what the method does and cites its paper"
    if not any(option.required for option in described.options):
        assert callable(methods.bind(family, name, {}))
    problems = methods.check(family, name, {option.name: object() for option in described.options})
    assert len(problems) == len(described.options), "every option has a type that refuses an object()"
    defaults = {option.name: option.default for option in described.options if not option.required}
    missing = [option.name for option in described.options if option.required]
    assert [where for where, _ in methods.check(family, name, defaults)] == missing


def test_options_come_from_the_signature() -> None:
    options = {option.name: option for option in methods.describe("filtering", "positive_ratio").options}
    assert list(options) == ["at_most"]
    assert (options["at_most"].annotation, options["at_most"].default) == ("float", 0.95)
    assert methods.describe("sampling", "top").options[0].name == "count"  # and not the generator, which is given


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^unknown loss method 'infonse': did you mean 'infonce'\?$"):
        methods.describe("loss", "infonse")


def test_all_problems_of_the_options_are_reported() -> None:
    with pytest.raises(InputError) as caught:
        methods.bind("loss", "infonce", {"temprature": 0.1, "learn_temperature": "yes", "directions": ["sideways"]})
    text = str(caught.value)
    assert "loss.infonce.temprature: unknown option of infonce 'temprature': did you mean 'temperature'?" in text
    assert "loss.infonce.learn_temperature: expected true or false, got 'yes'" in text
    assert "loss.infonce.directions: expected 'query_document', " in text


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    ((key, problem),) = methods.check("filtering", "absolute", {"below": value})
    assert (key, problem) == ("below", f"expected a finite number, got {value!r}")


def test_a_required_option_is_asked_for() -> None:
    assert methods.check("batching", "replay", {}) == [("path", "replay needs this option (str)")]


def test_whole_numbers_pass_for_numbers_but_text_does_not() -> None:
    assert methods.check("loss", "infonce", {"temperature": 1}) == []
    assert methods.check("loss", "infonce", {"temperature": "0.05"})


def test_listing_and_checking_need_no_torch() -> None:
    code = (
        "import sys; from embedtune import methods\n"
        "for f in methods.FAMILIES:\n"
        "    for n in methods.names(f): methods.describe(f, n); methods.check(f, n, {})\n"
        "print('torch' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "False\n"


def test_an_option_may_follow_a_schedule() -> None:
    schedule = methods.Schedule(start=1.0, end=9.0, over=0.5)
    assert [schedule.at(progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [1.0, 5.0, 9.0, 9.0]
    bound = methods.bind("weighting", "hardness", {"alpha": {"from": 0.0, "to": 8.0}})
    student = torch.tensor([[0.9, 0.5]])
    positive = torch.tensor([[True, False]])
    for progress, alpha in ((0.0, 0.0), (0.5, 4.0), (1.0, 8.0)):
        scores = Scores(student=student, positive=positive, candidate=~positive, progress=progress)
        assert bound(scores, ~positive).tolist() == [[0.0, alpha * 0.5]]


SCHEDULED = [
    (family, name, option)
    for family in methods.SCHEDULED
    for name in methods.names(family)
    for option in methods.describe(family, name).spec.scheduled
]


def test_a_classs_option_may_follow_a_schedule_too() -> None:
    changing = methods.bind("loss", "infonce", {"temperature": {"from": 0.1, "to": 0.05}})
    student = torch.tensor([[0.9, 0.5], [0.2, 0.7]])
    positive = torch.eye(2, dtype=torch.bool)
    for progress, temperature in ((0.0, 0.1), (0.5, 0.075), (1.0, 0.05)):
        scores = Scores(student=student, positive=positive, candidate=~positive, progress=progress)
        still = methods.bind("loss", "infonce", {"temperature": temperature})
        none = torch.zeros_like(student)
        assert changing(scores, ~positive, none)[0] == pytest.approx(still(scores, ~positive, none)[0].item())
    assert isinstance(changing, torch.nn.Module)  # so that what it learns is trained and saved
    with pytest.raises(InputError, match="must be above 0"):
        methods.bind("loss", "infonce", {"temperature": {"from": 0.1, "to": 0.0}})


@pytest.mark.parametrize(("family", "name", "option"), SCHEDULED)
def test_what_a_class_says_may_change_is_read_from_itself(family: str, name: str, option: str) -> None:
    method = methods.describe(family, name)
    assert option in {known.name for known in method.options if known.annotation == "float"}
    file = Path(methods.__file__).parent / family / f"{name}.py"
    assert re.search(rf"(?<!\w)self\.{option}\b(?!.* = )", file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("family", "name", "options", "message"),
    [
        ("weighting", "hardness", {"alpha": {"from": 0.0}}, "expected a number, or {from: 0.0, to: 9.0, over: 0.5}"),
        ("weighting", "hardness", {"alpha": {"from": 0, "to": "x"}}, "expected a number, or {from"),
        ("weighting", "hardness", {"alpha": {"from": 0, "to": 1, "over": 0}}, "over is a share of the steps"),
        ("weighting", "hardness", {"negatives": {"from": 0, "to": 1}}, "cannot follow a schedule"),
        ("sampling", "softmax", {"temperature": {"from": 0, "to": 1}}, "cannot follow a schedule"),
        ("loss", "ncu", {"warm_up": {"from": 0.1, "to": 0.05}}, "cannot follow a schedule"),
        (
            "loss",
            "infonce",
            {"temperature": {"from": 0.1, "to": 0.05}, "learn_temperature": True},
            "cannot both be learned and follow a schedule",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(family: str, name: str, options: dict[str, object], message: str) -> None:
    [(_, problem)] = methods.check(family, name, options)
    assert message in problem
