"""In half precision a weight is lowered once a pass, and a frozen one once a run: counted, with the same numbers."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.models import adapters
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.recipe import Lora, check_recipe
from embedtune.train.objective import Objective
from embedtune.train.plan import Plan
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.step import Tokens, TrainingStep, accumulate_gradients, embed, lay_out, training_mode

CHUNK_TOKENS = 64  # several chunks of either role


@pytest.fixture(params=["full", "lora"])
def encoder(request: pytest.FixtureRequest, tiny_model: Path) -> Encoder:
    found = load_encoder(str(tiny_model), precision="bf16")
    found.tokens_per_chunk = CHUNK_TOKENS
    switch_off_dropout(found.model)
    if request.param == "lora":
        torch.manual_seed(0)
        adapters.attach(found.model, Lora(rank=4), "base")
        with torch.no_grad():
            for name, parameter in found.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
    training_mode(found.model)
    return found


def step_of(encoder: Encoder, data: Path, chunk_size: int | None) -> tuple[float, dict[str, Tensor]]:
    """The loss and the weights' gradients of one batch."""
    dataset = load_dataset(data, "train")
    recipe = check_recipe(
        {"version": 1, "model": {"name": "x"}, "data": {"train": str(data)}, "train": {"batch_size": 16}}
    )
    step = TrainingStep(
        encoder=encoder,
        objective=Objective.of(recipe),
        tokens=(Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")),
        accelerator=Accelerator(cpu=True),
        chunk_size=chunk_size,
    )
    batch = lay_out(Plan(recipe, dataset, list(dataset.qrels)).epoch(0)[0], {}, Relevance(dataset))
    encoder.model.zero_grad()
    loss, _ = accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
    return float(loss), {n: p.grad.clone() for n, p in encoder.model.named_parameters() if p.grad is not None}


def lowered_copies(encoder: Encoder, data: Path) -> dict[str, int]:
    """How many lowered copies of each linear layer's weight the graph of all documents holds."""
    weights = {name: layer.weight for name, layer in encoder.model.named_modules() if type(layer) is nn.Linear}
    low = {name: weight.detach().bfloat16() for name, weight in weights.items() if "pooler" not in name}
    items = encoder.prepare(list(load_dataset(data).corpus), "document")
    held: list[Tensor] = []

    def keep(values: Tensor) -> Tensor:
        held.append(values.detach())  # held, so that no two have one address
        return values

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda values: values), encoder.lowered_once():
        tower = embed(encoder, items, "document", chunk_size=None)
    assert len(tower.pieces) > 2
    return {  # of the second layer: the first one's way back ends in it
        name: len({v.data_ptr() for v in held if v.dtype == copy.dtype and (_is(v, copy) or _is(v.mT, copy))})
        for name, copy in low.items()
        if "layer.1." in name
    }


def _is(values: Tensor, copy: Tensor) -> bool:
    return values.shape == copy.shape and torch.equal(values, copy)


def test_a_graph_of_many_chunks_holds_one_lowered_copy_of_each_weight(
    encoder: Encoder, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(lowered_copies(encoder, tiny_dataset).values()) == {1}
    monkeypatch.setattr(encoder, "lowered_once", nullcontext)
    assert min(lowered_copies(encoder, tiny_dataset).values()) > 2  # one for each chunk: the test can fail


def test_a_frozen_weight_is_lowered_once_a_run(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder = load_encoder(str(tiny_model), precision="bf16")
    encoder.model.requires_grad_(False)
    layer = next(m for m in encoder.model.modules() if type(m) is nn.Linear)
    encoder.encode(list(load_dataset(tiny_dataset).queries)[:2], "query")  # in inference mode
    with encoder.lowered_once():
        (entry,) = (entry for entry in encoder._lowered._low.values() if entry[0] is layer.weight)
        low = entry[2]
        assert torch.equal(low, layer.weight.bfloat16())
        assert not low.is_inference()
    with encoder.without_graph():
        assert encoder._lowered._low[id(layer.weight)][2] is low
    with torch.no_grad():
        layer.weight.mul_(2)
    with encoder.lowered_once():
        assert torch.equal(encoder._lowered._low[id(layer.weight)][2], layer.weight.bfloat16())
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_one_lowering_changes_no_bit(
    encoder: Encoder, tiny_dataset: Path, chunk_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, once = step_of(encoder, tiny_dataset, chunk_size)
    monkeypatch.setattr(encoder, "lowered_once", nullcontext)  # each chunk lowers for itself
    each_loss, each = step_of(encoder, tiny_dataset, chunk_size)
    assert loss == each_loss
    assert once.keys() == each.keys()
    assert all(gradient.dtype == torch.float32 for gradient in once.values())
    assert all(torch.equal(once[name], each[name]) for name in each)
