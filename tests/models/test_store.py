"""Processes that want the same embeddings share the work; a killed one's part is done by the others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import encoding_process
import numpy as np
import pytest

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models import store
from embedtune.models.encoder import load_encoder
from embedtune.models.precision import resolve_device
from embedtune.models.prepared import IMAGE_IN_BLOCK
from embedtune.models.store import Block


@pytest.mark.parametrize("killed_at", [-1, 2], ids=["both live", "one is killed"])
def test_two_processes_share_the_blocks_of_one_entry(
    killed_at: int,
    tiny_model: Path,
    tiny_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("embedtune.models.prepared.BLOCK", encoding_process.BLOCK)
    encoder, corpus, notes = load_encoder(str(tiny_model)), load_dataset(tiny_dataset).corpus, tmp_path / "notes"
    notes.mkdir()
    started = [
        subprocess.Popen(
            [sys.executable, encoding_process.__file__, notes, "encode", tiny_model, tiny_dataset, "2", str(at)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for at in (-1, killed_at)
    ]
    assert [one.wait(timeout=120) for one in started] == [0, 0 if killed_at < 0 else -signal.SIGKILL]
    lines = encoding_process.noted_in(notes)
    encoded = [doc_id for line in lines for doc_id in line["ids"]]
    assert {line["pid"] for line in lines} == {one.pid for one in started}  # each did some
    assert set(encoded) == set(corpus.ids)
    twice = 0 if killed_at < 0 else encoding_process.BLOCK  # what was cut short
    assert len(encoded) == len(corpus) + twice
    key = encoder.key(corpus, "document")
    assert sorted(path.name for path in key.folder.iterdir()) == ["embeddings.npy", "manifest.json"]
    encoder.cached = False
    alone = encoder.encode(corpus, "document")
    encoder.cached = True
    monkeypatch.setattr(encoder, "prepare", None)  # all is there
    np.testing.assert_array_equal(encoder.encode(corpus, "document"), alone)


def blocks_of(shape: tuple[int, int], size: int, value: float) -> Iterator[Block]:
    for start in range(0, shape[0], size):
        stop = min(start + size, shape[0])
        rows = np.full((stop - start, shape[1]), value, np.float32)
        yield store.whole_block(start, stop, partial(np.copy, rows))


KEY = store.Key(encoder="e", role="document", items="i", count=10)


@pytest.fixture(params=[False, True], ids=["in turn", "beside"])
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("embedtune.models.beside.has_room", lambda: request.param)


def stopped_after(count: int, size: int) -> Iterator[Block]:
    yield from list(blocks_of((10, 2), size, 1.0))[:count]
    raise KeyboardInterrupt


@pytest.mark.usefixtures("own_cache")
def test_blocks_that_were_finished_are_not_computed_again() -> None:
    with pytest.raises(KeyboardInterrupt):
        store.cached(KEY, (10, 2), partial(stopped_after, 2, 4))
    assert sorted(path.name for path in (KEY.partial / "done").iterdir()) == ["0-4", "4-8"]
    rows = store.cached(KEY, (10, 2), partial(blocks_of, (10, 2), 4, 2.0))
    np.testing.assert_array_equal(rows[:, 0], [1] * 8 + [2] * 2)


@pytest.mark.usefixtures("own_cache")
def test_rows_that_were_finished_in_other_blocks_are_computed_again() -> None:
    with pytest.raises(KeyboardInterrupt):
        store.cached(KEY, (10, 2), partial(stopped_after, 2, 4))
    rows = store.cached(KEY, (10, 2), partial(blocks_of, (10, 2), 5, 3.0))
    np.testing.assert_array_equal(rows[:, 1], [3] * 10)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("removed", ["partial", "cache"])
def test_an_array_that_is_removed_meanwhile_is_begun_again(removed: str) -> None:
    removals = [KEY.partial if removed == "partial" else KEY.folder.parent]

    def blocks() -> Iterator[Block]:
        for block in blocks_of((10, 2), 4, 1.0):
            yield block
            if removals and block.start == 4:
                shutil.rmtree(removals.pop())

    np.testing.assert_array_equal(store.cached(KEY, (10, 2), blocks), np.ones((10, 2)))


@pytest.mark.usefixtures("own_cache")
def test_an_empty_set_is_whole_at_once() -> None:
    empty = store.Key(encoder="e", role="document", items="i", count=0)
    assert store.cached(empty, (0, 2), lambda: iter(())).shape == (0, 2)


@pytest.mark.usefixtures("own_cache")
def test_a_failing_block_is_free_for_others() -> None:
    def broken() -> Iterator[Block]:
        def prepare() -> None:
            raise InputError("a broken image")

        yield Block(0, 10, prepare, lambda _, on_done: lambda: np.zeros((10, 2), np.float32))

    with pytest.raises(InputError, match="a broken image"):
        store.cached(KEY, (10, 2), broken)
    code = "import filelock, sys; filelock.FileLock(sys.argv[1]).acquire(timeout=0)"
    subprocess.run([sys.executable, "-c", code, KEY.locks / "0-10"], check=True)


def test_a_file_system_without_locks_is_named(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("fcntl.flock", refused)
    encoder, corpus = load_encoder(str(tiny_model)), load_dataset(tiny_dataset).corpus
    with pytest.raises(InputError, match=r"no locks .*set EMBEDTUNE_CACHE to a folder on another"):
        encoder.encode(corpus, "document")


def test_borrowed_embeddings_are_nobody_elses_and_are_forgotten(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder, corpus = load_encoder(str(tiny_model)), load_dataset(tiny_dataset).corpus
    kept = encoder.encode(corpus, "document")
    borrowed = encoder.borrowed("a run")
    np.testing.assert_array_equal(borrowed.encode(corpus, "document"), kept)
    keys = [one.key(corpus, "document") for one in (encoder, borrowed, encoder.borrowed("another"))]
    assert len({key.folder for key in keys}) == 3
    borrowed.forget(corpus, "document")
    assert [key.folder.is_dir() for key in keys] == [True, False, False]
    store.forget(keys[0])


def test_images_are_shared_in_smaller_blocks(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))  # other tests encode these too
    monkeypatch.setattr("embedtune.models.prepared.BLOCK", 2 * IMAGE_IN_BLOCK)
    encoder, corpus = load_encoder(str(image_models["clip"])), load_dataset(pictures).corpus
    sizes: list[int] = []
    whole = encoder._encoded

    def noted(items: Sequence[Any], *rest: Any, **options: Any) -> Any:
        sizes.append(len(items))
        return whole(items, *rest, **options)

    monkeypatch.setattr(encoder, "_encoded", noted)
    cached = encoder.encode(corpus, "document")
    images = [item.image is not None for item in corpus]
    assert sum(sizes) == len(corpus)
    assert len(sizes) >= sum(images) / 2 > 1  # two images fill a block
    encoder.cached = False
    np.testing.assert_array_equal(encoder.encode(corpus, "document"), cached)


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(resolve_device()) == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = []
    for place in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(place))
        found.append(str(resolve_device()))
    assert found == ["cuda:0", "cuda:1", "cuda:0"]
