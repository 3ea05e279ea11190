"""What `peer.py` measures: every task, at full size or to try the command out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peer_tasks import Comparison, Task, Variant

TUNED = "peer, tuned"
EQUAL = "ours, equal"


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How training is measured: `steps` steps, the first `skip` of them not; chunk: with gradient caching."""

    batch: int
    steps: int
    skip: int
    chunk: int | None = None


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything: full, or to try the command out. chunk: items encoded at once with gradient caching."""

    length: int = 256
    long: int = 512
    chunk: int = 16
    one_pass: Steps = Steps(batch=32, steps=12, skip=2)
    cached: tuple[Steps, ...] = (
        Steps(batch=128, steps=4, skip=1, chunk=16),
        Steps(batch=512, steps=1, skip=0, chunk=16),
    )
    documents: int = 1000


QUICK = Sizes(
    length=64,
    long=128,
    chunk=8,
    one_pass=Steps(batch=16, steps=3, skip=1),
    cached=(Steps(batch=48, steps=1, skip=0, chunk=8),),
    documents=64,
)
Named = Sequence[tuple[str, Sequence[str]]]
"""Variants of our training: a name, and the keys of the recipe that it changes."""


def tasks_of(model: str, data: str, precision: str, sizes: Sizes, named: Named, folder: Path) -> list[Task]:
    """All tasks. precision: what `auto` is on this machine. folder: for what they leave each other."""
    base = ("--model", model, "--data", data)
    short = (*base, "--max-length", str(sizes.length))
    return [
        _with_defaults(_training("train", base, sizes.length, sizes.one_pass, precision, named), sizes),
        _training("train-long", base, sizes.long, sizes.one_pass, precision, named),
        *(
            _training(f"train-cached-{steps.batch}", base, sizes.length, steps, precision, named)
            for steps in sizes.cached
        ),
        _encoding(("encode", *short, "--documents", str(sizes.documents)), precision, sizes),
        _mining(("mine", *short), precision),
        _refresh(("refresh", *short), precision),
        _evaluation(("evaluate", *short)),
        _start(model, data, folder),
    ]


def _training(name: str, base: tuple[str, ...], length: int, steps: Steps, precision: str, named: Named) -> Task:
    """The peer tuned against ours at its settings, on its batches, and against the named variants of that."""
    given = ("train", *base, "--max-length", str(length), "--steps", str(steps.steps), "--skip", str(steps.skip))
    peer = (*given, "--batch-size", str(steps.batch), *(("--chunk-size", str(steps.chunk)) if steps.chunk else ()))
    ours = (*given, *_set(f"train.batch_size={steps.batch}"))
    if steps.chunk:
        ours += _set(f"train.chunk_size={steps.chunk}")
    tuned = (*peer, "--no-dropout", "--precision", precision)
    equal = Variant(name=EQUAL, side="ours", arguments=ours, precision=precision, replays=TUNED)
    of_ours = [equal, *(_changed(equal, title, changes) for title, changes in named)]
    return Task(
        name=name,
        variants=(Variant(name=TUNED, side="peer", arguments=tuned, precision=precision), *of_ours),
        comparisons=tuple(Comparison(ours=variant.name, other=TUNED) for variant in of_ours),
        work="pair",
        passes=3,
        max_length=length,
    )


def _with_defaults(task: Task, sizes: Sizes) -> Task:
    """Both sides as they come, in front, and ours in chunks: what gradient caching costs, and what it saves."""
    tuned, equal = task.variants[:2]
    dropout = tuned.arguments.index("--no-dropout")
    peer = replace(tuned, name="peer, default", arguments=tuned.arguments[:dropout], precision="fp32")
    ours = replace(equal, name="ours, default", replays=None)
    chunks = _changed(equal, "in chunks", [f"train.chunk_size={sizes.chunk}"])
    compared = [Comparison(ours=ours.name, other=peer.name), Comparison(ours=ours.name, other=TUNED)]
    return replace(
        task,
        variants=(peer, ours, *task.variants, chunks),
        comparisons=(*compared, *task.comparisons, Comparison(ours=chunks.name, other=TUNED)),
    )


def _changed(equal: Variant, title: str, changes: Sequence[str]) -> Variant:
    return replace(equal, name=f"ours, {title}", arguments=(*equal.arguments, *_set(*changes)))


def _set(*changes: str) -> tuple[str, ...]:
    return tuple(part for change in changes for part in ("--set", change))


def _encoding(given: tuple[str, ...], precision: str, sizes: Sizes) -> Task:
    variants = (
        Variant(name="peer, default", side="peer", arguments=given),
        Variant(name="ours, auto", side="ours", arguments=(*given, "--precision", "auto"), precision=precision),
        Variant(name=TUNED, side="peer", arguments=(*given, "--precision", precision), precision=precision),
        Variant(name="ours, fp32", side="ours", arguments=given),
    )
    compared = (
        Comparison(ours="ours, auto", other="peer, default"),
        Comparison(ours="ours, auto", other=TUNED),
        Comparison(ours="ours, fp32", other="peer, default"),
    )
    return Task(name="encode", variants=variants, comparisons=compared,
                work="document", passes=1, max_length=sizes.length)  # fmt: skip


def _mining(given: tuple[str, ...], precision: str) -> Task:
    variants = (
        Variant(name="peer, default", side="peer", arguments=given),
        Variant(name="ours", side="ours", arguments=(*given, "--precision", "auto"), precision=precision),
        Variant(name=TUNED, side="peer", arguments=(*given, "--precision", precision), precision=precision),
    )
    compared = (
        Comparison(ours="ours", other="peer, default"),
        Comparison(ours="ours", other=TUNED),
        Comparison(ours="ours", other="ours", value="again_seconds"),
    )
    return Task(name="mine", variants=variants, comparisons=compared)


def _refresh(given: tuple[str, ...], precision: str) -> Task:
    arguments = (*given, "--precision", "auto")
    two = Variant(name="ours, two towers", side="ours", arguments=arguments, precision=precision)
    compared = Comparison(ours=two.name, other=two.name, value="again_seconds")
    return Task(name="mine-refresh", variants=(two,), comparisons=(compared,))


def _evaluation(given: tuple[str, ...]) -> Task:
    variants = (
        Variant(name="peer, default", side="peer", arguments=given),
        Variant(name="ours", side="ours", arguments=given),
    )
    compared = (
        Comparison(ours="ours", other="peer, default"),
        Comparison(ours="ours", other="peer, default", value="again_seconds"),
    )
    return Task(name="evaluate", variants=variants, comparisons=compared)


def _start(model: str, data: str, folder: Path) -> Task:
    recipe = folder / "start.yaml"
    dry_run = ("-m", "embedtune_cli", "train", str(recipe), "--dry-run")
    commands = {
        "peer, import": ("-c", "import sentence_transformers"),
        "ours, import": ("-c", "import embedtune"),
        "ours, --help": ("-m", "embedtune_cli", "--help"),
        "ours, train --dry-run": dry_run,
    }
    recipe.write_text(f'version: 1\nmodel: {{name: "{model}"}}\ndata: {{train: "{data}"}}\n')
    variants = tuple(
        Variant(name=name, side="command", arguments=(sys.executable, *command)) for name, command in commands.items()
    )
    compared = tuple(Comparison(ours=name, other="peer, import") for name in commands if name.startswith("ours"))
    return Task(name="start", variants=variants, comparisons=compared)
