"""A decoder's graph holds less, with the same bits: what costs next to nothing is computed again on the way back."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model

from embedtune.models.recomputed import Again, Graph, fewer_activations, is_gated

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def decoder(kind: str, dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {**SIZES, "num_key_value_heads": 2, "use_cache": False}
    made = LlamaModel(LlamaConfig(**sizes)) if kind == "llama" else Qwen3Model(Qwen3Config(**sizes, head_dim=8))
    return made.to(dtype)


def gradients(model: torch.nn.Module, around: AbstractContextManager[None]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the trained weights' gradients."""
    tokens = torch.arange(40).view(2, 20)
    model.zero_grad()
    with around, torch.autocast("cpu", torch.bfloat16, enabled=next(model.parameters()).dtype != torch.float32):
        output = model(input_ids=tokens).last_hidden_state
    output.float().square().sum().backward()
    return output.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_same_bits_with_fewer_activations(kind: str, dtype: torch.dtype, frozen: bool) -> None:
    model = decoder(kind, dtype)
    if frozen:  # as with an adapter: what is trained stands in the middle of frozen modules
        model.requires_grad_(False)
        model.layers[0].self_attn.q_proj.requires_grad_(True)
        model.layers[1].mlp.down_proj.requires_grad_(True)
    output, whole = gradients(model, nullcontext())
    fewer_output, fewer = gradients(model, fewer_activations(model))
    assert torch.equal(output, fewer_output)
    assert whole.keys() == fewer.keys()
    assert all(torch.equal(whole[name], fewer[name]) for name in whole)
    assert all("forward" not in vars(module) for module in model.modules())


def test_what_costs_next_to_nothing_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder("llama", torch.bfloat16)
    model.requires_grad_(False)
    model.layers[0].self_attn.q_proj.requires_grad_(True)
    for layer in model.layers[1].mlp.children():
        layer.requires_grad_(True)
    kept: list[Tensor] = []
    packed = Graph.pack

    def keep(graph: Graph | None, tensor: Tensor) -> Tensor | tuple[Again, torch.Size]:
        held = tensor if graph is None else packed(graph, tensor)
        if isinstance(held, Tensor):
            kept.append(held.detach())
        return held

    def held(around: AbstractContextManager[object]) -> Counter[tuple[torch.dtype, int]]:
        kept.clear()
        with around:
            model(input_ids=torch.arange(40).view(2, 20))
        by_address = {tensor.data_ptr(): tensor for tensor in kept}
        return Counter((tensor.dtype, tensor.numel()) for tensor in by_address.values())

    before = held(torch.autograd.graph.saved_tensors_hooks(lambda tensor: keep(None, tensor), lambda tensor: tensor))
    monkeypatch.setattr(Graph, "pack", keep)
    after = held(fewer_activations(model))
    copies, gates, hidden = (torch.float32, 40 * 32), (torch.bfloat16, 40 * 96), (torch.bfloat16, 40 * 32)
    assert before[copies] >= 3
    assert after[copies] == 0
    assert after[gates] == before[gates] - 3  # the activated gate of both layers, the trained one's product
    assert after[hidden] == before[hidden] - 2  # what the norms before trained layers give


def test_what_was_changed_in_place_is_an_error() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = decoder("llama", torch.bfloat16).norm.requires_grad_(False)  # type: ignore[operator]

        def forward(self, x: Tensor) -> Tensor:
            stream = x * 2
            normed: Tensor = self.norm(stream)
            stream += 1
            return normed + stream

    model, x = Scaled(), torch.ones(1, 4, 32, dtype=torch.bfloat16, requires_grad=True)
    with fewer_activations(model):
        output = model(x)
    with pytest.raises(RuntimeError, match="was changed in place"):
        output.sum().backward()


class GatedRMSNorm(torch.nn.Module):
    """A norm with a gate, as some decoders have it. gate: (..., H), copied to float32 as x is."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        gate, whole = gate.float(), x.float()
        return (whole * torch.rsqrt(whole.square().mean(-1, keepdim=True) + 1e-6) * gate.sigmoid() * gate).to(x.dtype)


class Gated(torch.nn.Module):
    """Both inputs of the norm are parts of one product. named: the gate is given by its name."""

    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self.up, self.norm, self.down, self.named = torch.nn.Linear(8, 8), GatedRMSNorm(), torch.nn.Linear(4, 4), named

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).split(4, dim=-1)
        normed: Tensor = self.norm(value, gate=gate) if self.named else self.norm(value, gate)
        return self.down(normed)  # type: ignore[no-any-return]


@pytest.mark.parametrize("named", [False, True])
def test_a_norms_gate_is_not_taken_for_its_input(named: bool) -> None:
    torch.manual_seed(0)
    model, x = Gated(named=named), torch.randn(3, 8)
    by_way = []
    for around in (nullcontext(), fewer_activations(model)):
        model.zero_grad()
        with around, torch.autocast("cpu", torch.bfloat16):
            output = model(x)
        output.float().square().sum().backward()
        by_way.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    whole, fewer = by_way
    assert len(whole) == 4
    assert all(map(torch.equal, whole, fewer))


def test_hooks_that_stand_around_it_keep_their_effect() -> None:
    def held(inner: AbstractContextManager[None]) -> list[torch.Size]:
        shapes: list[torch.Size] = []

        def pack(tensor: Tensor) -> Tensor:
            shapes.append(tensor.shape)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), inner:
            model(input_ids=torch.arange(40).view(2, 20))
        return shapes

    model = decoder("llama", torch.float32)
    expected = held(nullcontext())
    assert expected
    assert held(fewer_activations(model)) == expected


def test_only_the_very_formula_is_taken_for_it() -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP
    from transformers.models.phi3.modeling_phi3 import Phi3MLP

    class OtherMLP(LlamaMLP):
        def forward(self, x):  # type: ignore[no-untyped-def]
            down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
            return down_proj + x

    assert is_gated(LlamaMLP.forward)
    assert not is_gated(Phi3MLP.forward)
    assert not is_gated(OtherMLP.forward)
    bert = BertModel(BertConfig(**SIZES))
    with fewer_activations(bert):
        assert all("forward" not in vars(module) for module in bert.modules())
