"""What `train` and `ablate` say while a run goes on, where there is no terminal."""

from __future__ import annotations

import pytest

from embedtune_cli.train import Watcher


def test_training_goes_on_counting_where_it_mines_again(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watcher(lambda *_: None)

    def step(number: int) -> dict[str, object]:
        return {"event": "step", "step": number, "loss": 0.5, "pairs_per_second": 100.0, "seconds": 2.0}

    watch({"event": "phase", "name": "train", "steps": 40, "at": 0})
    watch(step(19))
    watch(step(20))
    watch({"event": "phase", "name": "mine negatives"})
    watch(step(21))
    watch(step(22))
    assert capsys.readouterr().err.splitlines() == [
        "train: 40 steps",
        "step 20/40: loss 0.5000, 100.0 pairs/s, about 40 s left",
        "mine negatives",
        "step 22/40: loss 0.5000, 100.0 pairs/s, about 36 s left",
    ]
