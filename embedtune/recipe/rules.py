"""What a recipe's keys demand of each other. A key without effect is refused: the run would not be what it says."""

from __future__ import annotations

from .. import methods
from .schema import Guard, Negatives, Recipe, StayClose

_WANTS = {
    "own": "negatives of the query's own: negatives.mining, negatives.live or synthesis",
    "filter": "a filter: negatives.filtering",
    "made": "made negatives: synthesis",
}


def broken_rules(recipe: Recipe) -> list[str]:
    """A sentence for each key that has no effect, or that another excludes."""
    inner = [
        f"negatives.mining: {chosen.name}: {key}: {sentence}"
        for chosen in recipe.negatives.inner_miners()
        for key, sentence in methods.check("mining", chosen.name, chosen.options)
    ]
    return inner or [*_method_needs(recipe), *_without_effect(recipe), *_at_odds(recipe), *_numbers(recipe)]


def _method_needs(recipe: Recipe) -> list[str]:
    """Methods that do not work, or do nothing, without something that the recipe does not give."""
    negatives, synthesis = recipe.negatives, recipe.synthesis
    present = {
        "teacher": negatives.teacher is not None,
        "own": bool(negatives.mining or synthesis or negatives.live),
        "filter": bool(negatives.filtering),
        "made": bool(synthesis),
    }
    problems = []
    for family, chosen in recipe.chosen():
        for need in methods.needs(family, chosen.name, chosen.options):
            if need == "teacher" and not present["teacher"]:
                problems.append(f"{family}.{chosen.name}: goes by a teacher's scores; give negatives.teacher")
            elif not present.get(need, True):
                problems.append(f"{family}.{chosen.name}: has no effect without {_WANTS[need]}")
    return problems


def _without_effect(recipe: Recipe) -> list[str]:
    """Keys that would do nothing, for want of another."""
    model, train, stay, negatives = recipe.model, recipe.train, recipe.stay_close, recipe.negatives
    guard, default = recipe.evaluate.guard or Guard(), Guard()
    mines, validates, compose = bool(negatives.mining), recipe.data.validation is not None, model.compose
    trained = compose is None or compose.towers == "trained"
    towers = "model.compose.towers: trained"
    wants = [
        ("model.lora", model.lora is not None, trained, towers),
        (
            "model.dtype",
            model.dtype not in ("auto", "float32"),
            model.frozen,
            "model.lora or frozen towers; weights that are trained are float32",
        ),
        ("model.gradient_checkpointing", model.gradient_checkpointing, trained, towers),
        ("stay_close.freeze_layers", stay.freeze_layers > 0, trained, towers),
        ("stay_close.layer_decay", stay.layer_decay != StayClose().layer_decay, trained, towers),
        (
            "train.projections_first",
            train.projections_first is not None,
            compose is not None and trained,
            "model.compose with towers: trained",
        ),
        ("negatives.refresh", negatives.refresh is not None, mines, "negatives.mining"),
        ("negatives.replace", negatives.replace is not None, mines, "negatives.mining"),
        ("negatives.empty", negatives.empty == "refuse", mines, "negatives.mining"),
        (
            f"negatives.sampling.{negatives.sampling.name}",
            negatives.sampling != Negatives().sampling and negatives.live is None,
            mines,
            "negatives.mining",
        ),
        (
            "negatives.teacher",
            negatives.teacher is not None and negatives.live is None,
            mines or bool(negatives.filtering) or _reads_teacher(recipe),
            "negatives.mining, negatives.filtering, or a weighting or loss that reads its scores",
        ),
        ("train.early_stopping", train.early_stopping is not None, validates, "data.validation"),
        ("train.validate_every", train.validate_every is not None, validates, "data.validation"),
        (
            "train.selective_backward",
            train.selective_backward is not None,
            train.chunk_size is not None,
            "train.chunk_size",
        ),
        (
            "evaluate.guard",
            recipe.evaluate.guard is not None,
            bool(recipe.evaluate.out_of_domain),
            "evaluate.out_of_domain",
        ),
        ("evaluate.guard.alphas", guard.alphas != default.alphas, guard.interpolate, "interpolate: true"),
        ("evaluate.guard.weights", guard.weights != default.weights, guard.interpolate, "interpolate: true"),
        (
            "stay_close.pull",
            model.lora is not None and stay.pull > 0,
            False,
            "full fine-tuning (decay an adapter instead: train.weight_decay)",
        ),
    ]
    return [
        f"{key}: has no effect without {other}" for key, is_set, fulfilled, other in wants if is_set and not fulfilled
    ]


def _reads_teacher(recipe: Recipe) -> bool:
    """Whether a weighting or loss reads the teacher's scores."""
    chosen = [(family, one) for family, one in recipe.chosen() if family in ("weighting", "loss")]
    return any(
        methods.describe(family, one.name).spec.reads_teacher
        or "teacher" in methods.needs(family, one.name, one.options)
        for family, one in chosen
    )


def _at_odds(recipe: Recipe) -> list[str]:
    """Keys that exclude each other."""
    model, negatives, guard = recipe.model, recipe.negatives, recipe.evaluate.guard
    problems = []
    precisions = {"train": recipe.train.precision, "evaluate": recipe.evaluate.precision}
    problems += [
        f"model.attention: {model.attention} computes in bf16 or fp16 alone; give {part}.precision: bf16"
        for part, precision in precisions.items()
        if model.attention is not None and "flash" in model.attention and precision == "fp32"
    ]
    problems += _dtype_at_odds(recipe)
    if model.lora is not None and model.lora.dora and model.lora.moves_base:
        problems.append(f"model.lora.dora: not with init: {model.lora.init}, whose adapter is saved as a difference")
    dropped_out = model.dropout == "model" or (model.lora is not None and model.lora.dropout > 0)
    if recipe.train.selective_backward is not None and dropped_out:
        problems.append(
            "train.selective_backward: not with dropout, whose masks belong to whole chunks (model.dropout: off)"
        )
    if guard is not None and model.compose is not None:
        problems.append("evaluate.guard: not with model.compose, which has no pretrained whole to compare with")
    if guard is not None and guard.interpolate and negatives.live is not None:
        problems.append("evaluate.guard.interpolate: not with negatives.live, whose model has a tower for each role")
    if negatives.replace is not None and negatives.refresh is not None:
        problems.append("negatives.replace: not with negatives.refresh, which mines its candidates again")
    if model.passages is not None:
        whole = {"links", "enterprise"} & {miner.name for miner in (*negatives.mining, *negatives.inner_miners())}
        excluded = {"negatives.live": negatives.live is not None, "model.compose": model.compose is not None}
        excluded |= {f"negatives.mining.{name}": True for name in sorted(whole)}
        reason = "which embeds whole documents"
        problems += [f"model.passages: not with {key}, {reason}" for key, is_set in excluded.items() if is_set]
    if negatives.live is not None:
        others = {
            "negatives.mining": bool(negatives.mining),
            "negatives.sampling": negatives.sampling != Negatives().sampling,
            "negatives.teacher": negatives.teacher is not None,
            "synthesis": any(methods.describe("synthesis", c.name).spec.kind == "texts" for c in recipe.synthesis),
        }
        reason = "its documents are what each query retrieves, embedded before training"
        problems += [f"negatives.live: not with {key}: {reason}" for key, is_set in others.items() if is_set]
    return problems


def _dtype_at_odds(recipe: Recipe) -> list[str]:
    """A number format of frozen weights, and what does not go with it."""
    model, train = recipe.model, recipe.train
    if model.lora is not None and model.lora.moves_base and model.dtype == "4bit":
        return [f"model.lora.init: not with model.dtype: 4bit, whose weights {model.lora.init} cannot take parts from"]
    if model.new_weights and model.dtype == "4bit":
        return ["model.new_weights: not with model.dtype: 4bit, which reads whole checkpoints; take auto"]
    wanted = {"bfloat16": "bf16", "float16": "fp16"}.get(model.dtype)
    if wanted is not None and train.precision not in ("auto", wanted):
        return [
            f"model.dtype: weights in {model.dtype} want train.precision: {wanted}, and it is {train.precision}; each "
            "use would convert them"
        ]
    return []


def _numbers(recipe: Recipe) -> list[str]:
    """Numbers that contradict each other."""
    model, train = recipe.model, recipe.train
    problems = [
        f"loss.{loss.name}.weight: has no effect at 0; leave the loss out" for loss in recipe.loss if loss.weight == 0
    ]
    if not problems and not any(loss.weight > 0 for loss in recipe.loss):
        problems.append("loss: expected at least one loss with a weight above 0")
    if len(set(recipe.matryoshka)) < len(recipe.matryoshka):
        problems.append(f"matryoshka: expected each dimension once, got {recipe.matryoshka}")
    if isinstance(train.warmup, int) and train.max_steps is not None and train.warmup >= train.max_steps:
        problems.append(
            f"train.warmup: {train.warmup} steps are not less than train.max_steps {train.max_steps}, so the learning "
            "rate would never be reached; lower it, or give a share such as 0.1"
        )
    if model.min_pixels is not None and model.max_pixels is not None and model.min_pixels > model.max_pixels:
        problems.append(f"model.min_pixels: {model.min_pixels} is more than model.max_pixels {model.max_pixels}")
    return problems
