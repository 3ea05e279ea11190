"""`embedtune train`: fine-tune a model by a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from . import options
from .options import option, output_option, switch
from .output import progress, say, show_json, show_tables, show_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedtune.report.record import RunRecord


def train(
    recipe: options.RecipeArgument,
    changes: options.Changes = [],  # noqa: B006
    methods: options.MethodFolders = [],  # noqa: B006
    start: Annotated[
        Path | None,
        option(
            "RUN",
            "A run whose model is trained further; compare with it and with the model that it came from.",
            "--from",
            default="the recipe's model",
        ),
    ] = None,
    output: Annotated[Path | None, output_option("DIR", "runs/ and the recipe's name")] = None,
    resume: Annotated[bool, switch("--resume", "Continue from the run's last checkpoint.")] = False,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[bool, switch("--dry-run", "Print the plan; start nothing.")] = False,
    as_json: options.Json = False,
) -> None:
    """Fine-tune a model by a recipe, and measure the gain in and out of domain.

    Example: embedtune train recipes/text/scifact.yaml --set train.epochs=2 --output runs/scifact

    Example: embedtune train next-month.yaml --from runs/scifact --output runs/scifact-2

    Several processes train together: torchrun --nproc-per-node 2 -m embedtune_cli train RECIPE
    """
    from embedtune import distributed
    from embedtune.errors import BarMissed, InputError
    from embedtune.recipe import dump, load_recipe, resolve
    from embedtune.train.preflight import preflight

    if resume and overwrite:
        raise InputError("--resume continues a run and --overwrite replaces it; choose one")
    if dry_run and as_json:
        raise InputError("--json has no effect with --dry-run, which prints the recipe as YAML")
    checked = load_recipe(recipe, changes, methods=methods, start=start)
    folder = output or Path("runs") / recipe.stem
    leads = distributed.leads()
    facts = preflight(checked, folder)
    if dry_run:
        from embedtune.train.forecast import facts_of

        facts |= facts_of(checked)  # where the model is here, its memory as it was measured
    for name, text in facts.items() if leads else ():
        say(f"{name:>10}  {text}")
    if resume and leads and not (folder / "recipe.yaml").exists():
        say(f"    resume  {folder} holds no run yet; a new run starts")
    if dry_run:
        show_text(dump(resolve(checked)))
        return
    from embedtune.train.run import train as train_recipe

    with progress("starting") as show:
        result = train_recipe(checked, folder, resume=resume, overwrite=overwrite, on_event=Watcher(show))
    if result.already_finished and leads:
        say(f"{folder} is finished already ({result.steps} steps); nothing to resume")
    if leads:
        show_result(result, as_json)
    if result.missed:
        raise BarMissed("; ".join(result.missed))


class Watcher:
    """Shows a run's events: on a terminal a bar for the phase and one for the whole run, elsewhere about twenty lines
    of steps, a line for each phase, and the time left."""

    def __init__(self, show: Callable[..., None]) -> None:
        from embedtune.train.clock import RunClock

        self._show, self._steps, self._phase, self._bar = show, 0, "", sys.stderr.isatty()
        self._clock = RunClock([])

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "plan":
            from embedtune.train.clock import RunClock

            self._clock = RunClock(event["phases"])
        elif kind == "phase":
            self._begin(event)
        elif kind == "progress":
            self._clock.at(event["done"] / max(1, event["total"]))
            detail = event.get("detail")
            self._draw(event["done"], event["total"], f"{self._phase}: {detail}" if detail else self._phase)
        elif kind == "step":
            self._step(event)
        elif kind == "validation":
            best = " (best)" if event["best"] else ""
            say(f"step {event['step']}: validation {event['measure']} {event['value']:.4f}{best}")
        elif kind == "message":
            say(event["text"])

    def _begin(self, event: dict[str, Any]) -> None:
        steps, kind = event.get("steps"), event.get("kind")
        self._phase, self._steps = event["name"], steps or self._steps
        self._clock.begin(kind, event.get("at", 0) / steps if steps else 0.0)
        if self._bar:
            self._draw(event.get("at", 0), steps, self._phase)
        elif kind != "validation":  # whose value is said
            remaining = self._remaining()
            say(self._phase + (f": {steps} steps" if steps else "") + (f", {remaining}" if remaining else ""))

    def _step(self, event: dict[str, Any]) -> None:
        done, pace = event["step"], f"loss {event['loss']:.4f}, {event['pairs_per_second']:.1f} pairs/s"
        if self._phase != "train":  # validation, or mining, is over
            self._phase = "train"
            self._clock.begin("training")
        self._clock.at(done / max(1, self._steps))
        self._draw(done, self._steps, f"train: {pace}")
        if not self._bar and (done % max(1, self._steps // 20) == 0 or done == self._steps):
            seconds = (self._steps - done) * event["seconds"]
            say(f"step {done}/{self._steps}: {pace}, {self._remaining() or f'about {seconds:.0f} s left'}")

    def _draw(self, done: float, total: float | None, text: str) -> None:
        self._show(done, total, text, (self._clock.share, self._remaining()))

    def _remaining(self) -> str:
        from embedtune.train.clock import in_words

        seconds = self._clock.remaining
        return "" if seconds is None else f"about {in_words(seconds)} left"


def show_result(result: Any, as_json: bool) -> None:
    """The gain and the cost: base and tuned model on each dataset, with the interval of their difference."""
    from embedtune.report.outcome import as_json as outcome_as_json
    from embedtune.report.record import read_record

    record = read_record(result.folder, negatives=False)
    if as_json:
        show_json({"folder": str(result.folder), "model": str(result.model), "steps": result.steps,
                   "best_step": result.best_step, "base": result.base, "tuned": result.tuned,
                   "untouched": result.untouched, **outcome_as_json(record)})  # fmt: skip
        return
    show_outcome(record)
    for sentence in filter(None, [record.untouched, record.ancestry, *record.indexes]):
        say(sentence)
    say(f"the model is in {result.model}; for its gains and costs: embedtune report {result.folder}")


def show_outcome(record: RunRecord) -> None:
    """The tables that end a run: rounded on a terminal, every column apart in a pipe."""
    from embedtune.report.outcome import plain_tables, tables

    for number, table in enumerate(tables(record) if sys.stdout.isatty() else plain_tables(record)):
        if number:
            print()
        show_tables([(table.title, table.columns, table.rows)])
        if table.note:
            say(table.note)
