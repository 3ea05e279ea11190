"""What a run works with, how far it is, and how both are saved.

A checkpoint is a folder of safetensors and JSON, written whole and verified by checksum when it is read.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..data.relevance import Relevance
from ..errors import InputError
from ..files import fingerprint_of_file, inner_folder, is_leftover, write_json
from ..methods.synthesis.memory_queue import MemoryQueue
from ..models.device_memory import give_back
from ..models.encoder import Encoder
from ..models.sharded import as_shared, whole_tensors
from ..recipe import Recipe
from ..types import Dataset
from .log import Log
from .negatives import NegativeSource, RunNegatives
from .objective import Objective
from .plan import Plan, Position, Stages
from .stay_close import Stream
from .step import TrainingStep

_NAME = re.compile(r"step-(\d{6,})")


@dataclass
class State:
    """How far a run is: what state.json of a checkpoint holds.

    position: the next batch. stale: validations since the best one. negatives: the file of the negatives in force.
    chunk_tokens: how many tokens the memory was found to hold, None where it never ran out; whole_graphs: whether it
    holds a whole batch's graph. Those are of the main process; others may hold other numbers.
    """

    step: int = 0
    position: Position = field(default_factory=lambda: Position(0, 0))
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    negatives: str = "mined"
    chunk_tokens: int | None = None
    whole_graphs: bool = True


@dataclass(kw_only=True)
class Training:
    """Everything that the loop works with. Only `negatives` changes while it runs.

    encoder_weights: the encoder's trained parameters. stream, stream_step: the unlabelled text that holds the student
    near the base model. queues: memory queues with slow copies of the weights. origins: the base weights that
    `stay_close.pull` decays towards.
    """

    recipe: Recipe
    encoder: Encoder
    encoder_weights: list[nn.Parameter]
    dataset: Dataset
    plan: Plan
    stages: Stages
    relevance: Relevance
    negatives: NegativeSource
    mining: RunNegatives
    objective: Objective
    step: TrainingStep
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    folder: Path
    log: Log
    validate: Callable[[], float] | None
    validation: Dataset | None
    stop_requested: Callable[[], bool]
    stream: Stream | None = None
    stream_step: TrainingStep | None = None
    queues: list[MemoryQueue] = field(default_factory=list)
    origins: dict[nn.Parameter, torch.Tensor] = field(default_factory=dict)

    @property
    def trained(self) -> list[nn.Parameter]:
        """The trained parameters, in the optimizer's order."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def trained_names(self) -> list[str]:
        """The names of `trained`."""
        names = {parameter: name for name, parameter in self.encoder.model.named_parameters()}
        names |= {parameter: f"objective.{name}" for name, parameter in self.objective.modules.named_parameters()}
        return [names[parameter] for parameter in self.trained]

    def release(self) -> None:
        """Frees what training holds on the device: weights, gradients, the optimizer's state and the slow copies.

        Neither this nor its encoder can compute or save anything afterwards.
        """
        self.optimizer.state.clear()
        self.origins.clear()
        held: list[Tensor] = [*self.trained]
        for model in (self.encoder.model, self.objective.modules):  # of the latter, slow copies too
            held += [*model.parameters(), *model.buffers()]
        for tensor in held:
            tensor.grad = None
            tensor.data = tensor.new_empty(0)
        self.encoder.forget_lowered()
        give_back(self.encoder.device)

    def use_negatives(self, name: str, step: int) -> None:
        """Mines with the weights and filters as they are, or reads what was mined at this step of this run."""
        self.negatives = self.mining.mine(name, filters=self.objective.filters, progress=step / self.plan.steps)
        if self.mining.teacher_by_pair:
            self.objective.teacher = self.mining.teacher(name)


def path_of(run: Path, step: int) -> Path:
    """The checkpoint of a step in a run folder."""
    return run / "checkpoints" / f"step-{step:06d}"


class Damaged(InputError):
    """A checkpoint that cannot be read, or does not match its checksums."""


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Writes checkpoints/step-000200 with a safetensors file per group, state.json and checksums.json, or nothing."""
    target = path_of(folder.parent, step)
    with inner_folder(target) as temporary:
        for group, named in tensors.items():
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
            save_file(plain, temporary / f"{group}.safetensors")
        write_json(temporary / "state.json", state)
        sums = {file.name: fingerprint_of_file(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / "checksums.json", sums)
    return target


def verify(target: Path) -> None:
    """Raises Damaged where a file of the checkpoint is missing or differs from its checksum."""
    try:
        sums = json.loads((target / "checksums.json").read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if fingerprint_of_file(target / name) != expected:
                raise Damaged(f"{target.name}/{name} does not match its checksum")
    except (OSError, ValueError) as error:
        raise Damaged(f"{target.name}: {error}") from None


def read(target: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors by group, and the state. Raises Damaged for a file that cannot be read."""
    try:
        state = json.loads((target / "state.json").read_text(encoding="utf-8"))
        return {file.stem: load_file(file) for file in sorted(target.glob("*.safetensors"))}, state
    except (OSError, ValueError, SafetensorError) as error:
        raise Damaged(f"{target.name}: {error}") from None


def load(target: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """`read` after `verify`."""
    verify(target)
    return read(target)


def steps_saved(folder: Path) -> list[int]:
    """The steps that have a checkpoint, latest first."""
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(name[1]) for name in names if name), reverse=True)


def latest(folder: Path) -> Iterator[Path]:
    """The checkpoints, latest first."""
    for step in steps_saved(folder):
        yield folder / f"step-{step:06d}"


def prune(folder: Path, best_step: int | None, keep: int = 2) -> None:
    """Removes all but the last `keep` and the best."""
    for step in steps_saved(folder)[keep:]:
        if step != best_step:
            shutil.rmtree(folder / f"step-{step:06d}")


def clear_leftovers(folder: Path) -> None:
    """Removes what a killed process was still writing."""
    if folder.is_dir():
        for path in folder.iterdir():
            if not is_leftover(path.name):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_done(folder: Path) -> bool:
    """Whether the newest whole checkpoint was saved after the last step."""
    for path in latest(folder):
        try:
            verify(path)
        except Damaged:
            continue
        return bool(json.loads((path / "state.json").read_text(encoding="utf-8")).get("done"))
    return False


def save_training(t: Training, state: State, *, done: bool) -> None:
    """Saves everything that a resumed run needs, by the main process. done: no step is left to train.

    Every process must call: weights that are shared out are gathered.
    """
    names, main = t.trained_names, t.accelerator.is_main_process
    weights = whole_tensors(dict(zip(names, t.trained, strict=True)), keep=main)
    of_optimizer = whole_tensors(optimizer_tensors(t.optimizer, names), keep=main)
    if not main:
        return
    tensors: dict[str, dict[str, Tensor]] = {
        "weights": weights,
        "optimizer": of_optimizer,
        "objective": dict(t.objective.modules.state_dict()),
        "negatives": t.negatives.state(),
    }
    scaler = t.accelerator.scaler.state_dict() if t.accelerator.scaler is not None else None
    folder = t.folder / "checkpoints"
    save(folder, state.step, tensors, asdict(state) | {"scaler": scaler, "done": done})
    prune(folder, state.best_step)
    t.log.checkpoint(state.step)


def load_training(t: Training, path: Path, *, weights_only: bool = False) -> State:
    """Restores weights, optimizer, objective and negatives. Raises Damaged before anything is changed."""
    tensors, saved = read(path)
    names = t.trained_names
    missing = set(names) ^ set(tensors["weights"])
    if missing:
        raise InputError(f"{path}: trained other weights than this recipe does, first {min(missing)!r}")
    with torch.no_grad():
        for name, parameter in zip(names, t.trained, strict=True):
            parameter.copy_(as_shared(tensors["weights"][name], parameter))
    if not weights_only:
        of_optimizer = {
            f"{kind}.{name}": as_shared(tensors["optimizer"][f"{kind}.{name}"], parameter)
            for name, parameter in zip(names, t.trained, strict=True)
            for kind in ("exp_avg", "exp_avg_sq", "step")
            if f"{kind}.{name}" in tensors["optimizer"]
        }
        load_optimizer(t.optimizer, names, of_optimizer)
        t.objective.modules.load_state_dict(tensors["objective"])
        if t.accelerator.scaler is not None:
            t.accelerator.scaler.load_state_dict(saved["scaler"])
        if saved["negatives"] != State().negatives:
            t.use_negatives(saved["negatives"], saved["step"])
        t.negatives.load(tensors.get("negatives", {}))
    position = Position(**(saved.get("position") or saved["place"]))  # as older versions named it
    fields = {name: saved[name] for name in ("step", "best_step", "best_value", "stale", "negatives")}
    fields |= {name: saved[name] for name in ("chunk_tokens", "whole_graphs") if name in saved}  # not in older versions
    state = State(position=position, **fields)
    limits = t.encoder.chunk_tokens
    limits.bound, limits.whole_graphs = state.chunk_tokens, state.whole_graphs
    return state


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """AdamW's state by parameter name: `exp_avg.<name>`, `exp_avg_sq.<name>`, `step.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"{kind}.{names[i]}": tensor for i, kinds in state.items() for kind, tensor in kinds.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    number = {name: i for i, name in enumerate(names)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        if name not in number:
            raise InputError(f"checkpoint: optimizer state for {name!r}, which is not trained here")
        state.setdefault(number[name], {})[kind] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
