"""Checkpoints: safetensors and JSON, written whole, verified by checksum when read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from ..files import fingerprint_of_file, inner_folder, is_leftover, write_json

_NAME = re.compile(r"step-(\d{6,})")


class Damaged(Exception):
    """A checkpoint that does not match its checksums."""


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> Path:
    """Writes checkpoints/step-000200 with a safetensors file per group, state.json and checksums.json, or nothing."""
    target = folder / f"step-{step:06d}"
    with inner_folder(target) as temporary:
        for group, named in tensors.items():
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}
            save_file(plain, temporary / f"{group}.safetensors")
        write_json(temporary / "state.json", state)
        sums = {file.name: fingerprint_of_file(file) for file in sorted(temporary.iterdir())}
        write_json(temporary / "checksums.json", sums)
    return target


def load(target: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors by group, and the state. Raises Damaged where anything is missing or differs from its checksum."""
    try:
        sums = json.loads((target / "checksums.json").read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if fingerprint_of_file(target / name) != expected:
                raise Damaged(f"{target.name}/{name} does not match its checksum")
        state = json.loads((target / "state.json").read_text(encoding="utf-8"))
        groups = {name.removesuffix(".safetensors") for name in sums if name.endswith(".safetensors")}
        return {group: load_file(target / f"{group}.safetensors") for group in sorted(groups)}, state
    except (OSError, ValueError, SafetensorError) as error:
        raise Damaged(f"{target.name}: {error}") from None


def steps_saved(folder: Path) -> list[int]:
    """The steps that have a checkpoint, latest first."""
    found = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((int(match[1]) for match in found if match), reverse=True)


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
