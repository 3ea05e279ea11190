"""What `peer.py` measures: every task, at full size or to try the command out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peer_tasks import Comparison, Task, Variant

DEFAULT = "peer, default"
TUNED = "peer, tuned"
EQUAL = "ours, equal"
NAMES = [
    *("train-default", "train-tuned", "train-512", "cached-128", "cached-512-memory"),
    *("encode", "mine", "mine-refresh", "evaluate", "startup"),
]
Named = Sequence[tuple[str, Sequence[str]]]
"""Variants of our training: a name, and the keys of the recipe that it changes."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How training is measured: `measured` steps after `warm_up` ones. chunk: items at once, with gradient caching."""

    batch: int
    measured: int
    warm_up: int = 1
    length: int = 256
    chunk: int | None = None

    def arguments(self) -> tuple[str, ...]:
        steps = ("--steps", str(self.warm_up + self.measured), "--skip", str(self.warm_up))
        return ("--max-length", str(self.length), *steps)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything. small: the batch whose memory `cached-512-memory` is held against."""

    default: Steps = Steps(batch=32, measured=3)
    tuned: Steps = Steps(batch=32, measured=6)
    long: Steps = Steps(batch=32, measured=5, length=512)
    cached: Steps = Steps(batch=128, measured=2, warm_up=0, chunk=16)
    memory: Steps = Steps(batch=512, measured=1, warm_up=0, chunk=16)
    small: int = 32
    documents: int = 1000

    @property
    def training(self) -> dict[str, Steps]:
        """The training tasks, by name."""
        return dict(zip(NAMES, (self.default, self.tuned, self.long, self.cached, self.memory), strict=False))

    def with_steps(self, measured: int | None) -> Sizes:
        """As many measured steps in every training task but the one about memory, which needs one."""
        if measured is None:
            return self
        changed = {name: replace(getattr(self, name), measured=measured) for name in ("default", "tuned", "long")}
        return replace(self, **changed, cached=replace(self.cached, measured=measured))


QUICK = Sizes(
    default=Steps(batch=16, measured=1, length=64),
    tuned=Steps(batch=16, measured=1, length=64),
    long=Steps(batch=16, measured=1, length=128),
    cached=Steps(batch=32, measured=1, warm_up=0, length=64, chunk=8),
    memory=Steps(batch=48, measured=1, warm_up=0, length=64, chunk=8),
    small=16,
    documents=64,
)


def tasks_of(model: str, data: str, precision: str, sizes: Sizes, named: Named, folder: Path) -> list[Task]:
    """All tasks. precision: what `auto` is on this machine. folder: where the recipe of `startup` is put."""
    base = ("--model", model, "--data", data)
    short = (*base, "--max-length", str(sizes.default.length))
    return [
        _defaults(base, sizes.default, precision),
        _training("train-tuned", base, sizes.tuned, precision, named),
        _by_length(_training("train-512", base, sizes.long, precision, named)),
        _training("cached-128", base, sizes.cached, precision, named),
        _small(_training("cached-512-memory", base, sizes.memory, precision, []), sizes),
        _encoding(("encode", *short, "--documents", str(sizes.documents)), precision, sizes),
        _mining(("mine", *short), precision),
        _refresh(("refresh", *short, "--precision", "auto"), precision),
        _evaluation(("evaluate", *short)),
        _startup(model, data, folder),
    ]


def _training(name: str, base: tuple[str, ...], steps: Steps, precision: str, named: Named) -> Task:
    """The peer tuned against ours at its settings, on its batches, and against the named variants of that."""
    given = ("train", *base, *steps.arguments())
    chunked = ("--chunk-size", str(steps.chunk)) if steps.chunk else ()
    tuned = (*given, "--batch-size", str(steps.batch), *chunked, "--no-dropout", "--precision", precision)
    changes = [f"train.batch_size={steps.batch}", *([f"train.chunk_size={steps.chunk}"] if steps.chunk else [])]
    equal = Variant(name=EQUAL, side="ours", arguments=(*given, *_set(*changes)), precision=precision, replays=TUNED)
    of_ours = [equal, *(_changed(equal, title, changes) for title, changes in named)]
    return Task(
        name=name,
        variants=(Variant(name=TUNED, side="peer", arguments=tuned, precision=precision), *of_ours),
        comparisons=tuple(Comparison(ours=variant.name, other=TUNED) for variant in of_ours),
        work="pair",
        passes=3,
        max_length=steps.length,
    )


def _defaults(base: tuple[str, ...], steps: Steps, precision: str) -> Task:
    """Both sides as they come, each on batches of its own."""
    task = _training("train-default", base, steps, precision, [])
    tuned, equal = task.variants
    peer = tuned.arguments[: tuned.arguments.index("--no-dropout")]
    variants = (
        replace(tuned, name=DEFAULT, arguments=peer, precision="fp32"),
        replace(equal, name="ours, default", replays=None),
    )
    return replace(task, variants=variants, comparisons=(Comparison(ours="ours, default", other=DEFAULT),))


def _by_length(task: Task) -> Task:
    """And ours with batches of its own, of items of like length."""
    equal = task.variants[1]
    by_length = replace(_changed(equal, "by length", ["batching=length"]), replays=None)
    return _with(task, by_length, Comparison(ours=by_length.name, other=TUNED))


def _small(task: Task, sizes: Sizes) -> Task:
    """And ours with a small batch, in the same chunks: what memory costs where the batch grows."""
    small = replace(
        _changed(task.variants[1], f"batch {sizes.small}", [f"train.batch_size={sizes.small}"]), replays=None
    )
    return _with(task, small, Comparison(ours=EQUAL, other=small.name))


def _with(task: Task, variant: Variant, comparison: Comparison) -> Task:
    return replace(task, variants=(*task.variants, variant), comparisons=(*task.comparisons, comparison))


def _changed(variant: Variant, title: str, changes: Sequence[str]) -> Variant:
    return replace(variant, name=f"ours, {title}", arguments=(*variant.arguments, *_set(*changes)))


def _set(*changes: str) -> tuple[str, ...]:
    return tuple(part for change in changes for part in ("--set", change))


def _at(variant: Variant, precision: str) -> Variant:
    return replace(variant, arguments=(*variant.arguments, "--precision", precision), precision=precision)


def _tuned(default: Variant, precision: str) -> Variant:
    return replace(_at(default, precision), name=TUNED)


def _encoding(given: tuple[str, ...], precision: str, sizes: Sizes) -> Task:
    peer, ours = (Variant(name=DEFAULT, side="peer", arguments=given), Variant(name="", side="ours", arguments=given))
    auto = replace(ours, name="ours, auto", arguments=(*given, "--precision", "auto"), precision=precision)
    variants = (peer, auto, _tuned(peer, precision), replace(ours, name="ours, fp32"))
    pairs = (("ours, auto", DEFAULT), ("ours, auto", TUNED), ("ours, fp32", DEFAULT))
    compared = tuple(Comparison(ours=name, other=other) for name, other in pairs)
    return Task(name="encode", variants=variants, comparisons=compared,
                work="document", passes=1, max_length=sizes.default.length)  # fmt: skip


def _mining(given: tuple[str, ...], precision: str) -> Task:
    """With nothing encoded before, on both sides; and ours once more in the same process, against its first time."""
    default = Variant(name=DEFAULT, side="peer", arguments=given)
    tuned = _tuned(default, precision)
    ours = Variant(name="ours", side="ours", arguments=(*given, "--precision", "auto"), precision=precision)
    compared = (*(Comparison(ours="ours", other=peer.name) for peer in (default, tuned)), _again("ours"))
    return Task(name="mine", variants=(default, tuned, ours), comparisons=compared)


def _again(name: str) -> Comparison:
    return Comparison(ours=name, other=name, value="again_seconds")


def _refresh(given: tuple[str, ...], precision: str) -> Task:
    two = Variant(name="ours, two towers", side="ours", arguments=given, precision=precision)
    return Task(name="mine-refresh", variants=(two,), comparisons=(_again(two.name),))


def _evaluation(given: tuple[str, ...]) -> Task:
    peer, ours = Variant(name=DEFAULT, side="peer", arguments=given), Variant(name="ours", side="ours", arguments=given)
    return Task(
        name="evaluate", variants=(peer, ours), comparisons=(Comparison(ours="ours", other=DEFAULT), _again("ours"))
    )


def _startup(model: str, data: str, folder: Path) -> Task:
    recipe = folder / "start.yaml"
    recipe.write_text(f'version: 1\nmodel: {{name: "{model}"}}\ndata: {{train: "{data}"}}\n')
    commands = {
        "peer, import": ("-c", "import sentence_transformers"),
        "ours, import": ("-c", "import embedtune"),
        "ours, --help": ("-m", "embedtune_cli", "--help"),
        "ours, train --dry-run": ("-m", "embedtune_cli", "train", str(recipe), "--dry-run"),
    }
    variants = tuple(
        Variant(name=name, side="command", arguments=(sys.executable, *command)) for name, command in commands.items()
    )
    compared = tuple(Comparison(ours=name, other="peer, import") for name in commands if name.startswith("ours"))
    return Task(name="startup", variants=variants, comparisons=compared)
