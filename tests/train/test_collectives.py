"""Several processes: none waits for another in a collective, none decides for itself, all hold the same state."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from conftest import write_dataset
from training_process import launch

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Model, check_recipe
from embedtune.train import prepare
from embedtune.train.log import Log
from embedtune.train.run import train
from embedtune.train.step import embed, generator_state, restored
from embedtune.train.validation import Validator

SCRIPT = """
import datetime, sys, time
from pathlib import Path
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.files import locked
from embedtune.models.encoder import load_encoder
from embedtune.train import validation
from embedtune.train.folder import decided_by_main
from embedtune.train.log import Log
from embedtune.train.step import agree_on_state, average_gradients

model, data, folder = sys.argv[1:]
patience = InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=4))
accelerator = Accelerator(cpu=True, kwargs_handlers=[patience])
rank = accelerator.process_index

state = torch.nn.Module()
state.register_buffer("centroids", torch.full((3,), float(rank)))
state.register_buffer("position", torch.tensor(7))
state.register_buffer("unstarted", torch.empty(0, 0))
state.scale = torch.nn.Parameter(torch.tensor(2.0 + rank))
state.scale.grad = torch.tensor(4.0 * rank)
average_gradients(state, accelerator)
assert state.scale.grad == 2.0
assert sorted(agree_on_state(state, accelerator)) == ["centroids", "scale"]
assert (state.centroids.tolist(), state.position.item(), state.scale.item()) == ([0.0] * 3, 7, 2.0)
assert agree_on_state(state, accelerator) == []

def decide():
    assert rank == 0
    raise InputError("this folder holds a dataset")

assert decided_by_main(accelerator, lambda: rank + 5) == 5
try:
    decided_by_main(accelerator, decide)
except InputError as error:
    assert str(error) == "this folder holds a dataset"
else:
    raise AssertionError("not refused")

rank_documents = validation.evaluate

def slowly(*arguments, **keywords):
    time.sleep(6)  # longer than a collective waits
    return rank_documents(*arguments, **keywords)

validation.evaluate = slowly
encoder, dataset = load_encoder(model, cached=False), load_dataset(data, "train")
measure = validation.Validator(encoder=encoder, dataset=dataset, measure="nDCG@10", accelerator=accelerator,
                               folder=Path(folder), log=Log(Path(folder, "log.jsonl"), accelerator, None),
                               keep=False)
if rank == 0:
    with locked(Path(folder)):
        accelerator.wait_for_everyone()  # as in a run, which is locked before anything is validated
        value = measure()
        accelerator.wait_for_everyone()
else:
    accelerator.wait_for_everyone()
    value = measure()
    accelerator.wait_for_everyone()
Path(folder, f"value-{rank}").write_text(repr(value))
accelerator.end_training()
"""


def test_two_processes_agree_and_none_waits_in_a_collective(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    script = tmp_path / "agree.py"
    script.write_text(SCRIPT)
    launch(2, script, tiny_model, tiny_dataset, tmp_path)
    values = [(tmp_path / f"value-{rank}").read_text() for rank in (0, 1)]
    assert values[0] == values[1]
    assert 0 < float(values[0]) <= 1


def test_a_process_does_not_wait_for_one_that_has_ended(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    second: Any = SimpleNamespace(num_processes=2, is_main_process=False, is_local_main_process=False)
    dataset = load_dataset(tiny_dataset, "train")
    validator = Validator(
        encoder=load_encoder(str(tiny_model)),
        dataset=dataset,
        measure="nDCG@10",
        accelerator=second,
        folder=tmp_path,
        log=Log(tmp_path / "log.jsonl", second, None),
        keep=True,
    )
    with pytest.raises(InputError, match="the first process has ended while it was to validate; see its error"):
        validator()


def test_an_empty_shard_has_the_type_of_the_others(image_models: dict[str, Path], pictures: Path) -> None:
    encoder = load_encoder(Model(name=str(image_models["clip"])), precision="bf16")
    items = encoder.prepare(list(load_dataset(pictures).corpus)[:2], "document")
    assert encoder.forward(items, "document").dtype == torch.bfloat16  # so a shard with items could gather this
    for chunk_size in (None, 1):
        tower, empty = (embed(encoder, some, "document", chunk_size=chunk_size) for some in (items, []))
        assert tower.values.dtype == empty.values.dtype == torch.float32
        assert tower.values.shape[1] == empty.values.shape[1]


def recipe_of(model: Path, data: Path) -> Any:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data)},
            "train": {"batch_size": 8, "max_steps": 1},
        }
    )


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
    ],
)
def test_a_launch_that_is_not_supported_is_refused(
    variable: str, kind: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(InputError, match=rf"^launched as {kind}: training runs in one process, or"):
        train(recipe_of(tiny_model, tiny_dataset), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_distributed_type_that_is_not_supported_is_refused(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SimpleNamespace(distributed_type=DistributedType.XLA, num_processes=1)
    monkeypatch.setattr(prepare, "Accelerator", lambda **settings: made)
    with pytest.raises(InputError, match=r"^launched as XLA: "):
        train(recipe_of(tiny_model, tiny_dataset), tmp_path / "run")


@pytest.mark.parametrize("kind", ["mps", "cuda"])
def test_dropout_of_another_device_is_restored_in_the_second_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generators = {"state": torch.tensor([1])}
    arguments: list[tuple[Any, ...]] = []

    def get_rng_state(*where: Any) -> torch.Tensor:
        arguments.append(where)
        return generators["state"]

    def set_rng_state(state: torch.Tensor, *where: Any) -> None:
        arguments.append(where)
        generators["state"] = state

    module = SimpleNamespace(get_rng_state=get_rng_state, set_rng_state=set_rng_state)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    device = torch.device(kind)
    before = generator_state(device)
    generators["state"] = torch.tensor([2])  # the first pass went on
    with restored(before, device):
        assert generators["state"].item() == 1
        generators["state"] = torch.tensor([3])
    assert generators["state"].item() == 2
    assert set(arguments) == {() if kind == "mps" else (device,)}


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_and_is_refused_as_one(tiny_model: Path, tmp_path: Path) -> None:
    """The first process decides for both; a refusal ends both at once instead of leaving one in a collective."""
    data = write_dataset(tmp_path / "data")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {data}, validation: 0.3}}\n"
        "train: {batch_size: 5, epochs: 2, precision: fp32, checkpoint_every: 2}\n"
    )
    output = tmp_path / "run"
    launch(2, "-m", "embedtune_cli", "train", recipe, "--output", output)
    steps = sorted(path.name for path in (output / "checkpoints").iterdir())
    (output / "summary.json").unlink()
    launch(2, "-m", "embedtune_cli", "train", recipe, "--output", output, "--resume")
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == steps
    with pytest.raises(AssertionError, match="exists already; go on with --resume"):
        launch(2, "-m", "embedtune_cli", "train", recipe, "--output", output)
