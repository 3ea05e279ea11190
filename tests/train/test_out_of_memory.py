"""Training goes on where memory runs out, with the gradient that it has without. Torch's error is injected."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from batch_gradients import gradients, relative_error
from torch import Tensor

from embedtune.errors import InputError
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.prepared import Prepared
from embedtune.recipe import check_recipe
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.run import train

Fails = Callable[[Sequence[Prepared], bool], bool]
"""Whether the memory runs out for a chunk; and whether its graph is recorded."""


def tokens(chunk: Sequence[Prepared]) -> int:
    return len(chunk) * max(item.length for item in chunk)


def no_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def forward_fails(monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    forward = Encoder.forward

    def forward_or_not(self: Encoder, chunk: Sequence[Prepared], role: Any) -> Tensor:
        if fails(chunk, torch.is_grad_enabled()):
            no_memory()
        return forward(self, chunk, role)

    monkeypatch.setattr(Encoder, "forward", forward_or_not)


def backward_fails(monkeypatch: pytest.MonkeyPatch, fails: Fails, layer: int = 0) -> list[int]:
    """Memory runs out within the backward pass, when it reaches the output of a layer: later layers have their gradient
    by then. Returns the tokens of the chunks for which it did."""
    forward, failed = Encoder.forward, []

    def forward_then_fail(self: Encoder, chunk: Sequence[Prepared], role: Any) -> Tensor:
        def at_output(module: Any, arguments: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.requires_grad and fails(chunk, True):
                hidden.register_hook(run_out)

        def run_out(gradient: Tensor) -> None:
            failed.append(tokens(chunk))
            no_memory()

        hook = self.model[0].auto_model.encoder.layer[layer].register_forward_hook(at_output)
        try:
            return forward(self, chunk, role)
        finally:
            hook.remove()

    monkeypatch.setattr(Encoder, "forward", forward_then_fail)
    return failed


def encoder_of(model: Path, *, dropout: bool = False) -> Encoder:
    encoder = load_encoder(str(model))
    if not dropout:
        switch_off_dropout(encoder.model)
    return encoder


def test_the_first_pass_is_repeated_in_smaller_chunks(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_loss, expected = gradients(encoder_of(tiny_model), tiny_dataset, 16, tokens_per_chunk=256)
    encoder = encoder_of(tiny_model)
    forward_fails(monkeypatch, lambda chunk, graph: tokens(chunk) > 100)
    loss, found = gradients(encoder, tiny_dataset, 16, tokens_per_chunk=256)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert relative_error(found, expected) < 1e-5
    assert encoder.chunk_tokens.bound is not None
    assert encoder.chunk_tokens.bound <= 128


def test_after_the_first_pass_dropout_draws_what_smaller_chunks_draw(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(tiny_model, dropout=True)
    with monkeypatch.context() as injected:
        first = []
        forward_fails(injected, lambda chunk, graph: not first and first.append(tokens(chunk)) is None)
        _, found = gradients(encoder, tiny_dataset, 16, tokens_per_chunk=256)
    small = encoder_of(tiny_model, dropout=True)
    assert encoder.chunk_tokens.bound is not None
    _, expected = gradients(small, tiny_dataset, 16, tokens_per_chunk=encoder.chunk_tokens.bound)
    assert torch.equal(found, expected)


def test_a_second_pass_that_runs_out_in_the_forward_goes_on_in_halves(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = gradients(encoder_of(tiny_model), tiny_dataset, 16, tokens_per_chunk=256)
    encoder = encoder_of(tiny_model)
    forward_fails(monkeypatch, lambda chunk, graph: graph and tokens(chunk) > 70)
    _, found = gradients(encoder, tiny_dataset, 16, tokens_per_chunk=256)
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("chunk_size", [16, None])
@pytest.mark.parametrize("layer", [0, 1])
def test_no_weight_gets_a_gradient_twice_where_memory_runs_out_in_the_middle_of_the_backward_pass(
    tiny_model: Path, tiny_dataset: Path, chunk_size: int | None, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = gradients(encoder_of(tiny_model), tiny_dataset, chunk_size, tokens_per_chunk=256)
    encoder = encoder_of(tiny_model)
    failed = backward_fails(monkeypatch, lambda chunk, graph: tokens(chunk) > 70, layer)
    _, found = gradients(encoder, tiny_dataset, chunk_size, tokens_per_chunk=256)
    assert failed
    assert encoder.chunk_tokens.whole_graphs is (chunk_size is not None)
    assert relative_error(found, expected) < 1e-5


def test_with_dropout_the_second_pass_keeps_its_masks_and_its_activations_in_the_hosts_memory(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = gradients(encoder_of(tiny_model, dropout=True), tiny_dataset, 16, tokens_per_chunk=256)
    encoder = encoder_of(tiny_model, dropout=True)
    failed: list[int] = []
    packed = torch.autograd.graph.save_on_cpu
    offloaded = []
    monkeypatch.setattr(torch.autograd.graph, "save_on_cpu", lambda: offloaded.append(True) or packed())

    def fails(chunk: Sequence[Prepared], graph: bool) -> bool:
        return not offloaded

    failed = backward_fails(monkeypatch, fails)
    _, found = gradients(encoder, tiny_dataset, 16, tokens_per_chunk=256)
    assert torch.equal(found, expected)
    assert len(failed) == len(offloaded) == 1
    assert encoder.chunk_tokens.bound == failed[0] // 2


def test_without_chunk_size_gradient_caching_takes_over(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected_loss, expected = gradients(encoder_of(tiny_model), tiny_dataset, None, tokens_per_chunk=64)
    encoder = encoder_of(tiny_model)
    graphs: list[bool] = []

    def last_graph(chunk: Sequence[Prepared], graph: bool) -> bool:
        graphs.append(graph)
        return len(graphs) == 5

    forward_fails(monkeypatch, last_graph)
    loss, found = gradients(encoder, tiny_dataset, None, tokens_per_chunk=64)
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert relative_error(found, expected) < 1e-5
    assert not all(graphs)
    assert "gradient caching from here on" in caplog.text
    assert len(caplog.records) == 1
    assert (encoder.chunk_tokens.whole_graphs, encoder.chunk_tokens.bound) == (False, None)


def test_an_item_that_does_not_fit_alone_ends_the_run_in_one_line(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward_fails(monkeypatch, lambda chunk, graph: graph)
    with pytest.raises(InputError, match=r"does not hold a single item of \d+ tokens; lower model.max_length"):
        gradients(encoder_of(tiny_model), tiny_dataset, 16, tokens_per_chunk=256)


def test_a_run_keeps_what_it_found_and_its_weights_are_those_of_smaller_chunks(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(**model: Any) -> Any:
        return check_recipe(
            {
                "version": 1,
                "model": {"name": str(tiny_model), **model},
                "data": {"train": str(tiny_dataset)},
                "train": {"batch_size": 8, "chunk_size": 8, "max_steps": 3, "checkpoint_every": 1, "precision": "fp32"},
            }
        )

    with monkeypatch.context() as injected:
        forward_fails(injected, lambda chunk, graph: tokens(chunk) > 40)
        train(recipe(chunk_tokens=64), tmp_path / "run")
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (memory,) = [event for event in events if event["event"] == "memory"]
    assert memory["whole_graphs"] is True
    state = json.loads((tmp_path / "run/checkpoints/step-000003/state.json").read_text())
    assert state["chunk_tokens"] == memory["chunk_tokens"]
    train(recipe(chunk_tokens=memory["chunk_tokens"]), tmp_path / "small")
    names = [tmp_path / name / "model" / "model.safetensors" for name in ("run", "small")]
    assert names[0].read_bytes() == names[1].read_bytes()
