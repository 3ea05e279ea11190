"""What was trained on what, in which surroundings, and how to run it again."""

from __future__ import annotations

import shlex
from typing import Any

from ..recipe import Chosen, Model, Recipe, dump, split_of
from .document import Block, Code, Facts, Figure, Figures, Section, Table, Text, number, plural
from .figures import lines
from .learning import Learning
from .record import Record

POINTS = 300  # at most on a curve
ACROSS = "training step"


def model_name(model: Model) -> str:
    """A model by the last part of its path or hub id that says something; of a composed one, both towers' so."""
    return " + ".join(_last_part(name) for name in towers_of(model))


def towers_of(model: Model) -> list[str]:
    """The names of what a model was loaded from: its own, or its towers'."""
    return [model.compose.text, model.compose.image] if model.compose is not None else [str(model.name)]


def _last_part(name: str) -> str:
    parts = [part for part in name.removeprefix("package:").split("/") if part not in ("", "model", "models")]
    return parts[-1] if parts else name


def data_name(name: str) -> str:
    """A dataset by its folder's name, with the split that it names."""
    path, split = split_of(name)
    return path.rstrip("/").rpartition("/")[2] + (f":{split}" if split else "")


def trained_on(recipe: Recipe) -> list[str]:
    """The datasets that a recipe names, one or several."""
    named: str | list[str] = recipe.data.train
    return [named] if isinstance(named, str) else named


def subtitle(recipe: Recipe) -> str:
    how = "with LoRA" if recipe.model.lora else "all weights"
    on = " and ".join(map(data_name, trained_on(recipe)))
    return f"{model_name(recipe.model)}, fine-tuned ({how}) on {on}"


def training_section(record: Record, *, drawn: bool = True) -> Section:
    """The recipe in words, and what became of it."""
    recipe, learning = record.recipe, record.learning
    rows = [("Model", _model(recipe)), ("Training data", _data(recipe))]
    rows += [("Negatives", _negatives(recipe)), ("Loss", _loss(recipe)), ("Optimisation", _optimisation(recipe))]
    rows += [("Staying close", close)] if (close := _staying_close(recipe)) else []
    rows += [("Steps", _steps(record)), ("Time", _time(learning, record.environment))] if learning.steps else []
    blocks: list[Block] = [Facts(rows)]
    if drawn and learning.steps:
        blocks.append(Figures(_curves(learning, record)))
    return Section("What was trained", blocks)


def _model(recipe: Recipe) -> str:
    model = recipe.model
    how = f"LoRA of rank {model.lora.rank}, alpha {model.lora.alpha:g}" if model.lora else "all weights trained"
    length = f", at most {model.max_length:,} tokens" if model.max_length else ""
    return f"{model.label}; {how}{length}"


def _data(recipe: Recipe) -> str:
    data = recipe.data
    named = "; ".join(name if split_of(name)[1] else f"{name}, split {data.split}" for name in trained_on(recipe))
    held = f"; {data.validation.share:.0%} of its queries held out to choose the checkpoint" if data.validation else ""
    return named + held


def chosen(method: Chosen) -> str:
    """A method as a person would say it: `positive_ratio (at_most 0.95)`."""
    options = ", ".join(f"{name} {_plainly(value)}" for name, value in method.options.items())
    return f"{method.name} ({options})" if options else method.name


def _plainly(value: Any) -> str:
    if isinstance(value, dict) and {"from", "to"} <= value.keys():
        return f"from {value['from']:g} to {value['to']:g}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _negatives(recipe: Recipe) -> str:
    negatives = recipe.negatives
    if not negatives.mining:
        return "the batch's other documents"
    mined = " and ".join(chosen(miner) for miner in negatives.mining)
    kept = ", ".join(chosen(method) for method in negatives.filtering) or "no filter"
    refresh = f"; mined again every {negatives.refresh.every}" if negatives.refresh else ""
    steps = " steps" if negatives.refresh and negatives.refresh.every != "epoch" else ""
    return (
        f"the batch's other documents, and mined ones: by {mined}; filtered by {kept}; drawn by "
        f"{chosen(negatives.sampling)}{refresh}{steps}"
    )


def _loss(recipe: Recipe) -> str:
    losses = " + ".join(
        (f"{method.weight:g} x " if method.weight != 1.0 else "") + chosen(method) for method in recipe.loss
    )
    weighted = f"; negatives weighted by {', '.join(map(chosen, recipe.weighting))}" if recipe.weighting else ""
    made = f"; made negatives: {', '.join(map(chosen, recipe.synthesis))}" if recipe.synthesis else ""
    nested = f"; also on the first {', '.join(map(str, recipe.matryoshka))} dimensions" if recipe.matryoshka else ""
    return losses + weighted + made + nested


def _optimisation(recipe: Recipe) -> str:
    train = recipe.train
    times = f" x {train.accumulate}" if train.accumulate > 1 else ""
    length = f"{train.epochs:g} epoch{'' if train.epochs == 1 else 's'}"
    at_most = f", at most {train.max_steps:,} steps" if train.max_steps else ""
    return (
        f"AdamW, learning rate {train.learning_rate:g} ({train.schedule}, warmup {train.warmup:g}), {length}{at_most}, "
        f"{train.batch_size}{times} queries a step ({chosen(recipe.batching)}), seed {train.seed}"
    )


def _staying_close(recipe: Recipe) -> str:
    close, said = recipe.stay_close, []
    if close.distill is not None:
        said.append(f"distilled from the base model on {close.distill.data} (weight {close.distill.weight:g})")
    if close.pull:
        said.append(f"weights pulled to the base model's (L2-SP, {close.pull:g})")
    if close.freeze_layers:
        said.append(f"the lowest {plural(close.freeze_layers, 'layer')} frozen")
    if close.layer_decay != 1.0:
        said.append(f"each layer's rate {close.layer_decay:g} of the one above")
    return "; ".join(said)


def _steps(record: Record) -> str:
    last, best = record.learning.steps[-1], record.summary.get("best_step")
    curve = record.learning.curve
    if best is None or curve is None:
        return f"{last:,}; the last one's weights are kept" if record.summary else f"{last:,} so far"
    return f"{last:,}; kept is step {best:,}, the best on validation ({curve.measure} {curve.best:.4f})"


def _time(learning: Learning, environment: dict[str, Any]) -> str:
    pace = f"{learning.pairs / learning.seconds:.1f} pairs a second" if learning.seconds else ""
    where = ", ".join(
        str(part)
        for part in (
            environment.get("device"),
            environment.get("precision"),
            plural(environment.get("processes", 1), "process"),
        )
        if part
    )
    return f"{duration(learning.seconds)} in training steps, {pace} ({where})"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _curves(learning: Learning, record: Record) -> list[Figure]:
    steps, losses = thinned(learning.steps, learning.losses)
    first, last = losses[0], losses[-1]
    size = max(1, len(learning.steps) // POINTS)
    figures = [
        Figure(
            svg=lines(
                [("loss", "tuned", steps, losses)],
                across=ACROSS,
                up="training loss",
                title="Loss",
                whole=True,
                floor=0.0 if min(losses) >= 0 else None,
            ),
            title="Loss",
            text=f"From {number(first, 3)} to {number(last, 3)} over {plural(len(learning.steps), 'step')}"
            + (f"; a point is the mean of {size} steps." if size > 1 else "."),
        )
    ]
    if (curve := learning.curve) is not None:
        place = curve.values.index(curve.best)
        best, at = curve.best, curve.steps[place]
        svg = lines(
            [(curve.measure, "tuned", curve.steps, curve.values)],
            across=ACROSS,
            up=f"validation {curve.measure}",
            title="Validation",
            marks=[(at, best, f"best {best:.4f}")],
            whole=True,
        )
        kept = ", which is kept" if record.summary.get("best_step") == at else ""
        text = (
            f"{plural(len(curve.values), 'validation')} on held-out training queries: {curve.values[0]:.4f} at step "
            f"{curve.steps[0]:,}, best {best:.4f} at step {at:,}{kept}."
        )
        figures.append(Figure(svg=svg, title="Learning curve", text=text))
    return figures


def thinned(steps: list[int], values: list[float]) -> tuple[list[float], list[float]]:
    """At most some 300 points: means of neighbours."""
    size = max(1, len(steps) // POINTS)
    starts = range(0, len(steps), size)
    mean = [sum(values[i : i + size]) / len(values[i : i + size]) for i in starts]
    return [sum(steps[i : i + size]) / len(steps[i : i + size]) for i in starts], mean


def again_section(record: Record) -> Section:
    """The command, the recipe, versions and fingerprints."""
    environment = record.environment
    command = shlex.join(["embedtune", "train", str(record.folder / "recipe.yaml"), "--output", "runs/again"])
    blocks: list[Block] = [Text(_sameness(environment)), Code(command, "bash")]
    if environment:
        versions = ", ".join(f"{name} {text}" for name, text in environment["versions"].items())
        computed = [environment["device"], environment["precision"], plural(environment["threads"], "thread")]
        blocks.append(
            Facts(
                [
                    ("Versions", f"embedtune {environment['embedtune']}, {versions}"),
                    ("Computed on", ", ".join([*computed, plural(environment["processes"], "process")])),
                ]
            )
        )
        blocks.append(fingerprints(record))
    return Section("How to run it again", [*blocks, Code(dump(record.recipe), "yaml")])


def _sameness(environment: dict[str, Any]) -> str:
    complete = "`recipe.yaml` is the recipe below, complete, with every default written out."
    if environment.get("device", "cpu") == "cpu":
        same = "With the same versions and threads on the same machine this gives the same weights, to the last bit."
        return f"{same} {complete}"
    return (
        "With the same versions on the same machine this takes the same steps on the same batches; a GPU may add up in "
        f"another order, so weights may differ in their last bits. {complete}"
    )


def fingerprints(record: Record) -> Table:
    """Of the data, the base weights and the saved weights."""
    found = [[kind, value] for kind, value in record.environment.get("fingerprints", {}).items()]
    found += [[f"model/{file} (sha256)", value] for file, value in record.summary.get("weights", {}).items()]
    return Table(caption="Fingerprints", columns=["of", "fingerprint"], rows=found)
