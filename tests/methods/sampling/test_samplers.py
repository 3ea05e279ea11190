"""top, window, softmax and mixed; SimANS has its own file."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from embedtune.errors import InputError
from embedtune.methods.sampling.mixed import mixed
from embedtune.methods.sampling.softmax import softmax
from embedtune.methods.sampling.top import top
from embedtune.methods.sampling.window import window

RANKED = torch.linspace(0.9, 0.0, 10)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_top_takes_the_first() -> None:
    assert top(RANKED, 0.8, count=3, generator=generator()).tolist() == [0, 1, 2]


def test_a_window_is_counted_in_ranks_from_one() -> None:
    drawn = {tuple(window(RANKED, 0.8, count=2, first=3, last=5, generator=generator(s)).tolist()) for s in range(40)}
    assert drawn == {(2, 3), (2, 4), (3, 4)}
    assert window(RANKED, 0.8, count=9, first=9, last=100, generator=generator()).tolist() == [8, 9]
    assert window(RANKED, 0.8, count=9, first=11, last=100, generator=generator()).tolist() == []


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"^sampling.window: expected 1 <= first <= last, got first 5, last 3$"):
        window(RANKED, 0.8, first=5, last=3, generator=generator())


def test_softmax_draws_in_proportion() -> None:
    scores = torch.tensor([0.3, 0.1, 0.0])
    source = generator()
    counts = Counter(int(softmax(scores, 0.0, count=1, temperature=0.1, generator=source)) for _ in range(6000))
    for index, chance in enumerate((scores / 0.1).softmax(0).tolist()):
        assert counts[index] / 6000 == pytest.approx(chance, abs=0.02)


def test_softmax_becomes_top_as_the_temperature_falls() -> None:
    assert softmax(RANKED, 0.8, count=3, temperature=1e-4, generator=generator()).tolist() == [0, 1, 2]


def test_softmax_refuses_a_temperature_of_zero() -> None:
    with pytest.raises(InputError, match=r"^sampling.softmax.temperature: must be above 0, got 0.0$"):
        softmax(RANKED, 0.8, temperature=0.0, generator=generator())


def test_a_mix_holds_what_was_asked_from_the_top() -> None:
    for seed in range(20):
        drawn = mixed(RANKED, 0.8, count=5, hard=2, depth=3, generator=generator(seed)).tolist()
        assert len(set(drawn)) == 5
        assert sum(index < 3 for index in drawn) >= 2
    first = {int(mixed(RANKED, 0.8, count=1, hard=1, depth=3, generator=generator(seed))[0]) for seed in range(40)}
    assert first == {0, 1, 2}


def test_a_mix_refuses_a_share_below_nothing() -> None:
    with pytest.raises(InputError, match=r"^sampling.mixed: expected hard of at least 0 .*, got -1 and 3$"):
        mixed(RANKED, 0.8, count=2, hard=-1, depth=3, generator=generator())


@pytest.mark.parametrize("method", [top, window, softmax, mixed])
def test_a_count_below_zero_is_refused(method: object) -> None:
    with pytest.raises(InputError, match=r"^sampling.count: must be 0 or more, got -1$"):
        method(RANKED, 0.8, count=-1, generator=generator())  # type: ignore[operator]
