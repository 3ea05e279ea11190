"""What a run works with, and how far it is: everything that the loop reads, and everything that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from ..data.relevance import Relevance
from ..models.encoder import Encoder
from ..recipe import Recipe
from ..types import Dataset
from .log import Log
from .momentum import Momentum
from .negatives import NegativeSource, RunNegatives
from .objective import Objective
from .plan import Plan, Position, Stages
from .stay_close import Stream
from .step import TrainingStep


@dataclass
class State:
    """How far a run is: what state.json of a checkpoint holds.

    position: the next batch. stale: validations since the best one. negatives: the file of the negatives in force.
    """

    step: int = 0
    position: Position = field(default_factory=lambda: Position(0, 0))
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    negatives: str = "mined"


@dataclass(kw_only=True)
class Training:
    """Everything that the loop works with. Only `negatives` changes while it runs.

    stream, stream_step: the unlabelled text that holds the student near the base model. momenta: slow copies of the
    weights, for memory queues. origins: the base weights that `stay_close.pull` decays towards.
    """

    recipe: Recipe
    encoder: Encoder
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
    momenta: list[Momentum] = field(default_factory=list)
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

    def use_negatives(self, name: str, step: int) -> None:
        """Mines with the weights and filters as they are, or reads what was mined at this step of this run."""
        self.negatives = self.mining.mine(name, filters=self.objective.filters, progress=step / self.plan.steps)
        if self.mining.teacher_by_pair:
            self.objective.teacher = self.mining.teacher(name)
