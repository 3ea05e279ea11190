"""Weights laid out once: the same bits as at every call, and no weight is taken for what it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from embedtune.models import packing
from embedtune.models.encoder import load_encoder
from embedtune.models.packing import PackedWeights
from embedtune.types import Item


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The weights that are packed, in order."""
    found: list[torch.Tensor] = []
    pack = torch.ops.mkldnn._reorder_linear_weight

    def counting(weight: torch.Tensor, rows: int) -> torch.Tensor:
        found.append(weight)
        return pack(weight, rows)  # type: ignore[no-any-return]

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", counting)
    return found


@pytest.mark.skipif(not packing._has_bf16_in_onednn, reason="no bf16 in oneDNN here")
@pytest.mark.parametrize("biased", [True, False])
def test_the_result_is_the_same_bits(biased: bool, counted: list[torch.Tensor]) -> None:
    layer, values = torch.nn.Linear(48, 80, bias=biased), torch.randn(3, 50, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = layer(values)
        with PackedWeights():
            found = [layer(values) for _ in range(3)]
    assert all(torch.equal(one, expected) and one.dtype == torch.bfloat16 for one in found)
    assert len(counted) == 1  # the second time; the third has it


@pytest.mark.skipif(not packing._has_bf16_in_onednn, reason="no bf16 in oneDNN here")
def test_a_weight_that_changed_is_packed_anew(counted: list[torch.Tensor]) -> None:
    layer, values = torch.nn.Linear(16, 16), torch.randn(20, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), PackedWeights():
        for _ in range(3):
            layer(values)
        layer.weight.mul_(2)
        found = [layer(values) for _ in range(3)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # of its own, that has no weights from before
        expected = layer(values)
    assert len(counted) == 2
    assert all(torch.equal(one, expected) for one in found[1:])


def test_where_a_graph_is_made_or_nothing_is_lowered_torch_does_it(counted: list[torch.Tensor]) -> None:
    layer, values = torch.nn.Linear(16, 16), torch.randn(20, 16)
    with PackedWeights():
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                assert layer(values).requires_grad
            with torch.no_grad():
                assert torch.equal(layer(values), linear(values, layer.weight, layer.bias))
    assert not counted


def test_an_encoder_packs_and_gives_what_it_gave(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(str(tiny_model), precision="bf16", cached=False)
    encoder.tokens_per_chunk = 8  # many chunks
    items = [Item(id=str(n), text=f"the old river {n} is dark") for n in range(20)]
    packed = encoder.encode(items, "document")
    monkeypatch.setattr(packing, "_fits", lambda *_: False)
    np.testing.assert_array_equal(packed, encoder.encode(items, "document"))
