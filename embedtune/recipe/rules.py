"""What a recipe's keys demand of each other."""

from __future__ import annotations

from .. import methods
from .schema import Guard, Negatives, Recipe


def broken_rules(recipe: Recipe) -> list[str]:
    """A sentence for each key that has no effect, or that another excludes."""
    return _without_effect(recipe) + _untaught(recipe) + _at_odds(recipe)


def _untaught(recipe: Recipe) -> list[str]:
    """Methods that go by a teacher's scores, where there is no teacher."""
    families = {
        "filtering": recipe.negatives.filtering,
        "weighting": recipe.weighting,
        "loss": recipe.loss,
    }
    return [
        f"{family}.{chosen.name}: goes by a teacher's scores; give negatives.teacher"
        for family, listed in families.items()
        for chosen in listed
        if recipe.negatives.teacher is None and "teacher" in methods.describe(family, chosen.name).spec.needs
    ]


def _without_effect(recipe: Recipe) -> list[str]:
    """Keys that would do nothing, for want of another: a silent one is a run that is not what its recipe says."""
    mines, validates = bool(recipe.negatives.mining), recipe.data.validation is not None
    lora, foreign, default = recipe.model.lora is not None, bool(recipe.evaluate.out_of_domain), Guard()
    guard = recipe.evaluate.guard or default
    compose, first = recipe.model.compose, recipe.train.projections_first
    trained = compose is not None and compose.towers == "trained"
    wants = [
        ("model.lora", recipe.model.lora is not None, compose is None or trained, "model.compose.towers: trained"),
        ("train.projections_first", first is not None, trained, "model.compose with towers: trained"),
        ("negatives.refresh", recipe.negatives.refresh is not None, mines, "negatives.mining"),
        ("negatives.replace", recipe.negatives.replace is not None, mines, "negatives.mining"),
        ("negatives.empty", recipe.negatives.empty == "refuse", mines, "negatives.mining"),
        (
            f"negatives.sampling.{recipe.negatives.sampling.name}",
            recipe.negatives.sampling.name != Negatives().sampling.name and recipe.negatives.live is None,
            mines,
            "negatives.mining",
        ),
        ("train.early_stopping", recipe.train.early_stopping is not None, validates, "data.validation"),
        ("train.validate_every", recipe.train.validate_every is not None, validates, "data.validation"),
        ("train.backward", recipe.train.backward is not None, recipe.train.chunk_size is not None, "train.chunk_size"),
        ("evaluate.guard", recipe.evaluate.guard is not None, foreign, "evaluate.out_of_domain"),
        ("evaluate.guard.alphas", guard.alphas != default.alphas, guard.interpolate, "interpolate: true"),
        ("evaluate.guard.weights", guard.weights != default.weights, guard.interpolate, "interpolate: true"),
        (
            "stay_close.pull",
            lora and recipe.stay_close.pull > 0,
            False,
            "full fine-tuning (decay an adapter instead: train.weight_decay)",
        ),
    ]
    own = mines or bool(recipe.synthesis)
    hard = "negatives of the query's own: negatives.mining, or synthesis of texts"
    wants += [
        (f"loss.{chosen.name}", "own" in methods.describe("loss", chosen.name).spec.needs, own, hard)
        for chosen in recipe.loss
    ]
    problems = [
        f"{key}: has no effect without {other}" for key, given, fulfilled, other in wants if given and not fulfilled
    ]
    dropped_out = recipe.model.dropout == "model" or (recipe.model.lora is not None and recipe.model.lora.dropout > 0)
    if recipe.train.backward is not None and dropped_out:
        problems.append("train.backward: not with dropout, whose masks belong to whole chunks (model.dropout: off)")
    if recipe.evaluate.guard is not None and compose is not None:
        problems.append("evaluate.guard: not with model.compose, which has no pretrained whole to compare with")
    if guard.interpolate and recipe.negatives.live is not None:
        problems.append("evaluate.guard.interpolate: not with negatives.live, whose model has a tower for each role")
    return problems


def _at_odds(recipe: Recipe) -> list[str]:
    """Keys that exclude each other."""
    negatives, given = recipe.negatives, []
    asked, precisions = recipe.model.attention, {"train": recipe.train.precision, "evaluate": recipe.evaluate.precision}
    given += [
        f"model.attention: {asked} computes in bf16 or fp16 alone; give {part}.precision: bf16"
        for part, precision in precisions.items()
        if asked is not None and "flash" in asked and precision == "fp32"
    ]
    if negatives.replace is not None and negatives.refresh is not None:
        given.append("negatives.replace: not with negatives.refresh: its candidates stay what they were at first")
    if negatives.live is not None:
        others = {
            "negatives.mining": bool(negatives.mining),
            "negatives.sampling": negatives.sampling != Negatives().sampling,
            "negatives.teacher": negatives.teacher is not None,
            "synthesis": any(methods.describe("synthesis", c.name).spec.kind == "texts" for c in recipe.synthesis),
        }
        reason = "its documents are what each query finds, embedded before training"
        given += [f"negatives.live: not with {key}: {reason}" for key, there in others.items() if there]
    return given
