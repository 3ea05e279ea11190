"""What is asked of a machine with a GPU: the CPU's results, exact resuming, memory that runs out, one wait a step."""

from __future__ import annotations

import importlib.util
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from host_waits import HostWaits, tensors_of
from safetensors.torch import load_file

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError, Interrupted
from embedtune.evaluate.retrieval import evaluate
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.similarity import as_scored
from embedtune.recipe import Model, Recipe, check_recipe
from embedtune.search.exact import Searcher
from embedtune.train import run
from embedtune.train.run import TrainedRun, train
from embedtune.types import Item

MINED = {"mining": {"name": "dense", "depth": 10}, "sampling": {"name": "top", "count": 2}}
WITH_STATE: dict[str, dict[str, Any]] = {
    "infonce, temperature": {"loss": {"name": "infonce", "learn_temperature": True}},
    "memory_queue": {"synthesis": [{"name": "memory_queue", "size": 16, "momentum": 0.9}]},
    "ahnpl": {"negatives": MINED, "loss": ["infonce", {"name": "ahnpl", "weight": 0.2}]},
    "asymmetric": {"loss": {"name": "asymmetric"}},
    "cluster": {"negatives": {"filtering": [{"name": "cluster"}]}},
    "rrra": {"negatives": {"filtering": [{"name": "rrra"}]}, "weighting": [{"name": "rrra_weight"}]},
    "tripletclip": {"loss": {"name": "tripletclip", "mode": "alternate"}},
    "replaced negatives": {"negatives": {**MINED, "replace": {"start": 2, "every": 1}}},
    "refreshed negatives": {"negatives": {**MINED, "refresh": {"every": 2}}},
}
SYNCHRONISES = "called a synchronizing CUDA operation"


class Skipped(Exception):
    """A check that this machine cannot run, and why."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the checks run. model: MiniLM's shape with random weights. data: a dataset folder."""

    device: str
    folder: Path
    model: Path
    data: Path
    tokens: int

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def encoder(self, device: str | None = None, precision: str = "fp32", **options: Any) -> Encoder:
        config = Model(name=str(self.model), pooling="mean", max_length=self.tokens, **options)
        return load_encoder(config, device=device or self.device, precision=precision, cached=False)  # type: ignore[arg-type]

    def items(self, count: int) -> list[Item]:
        corpus = load_dataset(self.data, "train").corpus
        return [corpus[doc_id] for doc_id in corpus.ids[:count]]

    def recipe(self, **parts: Any) -> Recipe:
        settings = {
            "batch_size": 8,
            "max_steps": 6,
            "learning_rate": 1e-3,
            "precision": "fp32",
            **parts.pop("train", {}),
        }
        block = {"name": str(self.model), "pooling": "mean", "max_length": self.tokens, **parts.pop("model", {})}
        return check_recipe(
            {"version": 1, "model": block, "data": {"train": str(self.data)}, "train": settings, **parts}
        )


def close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], within: float) -> float:
    apart = float(np.abs(found - expected).max())
    assert apart <= within, f"{apart:.2e} apart, at most {within:.0e} was expected"
    return apart


def embeddings(machine: Machine) -> str:
    """Embeddings are the CPU's: fp32, and bf16 and fp16 within their rounding."""
    items = machine.items(64)
    expected = as_scored(machine.encoder("cpu").encode(items, "document"), "cosine")
    notes = []
    for precision, within in (("fp32", 1e-4), ("bf16", 3e-2), ("fp16", 5e-3)):
        if precision == "fp16" and not machine.on_gpu:
            continue
        found = as_scored(machine.encoder(precision=precision).encode(items, "document"), "cosine")
        notes.append(f"{precision} {close(found, expected, within):.1e}")
    return ", ".join(notes)


def attention(machine: Machine) -> str:
    """Fused attention gives what plain attention gives."""
    items = machine.items(32)
    plain, fused = (
        as_scored(machine.encoder(attention=name).encode(items, "document"), "cosine") for name in ("eager", "sdpa")
    )
    return f"{close(fused, plain, 1e-4):.1e} apart"


def flash_attention(machine: Machine) -> str:
    """Flash attention, on texts without padding, gives what fused attention gives in the same precision."""
    if not machine.on_gpu or importlib.util.find_spec("flash_attn") is None:
        raise Skipped("the package flash-attn is not installed" if machine.on_gpu else "needs a GPU")
    items = machine.items(64)
    flat, padded = (
        as_scored(machine.encoder(precision="bf16", attention=name).encode(items, "document"), "cosine")
        for name in ("flash_attention_2", "sdpa")
    )
    return f"{close(flat, padded, 3e-2):.1e} apart"


def four_bit(machine: Machine) -> str:
    """A base of 4 bits trains an adapter: the loss falls."""
    if "dtype" not in Model.__dataclass_fields__:
        raise Skipped("this build has no model.dtype")
    if not machine.on_gpu or importlib.util.find_spec("bitsandbytes") is None:
        raise Skipped("the package bitsandbytes is not installed" if machine.on_gpu else "needs a GPU")
    losses = losses_of(machine, "four-bit", model={"dtype": "4bit", "lora": {"rank": 4}}, train={"max_steps": 12})
    assert min(losses[-3:]) < losses[0], losses
    return f"loss {losses[0]:.3f} to {losses[-1]:.3f}"


def search(machine: Machine) -> str:
    """Exact search finds what it finds on the CPU, and an evaluation measures the same."""
    encoder, on_cpu = machine.encoder(), machine.encoder("cpu")
    dataset = load_dataset(machine.data, "test")
    found, expected = (evaluate(one, dataset, measures="nDCG@10 R@100").measures for one in (encoder, on_cpu))
    for name, value in expected.items():
        assert abs(found[name] - value) < 2e-3, f"{name} {found[name]} instead of {value}"
    vectors = np.random.default_rng(0).standard_normal((4000, 64), dtype=np.float32)
    one, other = (Searcher(vectors, device=device).search(vectors[:200], 20) for device in (machine.device, "cpu"))
    assert (one[1] == other[1]).mean() > 0.999  # the same where scores differ by more than their rounding
    return f"scores {close(one[0], other[0], 1e-3):.1e} apart"


def losses_of(machine: Machine, name: str, **parts: Any) -> list[float]:
    losses: list[float] = []
    train(
        machine.recipe(**parts),
        machine.folder / name,
        on_event=lambda event: losses.append(event["loss"]) if event["event"] == "step" else None,
    )
    return losses


def training(machine: Machine) -> str:
    """A training's losses are the CPU's, whole, in chunks and with LoRA; bf16 is near them."""
    apart, whole = [], []
    cases: dict[str, dict[str, Any]] = {
        "whole": {},
        "chunks": {"train": {"chunk_size": 2}},
        "lora": {"model": {"lora": {"rank": 4}}},
    }
    for name, parts in cases.items():
        losses = losses_of(machine, f"training-{name}", **parts)
        whole = whole or losses
        with mock.patch("embedtune.train.prepare.resolve_device", return_value=torch.device("cpu")):
            expected = losses_of(machine, f"training-{name}-cpu", **parts)
        apart.append(f"{name} {close(np.array(losses), np.array(expected), 2e-3):.1e}")
    low = losses_of(machine, "training-bf16", train={"precision": "bf16"})
    return ", ".join([*apart, f"bf16 {close(np.array(low), np.array(whole), 0.05):.1e}"])


def resuming(machine: Machine) -> str:
    """Each method with state, stopped and resumed, ends where it ends without a stop: on a CPU to the bit."""

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    apart = {}
    for name, parts in WITH_STATE.items():
        recipe, folder = machine.recipe(**parts), machine.folder / f"resuming-{name}"
        expected = weights_of(train(recipe, folder / "whole"))
        try:
            train(recipe, folder / "stopped", on_event=stop)
            raise AssertionError(f"{name}: it did not stop")
        except Interrupted:
            found = weights_of(train(recipe, folder / "stopped", resume=True))
        apart[name] = max(float((found[key] - expected[key]).abs().max()) for key in expected)
        assert apart[name] <= (1e-4 if machine.on_gpu else 0), f"{name}: weights {apart[name]:.1e} apart"
    return f"weights at most {max(apart.values()):.1e} apart over {len(apart)} methods"


def weights_of(trained: TrainedRun) -> dict[str, torch.Tensor]:
    return load_file(trained.model / "model.safetensors")


def memory_that_runs_out(machine: Machine) -> str:
    """Where memory runs out, chunks are halved and the result is the same."""
    items = machine.items(64)
    expected = as_scored(machine.encoder().encode(items, "document"), "cosine")
    encoder = machine.encoder(chunk_tokens=64 * machine.tokens)
    forward, failures = encoder.forward, []

    def failing(chunk: Sequence[Any], role: Any) -> torch.Tensor:
        if len(chunk) > 20:
            failures.append(len(chunk))
            raise torch.OutOfMemoryError("injected")
        return forward(chunk, role)

    with mock.patch.object(encoder, "forward", failing):
        found = as_scored(encoder.encode(items, "document"), "cosine")
    assert failures
    notes = f"injected: {close(found, expected, 1e-4):.1e} apart"
    if not machine.on_gpu:
        return notes
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    encoder = machine.encoder(chunk_tokens=2**20)
    many = [item for item in machine.items(2000) for _ in range(4)]
    expected = as_scored(encoder.encode(many[:64], "document"), "cosine")
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        found = as_scored(encoder.encode(many, "document"), "cosine")[:64]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert encoder.chunk_tokens.bound is not None, "256 MiB were enough"
    return f"{notes}; with 256 MiB: {close(found, expected, 1e-4):.1e} apart, {encoder.chunk_tokens.bound:,} tokens"


def waiting(machine: Machine) -> str:
    """A default step waits for the device once."""
    for name, parts in {"default": {}, "chunks": {"train": {"chunk_size": 2}}}.items():
        waits = (_waits_seen if machine.on_gpu else _waits_recorded)(
            machine.recipe(**parts), machine.folder / f"waiting-{name}"
        )
        assert len(waits) <= 1, f"{name}: {len(waits)} times: {'; '.join(waits)}"
    return "once a step, whole and in chunks"


def _waits_seen(recipe: Recipe, folder: Path) -> list[str]:
    """The places that torch's sync debug mode names, in the third step."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def watch(event: dict[str, Any]) -> None:
            if event["event"] == "step" and event["step"] in (2, 3):
                torch.cuda.set_sync_debug_mode("warn" if event["step"] == 2 else "default")

        train(recipe, folder, on_event=watch)
    seen = [warning for warning in caught if SYNCHRONISES in str(warning.message)]
    return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in seen]


def _waits_recorded(recipe: Recipe, folder: Path) -> list[str]:
    """The same without a GPU, by what is called."""
    runs: list[Any] = []
    counted: list[HostWaits] = []
    fit = run.fit

    def seen(t: Any, state: Any) -> Any:
        runs.append(t)
        return fit(t, state)

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            counted.append(HostWaits(tensors_of(runs[0])).__enter__())
        elif event["event"] == "step" and event["step"] == 3:
            counted[0].__exit__()

    with (
        mock.patch.object(run, "fit", seen),
        mock.patch("embedtune.methods.loss._pairs.at_hand", return_value=False),
    ):
        train(recipe, folder, on_event=watch)
    return counted[0].waits


CHECKS: dict[str, Callable[[Machine], str]] = {
    check.__name__: check
    for check in (
        embeddings, attention, flash_attention, four_bit, search, training, resuming, memory_that_runs_out, waiting,
    )
}  # fmt: skip


def outcome_of(name: str, machine: Machine) -> tuple[str, str]:
    """`passed`, `skipped` or `failed`, and the figure or the reason."""
    try:
        return "passed", CHECKS[name](machine)
    except Skipped as reason:
        return "skipped", str(reason)
    except InputError as error:
        return "failed", str(error)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}".partition("\n")[0]
