"""What `train` and `ablate` say while a run goes on, where there is no terminal."""

from __future__ import annotations

import pytest

from embedtune.train.clock import PhaseWork
from embedtune_cli.train import Watcher


def test_the_bars_show_the_phase_and_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    shown: list[tuple[object, ...]] = []
    watch = Watcher(lambda *arguments: shown.append(arguments))
    phases = [PhaseWork(kind="training", parts=(60.0,)), PhaseWork(kind="mixing", parts=(40.0,))]
    watch({"event": "plan", "phases": phases})
    watch({"event": "phase", "name": "train", "kind": "training", "steps": 4, "at": 0})
    watch({"event": "step", "step": 3, "loss": 0.5, "pairs_per_second": 100.0, "seconds": 2.0})
    watch({"event": "phase", "name": "mix base and tuned weights", "kind": "mixing"})
    watch({"event": "progress", "done": 5, "total": 22, "detail": "alpha 3 of 11, set 2 of 2"})
    assert [arguments[:3] for arguments in shown] == [
        (0, 4, "train"),
        (3, 4, "train: loss 0.5000, 100.0 pairs/s"),
        (0, None, "mix base and tuned weights"),  # no total of another phase
        (5, 22, "mix base and tuned weights: alpha 3 of 11, set 2 of 2"),
    ]
    shares = [whole[0] for *_, whole in shown]  # type: ignore[index]
    assert shares == pytest.approx([0, 0.45, 0.6, 0.6 + 0.4 * 5 / 22])


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
