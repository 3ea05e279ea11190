"""Gradient caching is exact: chunks and one graph give the same gradient, with dropout too (methods.md D1's checks)."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from batch_gradients import gradients, recipe_for, relative_error

from embedtune.data.dataset import load_dataset
from embedtune.models import adapters, cpu
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Chosen, Lora, Model, Recipe
from embedtune.train.objective import Objective
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.step import (
    backward,
    embed,
    fetched,
    training_mode,
    without_negligible,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_chunks_give_the_gradient_of_one_piece(
    tiny_model: Path, tiny_dataset: Path, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(tiny_model))
    encoder.model.to(dtype)
    if dtype == torch.float64:  # the loss is computed in float32 on purpose; here the arithmetic itself is checked
        monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    switch_off_dropout(encoder.model)
    whole_loss, whole = gradients(encoder, tiny_dataset, None, tokens_per_chunk=10**9)
    for chunk_size in (1, 3, 16):
        loss, chunked = gradients(encoder, tiny_dataset, chunk_size)
        assert loss == pytest.approx(whole_loss, abs=1e-6)
        assert relative_error(chunked, whole) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_real_model_at_batch_128_in_chunks_of_16(
    minilm: Path, shared: Path, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(Model(name=str(minilm), max_length=128))
    encoder.model.to(dtype)
    if dtype == torch.float64:
        monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    switch_off_dropout(encoder.model)
    whole_loss, whole = gradients(encoder, shared / "scifact", None, batch_size=128, tokens_per_chunk=10**9)
    loss, chunked = gradients(encoder, shared / "scifact", 16, batch_size=128, tokens_per_chunk=2048)
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    assert relative_error(chunked, whole) < tolerance


def test_selective_backward_leaves_out_what_hardly_counts(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    switch_off_dropout(encoder.model)
    _, whole = gradients(encoder, tiny_dataset, 4)
    errors = []
    for keep in (0.999999, 0.9, 0.5):
        _, some = gradients(encoder, tiny_dataset, 4, keep=keep)
        errors.append(relative_error(some, whole))
    assert errors[0] < 1e-3
    assert errors[0] < errors[1] < errors[2]


def test_the_kept_items_hold_most_for_each_token(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    items = encoder.prepare(list(load_dataset(tiny_dataset).corpus)[:5], "document")
    items = [replace(item, length=length) for item, length in zip(items, (10, 10, 10, 10, 40), strict=True)]
    towers = [embed(encoder, items[:3], "query", chunk_size=2), embed(encoder, items[3:], "document", chunk_size=2)]
    sizes = torch.tensor([1.0, 3.0, 0.0, 0.5, 4.0])  # squared: 1, 9, 0, .25, 16; a token: .1, .9, 0, .025, .4
    rows = torch.eye(encoder.dimension)[:5] * sizes[:, None]
    for keep, expected, skipped in (
        (0.3, [[1], []], 70 / 80),
        (0.95, [[1], [1]], 30 / 80),
        (0.97, [[0, 1], [1]], 0.25),
    ):
        kept, left_out = without_negligible(encoder, towers, [rows[:3], rows[3:]], keep, 2)
        assert [sorted(row for piece in tower.pieces for row in piece.rows) for tower in kept] == expected
        assert left_out == pytest.approx(skipped)


def test_dropout_draws_the_same_masks_in_the_second_pass(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    one_loss, one_graph = gradients(encoder, tiny_dataset, None, tokens_per_chunk=64)
    loss, chunked = gradients(encoder, tiny_dataset, 10**6, tokens_per_chunk=64)  # the same chunks, computed twice
    assert loss == pytest.approx(one_loss, abs=1e-6)
    assert relative_error(chunked, one_graph) < 1e-5
    switch_off_dropout(encoder.model)
    _, without = gradients(encoder, tiny_dataset, None)
    assert relative_error(without, one_graph) > 1e-2  # dropout was on: the test could have failed


def test_lora_with_dropout_in_chunks(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    torch.manual_seed(0)
    adapters.attach(encoder.model, Lora(rank=4, dropout=0.2), "base")
    with torch.no_grad():
        for name, parameter in encoder.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    switch_off_dropout(encoder.model)  # leaves the adapter's own on
    _, one_graph = gradients(encoder, tiny_dataset, None, tokens_per_chunk=64)
    _, chunked = gradients(encoder, tiny_dataset, 10**6, tokens_per_chunk=64)
    assert relative_error(chunked, one_graph) < 1e-5
    training_mode(encoder.model)
    torch.manual_seed(4)
    first = encoder.forward(encoder.prepare(list(load_dataset(tiny_dataset).corpus)[:4], "document"), "document")
    second = encoder.forward(encoder.prepare(list(load_dataset(tiny_dataset).corpus)[:4], "document"), "document")
    assert not torch.equal(first, second)


def test_plain_accumulation_is_something_else(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    switch_off_dropout(encoder.model)
    _, whole = gradients(encoder, tiny_dataset, None)
    _, small = gradients(encoder, tiny_dataset, None, batch_size=4)
    assert relative_error(small, whole) > 0.1


def test_a_piece_without_a_role_in_the_loss_has_no_gradient(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    encoder.model.zero_grad()
    items = encoder.prepare(list(load_dataset(tiny_dataset).corpus)[:3], "document")
    tower = embed(encoder, items, "document", chunk_size=1)
    assert tower.values.requires_grad
    assert all(piece.output is None for piece in tower.pieces)  # no graph is kept
    backward(encoder, [tower], [torch.zeros_like(tower.values)])
    assert all(p.grad is None or not p.grad.any() for p in encoder.model.parameters())
    empty = embed(encoder, [], "document", chunk_size=1)
    assert empty.values.shape == (0, encoder.dimension)


def test_learned_temperature_gets_a_gradient(tiny_model: Path, tiny_dataset: Path) -> None:
    objective = Objective.of(
        Recipe(
            version=1,
            model=recipe_for(tiny_dataset).model,
            data=recipe_for(tiny_dataset).data,
            loss=[Chosen(name="infonce", options={"learn_temperature": True})],
        )
    )
    assert [name for name, _ in objective.modules.named_parameters()] == ["loss-0.log_scale"]


def test_what_a_step_says_is_fetched_at_once_and_whole() -> None:
    values = {"a": torch.tensor(0.1), "b": 2, "c": torch.tensor(3), "d": torch.tensor([0.1], dtype=torch.float64)}
    assert fetched(values) == {"a": float(torch.tensor(0.1)), "b": 2.0, "c": 3.0, "d": 0.1}
    assert fetched({}) == {}


def test_memory_is_given_back_between_chunks_where_it_has_grown(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, given = [cpu.GROWTH], []
    monkeypatch.setattr(cpu, "resident", lambda: now[-1])
    monkeypatch.setattr(cpu, "give_back", lambda: given.append(now[-1]))
    monkeypatch.setattr(cpu._memory, "level", None)
    encoder = load_encoder(str(tiny_model))
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]  # from loading on
    gradients(encoder, tiny_dataset, 2)
    assert not given
    now.append(2 * cpu.GROWTH + 1)
    gradients(encoder, tiny_dataset, None)
    assert not given  # there is nothing between
    gradients(encoder, tiny_dataset, 2)
    assert given == [now[-1]]  # once: then that is what is needed
    now.append(3 * cpu.GROWTH + 2)
    gradients(encoder, tiny_dataset, 2)
    assert given == now[1:]
