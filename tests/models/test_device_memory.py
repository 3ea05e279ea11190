"""Encoding goes on in smaller chunks where the memory does not hold one. Torch's error is injected."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models.device_memory import ChunkTokens, attempt, is_out_of_memory
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.prepared import Prepared
from embedtune.recipe import Model

CPU = "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def padded(chunk: Sequence[Prepared]) -> int:
    return len(chunk) * max(item.length for item in chunk)


def limited(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Encoders raise the error for chunks of more tokens. The list gets the tokens of each chunk that is tried."""
    forward, tried = Encoder.forward, []

    def forward_within(self: Encoder, chunk: Sequence[Prepared], role: Any) -> torch.Tensor:
        tried.append(padded(chunk))
        if tried[-1] > most:
            raise error
        return forward(self, chunk, role)

    monkeypatch.setattr(Encoder, "forward", forward_within)
    return tried


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU)])
def test_a_chunk_that_does_not_fit_is_halved_once_and_the_embeddings_are_the_same(
    tiny_model: Path,
    tiny_dataset: Path,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    corpus = load_dataset(tiny_dataset).corpus
    expected = load_encoder(str(tiny_model), cached=False).encode(corpus, "document")
    encoder = load_encoder(Model(name=str(tiny_model), chunk_tokens=512), cached=False)
    tried = limited(monkeypatch, 256, error)
    found = encoder.encode(corpus, "document")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [tokens > 256 for tokens in tried].count(True) == 1
    assert max(tried) <= 512
    encoder.encode(corpus, "document")
    assert [tokens > 256 for tokens in tried].count(True) == 1  # what was found is kept
    assert [record.message for record in caplog.records] == [
        f"{tiny_model} on cpu: out of memory with {tried[0]} tokens at once; at most {tried[0] // 2} from here on "
        "(model.chunk_tokens, --chunk-tokens)"
    ]


def test_an_item_that_does_not_fit_alone_is_an_error_that_names_the_keys(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(tiny_model), cached=False)
    limited(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(
        InputError, match=r"on cpu: its memory does not hold a single item of \d+ tokens; lower model.m"
    ):
        encoder.encode(load_dataset(tiny_dataset).corpus, "document")


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))

    def fails() -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        attempt(fails, torch.device("cpu"))


def test_what_a_failed_call_held_is_freed() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fails() -> bool:
        large = torch.zeros(9)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    gc.disable()
    try:
        assert attempt(fails, torch.device("cpu")) is None
        assert held[0]() is None
    finally:
        gc.enable()


def test_the_number_of_tokens_is_asked_for_by_the_model_and_part_of_what_the_cache_is_keyed_by(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_encoder(str(tiny_model))
    asked = load_encoder(Model(name=str(tiny_model), chunk_tokens=100))
    assert (plain.tokens_at_once, asked.tokens_at_once) == (2048, 100)
    assert plain.fingerprint != asked.fingerprint
    assert plain.identity == asked.identity
    assert asked.with_cache().chunk_tokens is asked.chunk_tokens
    before = asked.fingerprint
    asked.chunk_tokens.bound = 50
    assert (asked.tokens_at_once, asked.fingerprint) == (50, before)


def test_a_smaller_number_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    limits, items = ChunkTokens(), [Prepared(length=8), Prepared(length=5)]
    with caplog.at_level(logging.WARNING):
        limits.halve(items, "model on cpu")
        limits.halve(items, "model on cpu")
    assert limits.bound == 8
    assert len(caplog.records) == 1
