"""Each process computes the loss of its own queries: gradients and numbers are those of one process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import host_waits
import pytest
from safetensors.torch import load_file
from training_process import launch

from embedtune.recipe import check_recipe
from embedtune.train.objective import Objective
from embedtune.train.step import TrainingStep

SCRIPT = """
import json, sys
from pathlib import Path
from unittest import mock
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.recipe import check_recipe
from embedtune.train import sizes
from embedtune.train.objective import Objective
from embedtune.train.plan import Plan
from embedtune.train.prepare import switch_off_dropout
from embedtune.train.step import (
    Tokens, TrainingStep, accumulate_gradients, lay_out, numbers_of, sum_gradients, training_mode,
)
sys.path.insert(0, sys.argv.pop(1))
from host_waits import HostWaits

model, data, output = sys.argv[1:]
torch.Tensor.float = lambda tensor: tensor  # float64 from end to end
torch.set_default_dtype(torch.float64)
accelerator = Accelerator(cpu=True)
dataset = load_dataset(data, "train")
OBJECTIVES = {
    "infonce": {"loss": {"name": "infonce", "learn_temperature": True}},
    "several": {
        "loss": [{"name": "infonce"}, {"name": "variance", "weight": 3}, {"name": "focal_infonce", "weight": 0.5}],
        "negatives": {"filtering": {"name": "positive_ratio", "at_most": 0.99}},
        "weighting": [{"name": "hcl"}], "matryoshka": [16],
    },
}
found, numbers = {}, {}

def step_of(changes):
    recipe = check_recipe({"version": 1, "model": {"name": model}, "data": {"train": data},
                           "train": {"batch_size": 13}, **changes})
    encoder = load_encoder(model)
    encoder.model.double()
    switch_off_dropout(encoder.model)
    training_mode(encoder.model)
    objective = Objective.of(recipe)
    objective.modules.double()
    tokens = Tokens(encoder, dataset.queries, "query"), Tokens(encoder, dataset.corpus, "document")
    step = TrainingStep(encoder=encoder, objective=objective, tokens=tokens, accelerator=accelerator, chunk_size=3)
    assert step.local == (accelerator.num_processes > 1)
    return step, Plan(recipe, dataset, list(dataset.qrels)).epoch(0)[0]

def batch_of(pairs):
    return lay_out(pairs, {pairs[0].query_id: ["d55", "d56"], pairs[1].query_id: ["d57"]}, Relevance(dataset))

def take(step, batch, key):
    trained = [*step.encoder.model.parameters(), *step.objective.modules.parameters()]
    for parameter in trained:
        parameter.grad = None
    loss, parts = accumulate_gradients(step, batch, torch.Generator(), progress=0.0)
    sum_gradients(trained, accelerator)
    found[key] = torch.cat([p.grad.flatten() for p in trained if p.grad is not None])
    numbers[key] = numbers_of(step, [step.adds({"loss": loss, **parts})], {})
    assert numbers[key].pop("batches_refused", 0) == 0

for name, changes in OBJECTIVES.items():
    for count, largest in ((13, sizes.LARGEST_MATRIX), (13, 60), (2, sizes.LARGEST_MATRIX)):  # of 2 the third has none
        sizes.LARGEST_MATRIX = largest
        step, pairs = step_of(changes)
        take(step, batch_of(pairs[:count]), f"{name} {count} {largest}")

step, pairs = step_of(OBJECTIVES["infonce"])
some = batch_of(pairs[:7])
some.candidate[0::3] = False  # the first of three processes has no query with a negative
nothing = batch_of(pairs[:2])
nothing.candidate[:] = False
on_device = mock.patch("embedtune.methods.loss._pairs.at_hand", lambda values: False)
take(step, some, "some")
with on_device:
    take(step, some, "some on device")
    loss, parts = accumulate_gradients(step, nothing, torch.Generator(), progress=0.0)
    refused = numbers_of(step, [step.adds({"loss": loss, **parts})], {})["batches_refused"]
    assert refused > 0, refused
    for model in (step.encoder.model, step.objective.modules):
        model.zero_grad()
    of_model = [*step.encoder.model.parameters(), *step.encoder.model.buffers(), *step.objective.modules.parameters()]
    with HostWaits(of_model) as counted:
        loss, parts = accumulate_gradients(step, some, torch.Generator(), progress=0.0)
        numbers_of(step, [step.adds({"loss": loss, **parts})], {})
    assert len(counted.waits) == 1, counted.waits
try:
    accumulate_gradients(step, nothing, torch.Generator(), progress=0.0)
except InputError as error:
    numbers["refused"] = str(error)
Path(f"{output}-{accelerator.process_index}.json").write_text(json.dumps(numbers))
save_file(found, f"{output}-{accelerator.process_index}.safetensors")
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def test_gradients_and_numbers_are_those_of_one_process(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    script = tmp_path / "local.py"
    script.write_text(SCRIPT)
    helpers = Path(host_waits.__file__).parent
    for processes in (1, 3):
        launch(processes, script, helpers, tiny_model, tiny_dataset, tmp_path / f"of-{processes}")
    one, expected = load_file(tmp_path / "of-1-0.safetensors"), json.loads((tmp_path / "of-1-0.json").read_text())
    assert len(one) == 6 + 2
    assert expected["some"] == expected["some on device"]
    assert expected["some"]["rows_without_negatives"] == 3
    assert expected["refused"].startswith("no query of this batch of 2 has a negative left")
    assert {"loss", "variance", "dropped", "rows_without_negatives"} <= expected["several 13 60"].keys()
    assert "temperature" in expected["infonce 13 60"]
    for rank in range(3):
        gradients = load_file(tmp_path / f"of-3-{rank}.safetensors")
        numbers = json.loads((tmp_path / f"of-3-{rank}.json").read_text())
        assert numbers.pop("refused") == expected["refused"]
        for name, gradient in one.items():
            assert float((gradients[name] - gradient).norm() / gradient.norm()) < 1e-10, (rank, name)
            assert numbers[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), (rank, name)


@pytest.mark.parametrize(
    ("changes", "local"),
    [
        ({}, True),
        ({"loss": {"name": "infonce", "directions": ["query_document", "document_query"]}}, False),
        ({"loss": [{"name": "infonce"}, {"name": "ncu", "weight": 0.1}]}, False),
        ({"synthesis": ["memory_queue"]}, False),
        ({"negatives": {"filtering": "cluster"}}, False),
    ],
)
def test_what_compares_queries_or_keeps_state_is_computed_whole(changes: dict[str, Any], local: bool) -> None:
    recipe = check_recipe({"version": 1, "model": {"name": "m"}, "data": {"train": "d"}, **changes})
    accelerator: Any = SimpleNamespace(num_processes=2)
    encoder: Any = None
    step = TrainingStep(
        encoder=encoder, objective=Objective.of(recipe), tokens=(encoder, encoder), accelerator=accelerator
    )
    assert step.local == local
