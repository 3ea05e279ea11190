"""The time left of a whole run: worked by hand, on a clock that the test moves."""

from __future__ import annotations

import pytest

from embedtune.train.clock import PhaseWork, RunClock, in_words


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_time_left_follows_each_kinds_own_pace() -> None:
    hands = Hands()
    work = [PhaseWork(kind="training", parts=(100.0,)), PhaseWork(kind="evaluation", parts=(50.0, 50.0))]
    clock = RunClock(work, hands)
    clock.begin("training")
    hands.seconds = 1.0
    clock.at(0.05)
    assert clock.remaining is None  # too early to tell
    hands.seconds = 10.0
    clock.at(0.5)
    assert clock.share == 0.25
    assert clock.remaining == pytest.approx(0.2 * (50 + 100))  # 10 s for 50 tokens, 150 are left
    hands.seconds = 20.0
    clock.at(1.0)
    clock.begin("evaluation")
    assert clock.remaining == pytest.approx(0.2 * 100)
    hands.seconds = 30.0
    clock.at(0.5)  # 25 tokens in 10 s, where training took 5
    pace = 30 / 125
    own_pace = (10 + pace * 5) / (25 + 5)
    assert clock.remaining == pytest.approx(own_pace * 75)
    clock.begin("evaluation")
    assert clock.share == pytest.approx(0.75)


def test_training_goes_on_after_a_validation_and_what_ended_is_done() -> None:
    hands = Hands()
    work = [
        PhaseWork(kind="mining", parts=(20.0,)),
        PhaseWork(kind="validation", parts=(10.0, 10.0)),
        PhaseWork(kind="training", parts=(60.0,)),
        PhaseWork(kind="mixing", parts=(100.0,)),
    ]
    clock = RunClock(work, hands)
    clock.begin("training")  # resumed, so that nothing is mined
    assert clock.share == pytest.approx(20 / 200)
    clock.begin("validation")
    clock.at(0.4)
    clock.begin("training")
    assert clock.share == pytest.approx((20 + 10) / 200)
    clock.at(0.5)
    clock.begin("validation")
    clock.begin("training")
    assert clock.share == pytest.approx((20 + 20 + 30) / 200)
    clock.begin("mixing")  # early stopping: the rest of the training is not done any more
    assert clock.share == pytest.approx(100 / 200)


def test_a_resumed_run_does_not_count_the_steps_before_as_its_pace() -> None:
    hands = Hands()
    clock = RunClock([PhaseWork(kind="training", parts=(100.0,))], hands)
    clock.begin("training", share=0.9)
    hands.seconds = 5.0
    clock.at(0.95)
    assert clock.remaining == pytest.approx(5.0)


def test_a_time_is_told_without_false_digits() -> None:
    assert [in_words(seconds) for seconds in (1, 33, 89, 95, 600, 9000)] == [
        "5 s", "35 s", "90 s", "2 min", "10 min", "2.5 h",
    ]  # fmt: skip
