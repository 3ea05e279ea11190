"""Processes that want the same embeddings share the work; a killed one's part is done by the others."""

from __future__ import annotations

import os
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
from embedtune.models.shared import MARKS, Block, SharedRows, create
from embedtune.types import Item


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
        yield Block(start, stop, lambda _, n=stop - start: np.full((n, shape[1]), value, np.float32))


def test_what_was_done_in_other_blocks_is_done_again(tmp_path: Path) -> None:
    create(tmp_path / "rows", (10, 2))
    rows = SharedRows(tmp_path / "rows")

    def stopped() -> Iterator[Block]:
        yield from list(blocks_of((10, 2), 4, 1.0))[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.fill(stopped)
    rows.close()
    assert len((tmp_path / "rows" / MARKS).read_bytes()) == 2 * 16
    again = SharedRows(tmp_path / "rows")
    again.fill(partial(blocks_of, (10, 2), 4, 2.0))
    expected = [1] * 8 + [2] * 2
    np.testing.assert_array_equal(np.load(tmp_path / "rows" / "embeddings.npy")[:, 0], expected)
    again.fill(partial(blocks_of, (10, 2), 5, 3.0))
    again.close()
    np.testing.assert_array_equal(np.load(tmp_path / "rows" / "embeddings.npy")[:, 1], [3] * 10)


def test_a_failing_block_is_free_for_others(tmp_path: Path) -> None:
    create(tmp_path / "rows", (4, 1))
    rows = SharedRows(tmp_path / "rows")

    def broken() -> Iterator[Block]:
        def compute(_: object) -> None:
            raise InputError("a broken image")

        yield Block(0, 4, compute)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="a broken image"):
        rows.fill(broken)
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "rows" / MARKS], check=True)
    rows.close()


def test_a_file_system_without_locks_is_named(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("fcntl.lockf", refused)
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

    def noted(items: Sequence[Item], *rest: Any) -> Any:
        sizes.append(len(items))
        return whole(items, *rest)

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
