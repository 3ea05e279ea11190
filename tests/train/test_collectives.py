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
from embedtune.train.run import train
from embedtune.train.step import embed, generator_state, restored

SCRIPT = """
import datetime, sys, time
from pathlib import Path
import torch
from accelerate import Accelerator
from torch.distributed.distributed_c10d import _set_pg_timeout
from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.train import validation
from embedtune import distributed
from embedtune.train.log import Log
from embedtune.train.step import agree_on_state, average_gradients

model, data, folder = sys.argv[1:]
accelerator = Accelerator(cpu=True)
_set_pg_timeout(datetime.timedelta(seconds=4))  # once they are connected, which takes longer on a busy machine
rank = accelerator.process_index

state = torch.nn.Module()
state.register_buffer("centroids", torch.full((3,), float(rank)))
state.register_buffer("position", torch.tensor(7))
state.register_buffer("unstarted", torch.empty(0, 0))
state.scale = torch.nn.Parameter(torch.tensor(2.0 + rank))
state.scale.grad = torch.tensor(4.0 * rank)
average_gradients(state, accelerator)
assert state.scale.grad == 2.0
assert sorted(agree_on_state(state.state_dict(), accelerator)) == ["centroids", "scale"]
assert (state.centroids.tolist(), state.position.item(), state.scale.item()) == ([0.0] * 3, 7, 2.0)
assert agree_on_state(state.state_dict(), accelerator) == []

def decide():
    assert rank == 0
    time.sleep(5)  # longer than a collective waits
    raise InputError("this folder holds a dataset")

def refused(ask):
    try:
        ask()
    except InputError as error:
        return str(error)
    raise AssertionError("not refused")

assert distributed.from_first(lambda: {"rank": rank, "lost": 0.1 + 0.2}) == {"rank": 0, "lost": 0.1 + 0.2}
assert refused(lambda: distributed.from_first(decide)) == "this folder holds a dataset"
distributed.refuse_together(None)
assert refused(lambda: distributed.refuse_together("no room" if rank else None)) == "no room"
before = time.monotonic()
time.sleep(5 * rank)
distributed.meet()
assert time.monotonic() - before >= 5

rank_documents = validation.evaluate

def slowly(*arguments, **keywords):
    time.sleep(5)  # longer than a collective waits
    return rank_documents(*arguments, **keywords)

validation.evaluate = slowly
encoder, dataset = load_encoder(model, cached=False), load_dataset(data, "train")
measure = validation.Validator(encoder=encoder, dataset=dataset, measure="nDCG@10", accelerator=accelerator,
                               folder=Path(folder), log=Log(Path(folder, "log.jsonl"), accelerator, None),
                               keep=False)
value = measure()
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


UNLIKE = """
import os, sys
from pathlib import Path
from embedtune.errors import InputError
from embedtune.recipe import check_recipe
from embedtune.train import folder
from embedtune.train.run import train

output, *sets = sys.argv[1:]
model, data, runs, seed = (values.split("|")[int(os.environ["RANK"])] for values in sets)
folder.SEEN_WITHIN = 0.5
recipe = {"version": 1, "model": {"name": model}, "data": {"train": data},
          "train": {"batch_size": 8, "max_steps": 1, "seed": int(seed)}}
try:
    train(check_recipe(recipe), Path(output, runs))
except InputError as error:
    Path(output, "refused-" + os.environ["RANK"]).write_text(str(error))
"""


@pytest.mark.parametrize(
    ("folders", "seeds", "copies", "line"),
    [
        ("run|other", "0|0", False, "does not see the run that the first process began there; every machine of a run"),
        ("run|run", "0|1", False, "has another train.seed than the first process: 1, and not 0; every process"),
        ("run|run", "0|0", True, "has another training data than the first process: "),
    ],
    ids=["folders", "seeds", "data"],
)
def test_processes_that_do_not_share_what_they_read_end_in_one_line(
    folders: str, seeds: str, copies: bool, line: str, tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    script = tmp_path / "unlike.py"
    script.write_text(UNLIKE)
    other = write_dataset(tmp_path / "data", seed=1) if copies else tiny_dataset
    launch(2, script, tmp_path, f"{tiny_model}|{tiny_model}", f"{tiny_dataset}|{other}", folders, seeds)
    refusals = [(tmp_path / f"refused-{rank}").read_text() for rank in (0, 1)]
    assert refusals[0] == refusals[1]
    assert line in refusals[0]
    assert "process 1 on " in refusals[0]
    assert not [path for path in tmp_path.glob("run/*") if not path.name.startswith(".")]  # nothing half-written


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
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism of accelerate's own"),
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
