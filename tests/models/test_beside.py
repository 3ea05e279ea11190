"""What is done beside computing: in order, one value early, errors where they belong, no thread left."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models import beside, prepared
from embedtune.models.encoder import load_encoder
from embedtune.types import Item


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "has_room", lambda: True)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_the_next_value_is_made_while_the_caller_works() -> None:
    made = [threading.Event() for _ in range(4)]

    def values() -> Generator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    seen = []
    for number in beside.ahead(values()):
        seen.append(number)
        assert all(event.wait(10) for event in made[: number + 2])
        assert not any(event.is_set() for event in made[number + 2 :])  # one early, no more
    assert seen == [0, 1, 2, 3]
    assert not threads()


def test_a_value_that_may_not_be_early_is_made_when_it_is_asked_for() -> None:
    made: list[int] = []

    def values() -> Generator[int]:
        for number in range(3):
            made.append(number)
            yield number

    for number in beside.ahead(values(), lambda number: number != 1):
        if number == 1:
            assert made == [0, 1]
    assert made == [0, 1, 2]


def test_an_error_comes_where_its_value_would_and_the_thread_ends() -> None:
    def values() -> Generator[int]:
        yield 1
        raise InputError("d2.png: not an image")

    with closing(beside.ahead(values())) as numbers:
        assert next(numbers) == 1
        with pytest.raises(InputError, match="not an image"):
            next(numbers)
    assert not threads()


def test_what_stops_the_caller_ends_the_thread_and_closes_the_values() -> None:
    closed = []

    def values() -> Generator[int]:
        try:
            yield from range(5)
        finally:
            closed.append(True)

    def interrupted() -> None:
        with closing(beside.ahead(values())) as numbers:
            for _ in numbers:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert closed == [True]
    assert not threads()


@pytest.mark.parametrize("cached", [False, True])
def test_blocks_prepared_beside_computing_give_the_same_rows(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr(prepared, "BLOCK", 7)
    encoder, corpus = load_encoder(str(tiny_model), cached=cached), load_dataset(tiny_dataset).corpus
    on_threads: set[str] = set()
    texts = encoder.preparer._texts

    def noted(items: Sequence[Item], *rest: Any) -> list[prepared.Prepared]:
        on_threads.add(threading.current_thread().name.partition("_")[0])
        return texts(items, *rest)

    monkeypatch.setattr("embedtune.models.prepare.KEPT_TEXTS", prepared.Kept(2**20))  # other tests prepare these too
    monkeypatch.setattr(encoder.preparer, "_texts", noted)
    reported: list[tuple[int, int]] = []
    rows = np.array(encoder.encode(corpus, "document", on_progress=lambda *numbers: reported.append(numbers)))
    assert on_threads == {"MainThread", "ahead"}  # the first block has none before it
    assert reported == sorted(reported)
    assert reported[-1] == (len(corpus), len(corpus))
    monkeypatch.setattr(beside, "has_room", lambda: False)
    monkeypatch.setattr(prepared, "BLOCK", 4096)
    alone = load_encoder(str(tiny_model), cached=False).encode(corpus, "document")
    np.testing.assert_allclose(rows, alone, atol=1e-6)
