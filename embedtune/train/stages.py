"""The stages of a run: where asked, the projections of a composed model alone first, while its towers are frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..models.compose import projections
from ..models.encoder import Encoder, Prepare
from ..recipe import Recipe
from .plan import Plan
from .schedule import learning_rate


@dataclass(kw_only=True)
class Stages:
    """Which part of a model is trained at a step, and how fast.

    towers: what the frozen towers give, in the stages in which they are. later: the parameters that are trained in the
    main stage only.
    """

    recipe: Recipe
    first: int  # steps of the first stage
    steps: int  # of both
    towers: Prepare | None = None
    later: list[nn.Parameter]

    def begin(self, step: int, encoder: Encoder) -> float:
        """Puts the model as the step's stage has it, and gives the step's learning rate."""
        train, first = self.recipe.train, step < self.first
        if first or self.first > 0:
            encoder.cached_towers = self.towers if first else None
            for parameter in self.later:
                parameter.requires_grad_(not first)
        stage = train.projections_first
        start, stop = (0, self.first) if first else (self.first, self.steps)
        return learning_rate(
            step - start,
            steps=stop - start,
            peak=stage.learning_rate if first and stage is not None else train.learning_rate,
            warmup=train.warmup,
            schedule=train.schedule,
        )


def stages_of(recipe: Recipe, plan: Plan, encoder: Encoder, trained: Iterable[nn.Parameter]) -> Stages:
    """encoder: with its towers frozen, where they are in any stage. trained: its parameters that the optimizer has."""
    later: list[nn.Parameter] = []
    if plan.first:
        own = {parameter for module in projections(encoder.model) for parameter in module.parameters()}
        later = [parameter for parameter in trained if parameter not in own]
    return Stages(recipe=recipe, first=plan.first, steps=plan.steps, towers=encoder.cached_towers, later=later)
