"""The CPU's own kernels and memory: torch's results, its gradients to bf16's rounding, and one switch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from embedtune.models import cpu
from embedtune.models.cpu import BackwardByProducts, PackedWeights
from embedtune.models.encoder import load_encoder
from embedtune.types import Item

SEQUENCES, HEADS, TOKENS, OTHERS, SIZE = 5, 3, 7, 9, 4


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SEQUENCES, HEADS, n, SIZE, generator=generator).bfloat16() for n in (TOKENS, OTHERS, OTHERS)]


def mask_of(kind: str) -> Tensor | None:
    """Some of the others hidden from each token; never all of them."""
    generator = torch.Generator().manual_seed(1)
    shape = {
        "for each sequence": (SEQUENCES, 1, TOKENS, OTHERS),
        "of padding": (SEQUENCES, 1, 1, OTHERS),
        "of heads": (1, HEADS, TOKENS, OTHERS),
        "shared": (TOKENS, OTHERS),
        "added": (SEQUENCES, HEADS, TOKENS, OTHERS),
    }.get(kind)
    if shape is None:
        return None
    if kind == "added":
        return torch.randn(shape, generator=generator)
    seen = torch.rand(shape, generator=generator) > 0.3
    seen[..., 0] = True
    return seen


def gradients(tensors: list[Tensor], mask: Tensor | None, scale: float | None = None) -> list[Tensor]:
    """The result of attention, and the gradients of its inputs."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    found = scaled_dot_product_attention(*leaves, attn_mask=mask, scale=scale)
    found.backward(torch.arange(found.numel()).reshape(found.shape).sin().to(found.dtype))
    return [found.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("kind", ["none", "for each sequence", "of padding", "of heads", "shared", "added"])
@pytest.mark.parametrize("heads_at_once", [1, 2, HEADS, 2 * HEADS, 100 * HEADS])
def test_gradients_are_those_of_float64(kind: str, heads_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "SCORES_AT_ONCE", heads_at_once * TOKENS * OTHERS)
    mask = mask_of(kind)
    exact_mask = mask.double() if mask is not None and mask.is_floating_point() else mask
    expected = gradients([tensor.double() for tensor in inputs()], exact_mask, scale=0.7)
    with BackwardByProducts():
        found = gradients(inputs(), mask.bfloat16() if mask is not None and kind == "added" else mask, scale=0.7)
    assert len(found) == 4
    for ours, exact in zip(found, expected, strict=True):
        assert (ours - exact).norm() < 0.01 * exact.norm()  # bf16 has 8 bits: .4% a rounding


def test_the_way_forward_is_torchs_own() -> None:
    expected = gradients(inputs(), None)[0]
    with BackwardByProducts():
        assert torch.equal(gradients(inputs(), None)[0], expected)


def test_a_token_that_sees_nothing_has_no_gradient() -> None:
    """As padding beyond a sliding window; torch's own kernel gives zeros there."""
    seen = torch.ones(SEQUENCES, 1, TOKENS, OTHERS, dtype=torch.bool)
    seen[:, :, -1] = False
    of_torch = gradients(inputs(), seen)
    with BackwardByProducts():
        found = gradients(inputs(), seen)
    for ours, theirs in zip(found, of_torch, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("options", [{"is_causal": True}, {"dropout_p": 0.5}, {"enable_gqa": True}, {}])
def test_what_it_does_not_know_is_left_to_torch(options: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("taken by products")

    monkeypatch.setattr(cpu._Attention, "apply", refuse)
    tensors = [tensor.requires_grad_() for tensor in inputs()]
    if not options:
        tensors = [tensor.float() for tensor in tensors]
    with BackwardByProducts():
        scaled_dot_product_attention(*tensors, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            scaled_dot_product_attention(*inputs())


def test_a_model_in_bf16_learns_by_it(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder takes it by itself, and the gradient of a padded chunk is torch's to bf16's rounding."""
    encoder = load_encoder(str(tiny_model), precision="bf16")
    encoder.model.eval()  # no dropout
    texts = ["the old river is dark", "music", "what is the new engine 5"]
    chunk = encoder.prepare([Item(id=text, text=text) for text in texts], "document")
    taken = []
    backward = cpu._Attention.backward

    def counted(ctx: object, *given: Tensor) -> tuple[Tensor | None, ...]:
        taken.append(given)
        return backward(ctx, *given)

    def gradient() -> Tensor:
        encoder.model.zero_grad()
        encoder.forward(chunk, "document").float().square().mul(torch.arange(3.0)[:, None]).sum().backward()
        return torch.cat([p.grad.flatten() for p in encoder.model.parameters() if p.grad is not None])

    monkeypatch.setattr(cpu._Attention, "backward", staticmethod(counted))
    ours = gradient()
    assert taken
    monkeypatch.setattr(cpu, "_attention", lambda *_, **__: None)
    torchs = gradient()
    assert (ours - torchs).norm() < 0.02 * torchs.norm()


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


@pytest.mark.skipif(not cpu.has_bf16_in_onednn, reason="no bf16 in oneDNN here")
@pytest.mark.parametrize("biased", [True, False])
def test_the_result_is_the_same_bits(biased: bool, counted: list[torch.Tensor]) -> None:
    layer, values = torch.nn.Linear(48, 80, bias=biased), torch.randn(3, 50, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = layer(values)
        with PackedWeights():
            found = [layer(values) for _ in range(3)]
    assert all(torch.equal(one, expected) and one.dtype == torch.bfloat16 for one in found)
    assert len(counted) == 1  # the second time; the third has it


@pytest.mark.skipif(not cpu.has_bf16_in_onednn, reason="no bf16 in oneDNN here")
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
    monkeypatch.setattr(cpu, "_packs", lambda *_: False)
    np.testing.assert_array_equal(packed, encoder.encode(items, "document"))


def test_memory_is_given_back_where_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    held, given = iter([100, 150, 200, 201, 120, 220, 221]), []
    monkeypatch.setattr(cpu, "GROWTH", 100)
    monkeypatch.setattr(cpu, "resident", lambda: next(held))
    monkeypatch.setattr(cpu, "give_back", lambda: given.append(1))
    steady = cpu.SteadyMemory()
    for given_until_then in (0, 0, 0, 1, 1, 1, 2):  # from 100 on, and after giving back from 120, which a chunk takes
        steady.check()
        assert len(given) == given_until_then
    assert next(held, None) is None


def test_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.give_back()  # nothing to see, on whatever C library
    if cpu._PAGES.exists():
        before, held = cpu.resident(), torch.ones(2**24)
        assert held.nbytes * 0.9 < cpu.resident() - before < held.nbytes * 1.5
    monkeypatch.setattr(cpu, "_PAGES", Path("/nowhere"))
    assert cpu.resident() == 0


def test_an_encoder_looks_after_its_memory_between_chunks(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(str(tiny_model), cached=False)
    encoder.tokens_per_chunk = 8  # many chunks
    items = [Item(id=str(n), text=f"the old river {n} is dark") for n in range(5)]
    embeddings, looks = encoder.encode(items, "document"), []
    monkeypatch.setattr(cpu.SteadyMemory, "check", lambda steady: looks.append(1) or cpu.give_back())
    np.testing.assert_array_equal(embeddings, encoder.encode(items, "document"))
    assert len(looks) == 5


def test_one_switch_turns_all_tricks_off(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(str(tiny_model), precision="bf16", cached=False)
    encoder.tokens_per_chunk = 8
    items = [Item(id=str(n), text=f"the old river {n} is dark") for n in range(20)]
    expected = encoder.encode(items, "document")
    used: list[str] = []
    modes = {"PackedWeights": PackedWeights, "BackwardByProducts": BackwardByProducts}
    for name, mode in modes.items():
        monkeypatch.setattr(cpu, name, lambda mode=mode, name=name: used.append(name) or mode())
    monkeypatch.setattr(cpu.SteadyMemory, "check", lambda _: used.append("memory"))

    def tricks() -> set[str]:
        used.clear()
        monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
        cpu.bound_kernels()
        np.testing.assert_allclose(encoder.encode(items, "document"), expected, atol=0.02)
        encoder.forward(encoder.prepare(items[:1], "document"), "document")
        return {*used, *(["kernels"] if "ONEDNN_PRIMITIVE_CACHE_CAPACITY" in os.environ else [])}

    assert tricks() == {*modes, "memory", "kernels"}
    monkeypatch.setenv("EMBEDTUNE_CPU_TRICKS", "0")
    assert tricks() == set()
