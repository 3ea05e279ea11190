"""Weights between a base model and a tuned one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from embedtune.errors import InputError
from embedtune.models.adapters import scale_adapter
from embedtune.models.mixing import FLOOR, mix_into, weights_of, with_floor


def model_of(value: float) -> nn.Module:
    model = nn.Linear(1, 2, bias=False)
    model.register_buffer("count", torch.tensor(int(value)))
    with torch.no_grad():
        model.weight.fill_(value)
    return model


BASE, TUNED = weights_of(model_of(1.0)), weights_of(model_of(3.0))


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 1.0), (0.25, 1.5), (1.0, 3.0)])
def test_between_base_and_tuned(alpha: float, expected: float) -> None:
    model = model_of(9.0)
    mix_into(model, BASE, TUNED, alpha)
    assert model.weight.tolist() == [[expected], [expected]]
    assert int(model.count) == 3  # whole numbers are the tuned model's


def test_fisher_weighs_each_weight() -> None:
    information = {"weight": torch.tensor([[1.0], [1.0]])}, {"weight": torch.tensor([[3.0], [1.0]])}
    model = model_of(0.0)
    mix_into(model, BASE, TUNED, 0.5, information)
    assert model.weight.tolist() == [[2.5], [2.0]]
    assert with_floor({"weight": torch.tensor([0.0, 2.0])})["weight"].tolist() == pytest.approx([FLOOR, 2 + FLOOR])


def test_ends_are_exact() -> None:
    odd = {"weight": torch.tensor([[0.1], [1e-7]]), "count": torch.tensor(0)}
    model = model_of(0.0)
    mix_into(model, odd, TUNED, 0.0)
    assert torch.equal(model.weight, odd["weight"])


def test_other_weights_are_refused() -> None:
    other = {"weight": torch.zeros(3, 1), "count": torch.tensor(0)}
    expected = r"weight is of shape \[3, 1\] in the base and of shape \[2, 1\] in the tuned model; is it the model"
    with pytest.raises(InputError, match=expected):
        mix_into(model_of(0.0), other, TUNED, 0.5)
    with pytest.raises(InputError, match=r"count is absent in the base and of shape \[\] in the tuned model"):
        mix_into(model_of(0.0), {"weight": TUNED["weight"]}, TUNED, 0.5)


def test_scaling_an_adapter_scales_what_it_adds(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    a, b = torch.randn(2, 4), torch.randn(3, 2)
    save_file({"x.lora_A.weight": a, "x.lora_B.weight": b}, adapter / "adapter_model.safetensors")
    (tmp_path / "half").mkdir()
    scale_adapter(adapter, tmp_path / "half", 0.5)
    half = load_file(tmp_path / "half" / "adapter_model.safetensors")
    torch.testing.assert_close(half["x.lora_B.weight"] @ half["x.lora_A.weight"], 0.5 * b @ a)
    assert (tmp_path / "half" / "adapter_config.json").exists()
    save_file({"classifier.weight": a}, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"not proportional to lora_B; mix the merged models"):
        scale_adapter(adapter, tmp_path / "other", 0.5)
