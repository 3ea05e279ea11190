"""The memory that a dry run foretells, against bytes counted in real passes and against sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from embedtune.data.dataset import load_dataset
from embedtune.models.encoder import load_encoder
from embedtune.models.prepared import Prepared
from embedtune.recipe import Lora, Model, Recipe, check_recipe
from embedtune.train import footprint as module
from embedtune.train.footprint import Footprint, Growth, LiveBytes, Observed, chunks_of, counted, measure, need_of
from embedtune.train.prepare import make_trainable
from embedtune.train.step import backward, embed, training_mode


def test_live_bytes_are_those_of_tensors_that_are_held() -> None:
    with LiveBytes() as live:
        first = torch.zeros(1000)
        view = first[10:].view(-1)
        assert live.now == 4000
        second = torch.zeros(500, dtype=torch.bfloat16)
        assert (live.now, live.peak) == (5000, 5000)
        del first
        assert live.now == 5000  # the view holds its memory
        del view
        assert live.now == 1000
        second += 1
        del second
        assert (live.now, live.peak) == (0, 5000)


def test_three_passes_tell_constant_linear_and_square_apart() -> None:
    def held(count: int, tokens: int) -> float:
        return 700 + count * (30 * tokens + 2 * tokens**2)

    growth = Growth.through(held(2, 8), held(2, 16), held(4, 16), (8, 16))
    assert (growth.constant, growth.linear, growth.square) == pytest.approx((700, 30, 2))
    assert growth.of(5, 100) == pytest.approx(held(5, 100) - 700)
    images = Growth.through(900, 900, 1100, (50, 50))
    assert (images.constant, images.of(3, 50)) == pytest.approx((700, 300))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_short_passes_foretell_what_a_batch_holds(
    tiny_model: Path, tiny_dataset: Path, lora: Lora | None, precision: Any, attention: str
) -> None:
    recipe = replace(recipe_of(tiny_model, tiny_dataset), model=Model(name=str(tiny_model), lora=lora))
    model = Model(name=str(tiny_model), attention=attention)
    encoder = load_encoder(model, precision=precision, cached=False)
    make_trainable(recipe, encoder)
    training_mode(encoder.model)
    items = encoder.prepare(list(load_dataset(tiny_dataset).corpus), "document")
    trained = [p for p in encoder.model.parameters() if p.requires_grad]
    footprint = measure(encoder, items[:20], trained)
    assert footprint.gradients == sum(4 * p.numel() for p in trained)
    assert all(p.grad is None for p in trained)
    pieces = chunks_of([item.length for item in items], encoder.tokens_at_once)
    with counted(encoder.device) as held:
        with encoder.lowered_once():
            tower = embed(encoder, items, "document", chunk_size=None)
        kept = held()[0]
        backward(encoder, [tower], [torch.ones_like(tower.values)])
        most = held()[1]
    assert footprint.kept.constant + sum(footprint.kept.of(*p) for p in pieces) == pytest.approx(kept, rel=0.1)
    assert footprint.trained(pieces, cached=False) == pytest.approx(most, rel=0.1)


FOOTPRINT = Footprint(
    weights=1000,
    gradients=400,
    state=800,
    kept=Growth(50, 10, 0),
    passing=Growth(0, 1, 0),
    encoding=Growth(5, 2, 0),
)


def test_the_most_of_a_batch_is_reached_where_its_chunks_are_carried_back() -> None:
    chunks = [(2, 30), (4, 10)]  # 600 and 400 bytes of graph, 60 and 40 beside
    assert FOOTPRINT.trained(chunks, cached=False) == 50 + 400 + 600 + 60  # all graphs, and the first chunk's passing
    assert FOOTPRINT.trained(chunks, cached=True) == 50 + 400 + 400 + 40  # the second chunk beside all gradients
    assert FOOTPRINT.trained([(1, 1)], cached=True) == 50 + 400 + 1  # gradients exceed the graph


def recipe_of(model: Path | str, data: Path | str, **train: Any) -> Recipe:
    return check_recipe(
        {"version": 1, "model": {"name": str(model)}, "data": {"train": str(data)}, "train": {"batch_size": 4, **train}}
    )


def test_each_phase_needs_the_weights_that_are_held_then(monkeypatch: pytest.MonkeyPatch) -> None:
    observed = Observed(
        footprint=FOOTPRINT,
        resident=10_000,
        queries=[10],
        documents=[20],
        encoded_at_once=40,
        trained_at_once=40,
        dimension=8,
    )
    recipe = recipe_of("m", "d")
    encoded, rows = 5 + 2 * 40, 2 * 4 * 100 * 8
    pieces = [(4, 10), (2, 20), (2, 20)]
    training = FOOTPRINT.trained(pieces, cached=False) + 6 * 4 * 16
    monkeypatch.setattr(module, "device_kind", lambda: "cpu")
    beside = 10_000 + 64 * 2**20  # the C library may hold 64 MiB, and 12% of what passes hold
    for kind, expected in (
        ("training", beside + 1800 + 1.12 * training),
        ("mining", beside + 1000 + 1.12 * encoded + rows),
        ("validation", beside + 1800 + 1.12 * encoded + rows),
        ("mixing", beside + 3000 + 1.12 * encoded + rows),
        ("evaluation", beside + 1000 + 1.12 * encoded + rows),
    ):
        assert need_of(kind, recipe, observed, 100).device == pytest.approx(expected, abs=0.01), kind
    monkeypatch.setattr(module, "device_kind", lambda: "cuda")
    need = need_of("validation", recipe, observed, 100)
    assert (need.device, need.host) == (1800 + encoded, 10_000 + rows)
    chunked = recipe_of("m", "d", chunk_size=2)
    assert need_of("training", chunked, observed, 100).device == 1800 + FOOTPRINT.trained(pieces, cached=True) + 384


def test_images_of_one_size_grow_by_their_number(tiny_model: Path) -> None:
    item = Prepared(joined={"pixel_values": torch.zeros(1, 3, 8, 8)}, length=9)
    assert module._padded(item, 3, 9) == [item] * 3


def test_the_dry_run_says_the_largest_phase(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}}}\ntrain: {{batch_size: 4}}\n"
    )
    (line,) = [line for line in run_cli("train", recipe, "--dry-run").stderr.splitlines() if line[:11] == "    memory "]
    assert line.endswith("GiB of memory in a process, to train; measured on some passes")
