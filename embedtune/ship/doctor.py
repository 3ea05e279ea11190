"""What this machine has for embedtune, and what is wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from ..files import cache_folder

LEAST_FREE = 2 * 1024**3  # bytes; a model, its copy and a corpus's embeddings fit
# Cache entries are named by content; nothing else in that folder is ours to delete. A dot: left by a killed process.
_ENTRY = re.compile(r"\.?[0-9a-f]{32}(\..+)?")


@dataclass(kw_only=True)
class Examination:
    """What was found. Errors keep embedtune from working; warnings cost time or features."""

    versions: dict[str, str | None]  # None: not installed
    devices: list[str] = field(default_factory=list)
    threads: int | None = None
    precision: str | None = None  # what `auto` takes here
    cache: Path = field(default_factory=cache_folder)
    cached: dict[str, int] = field(default_factory=dict)  # kind -> bytes
    hub_folder: str | None = None
    offline: bool | None = None
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examine() -> Examination:
    """Looks at packages, devices, caches and the environment. Imports torch; raises nothing."""
    found = Examination(versions={"python": sys.version.split()[0], "embedtune": version("embedtune")})
    _examine_packages(found)
    _examine_torch(found)
    _examine_vision(found)
    _examine_cache(found)
    _examine_hub(found)
    return found


def _examine_packages(found: Examination) -> None:
    for requirement in map(Requirement, requires("embedtune") or ()):
        extra = _extra_of(requirement)
        if extra == "test":
            continue
        there = found.versions[requirement.name] = _version_of(requirement.name)
        if there is None and extra is None:
            found.errors.append(f"{requirement.name} is not installed: pip install '{_wanted(requirement)}'")
        elif there is not None and not requirement.specifier.contains(there, prereleases=True):
            wanted = _wanted(requirement)
            found.errors.append(f"{requirement.name} {there} does not fit {wanted}: pip install '{wanted}'")
    for name in ("transformers", "torchvision"):
        found.versions[name] = _version_of(name)


def _extra_of(requirement: Requirement) -> str | None:
    match = re.search(r"extra == .(\w+)", str(requirement.marker or ""))
    return match[1] if match else None


def _wanted(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _examine_torch(found: Examination) -> None:
    try:
        import torch

        from ..models.precision import resolve_device, resolve_precision
    except (ImportError, OSError, RuntimeError) as error:
        found.errors.append(f"torch cannot be imported ({_first_line(error)}): install it again")
        return
    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    found.devices = [*cuda, *(["mps"] if torch.mps.is_available() else []), f"cpu ({os.cpu_count()} cores)"]
    found.threads = torch.get_num_threads()
    found.precision = resolve_precision("auto", resolve_device("auto"))
    if shutil.which("nvidia-smi") and not cuda:
        found.warnings.append(f"this machine has an NVIDIA driver, but torch {torch.__version__} sees no GPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not cuda and found.threads < cores // 2:
        limit = os.environ.get("OMP_NUM_THREADS")
        because = f" because OMP_NUM_THREADS={limit}" if limit else ""
        found.warnings.append(f"torch computes with {found.threads} of {cores} cores{because}")


def _examine_vision(found: Examination) -> None:
    if found.versions["torchvision"] is None:
        return
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        found.warnings.append(
            f"torchvision {found.versions['torchvision']} cannot be imported beside torch {found.versions['torch']} "
            f"({_first_line(error)}): install the build made for this torch, or uninstall it"
        )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _examine_cache(found: Examination) -> None:
    found.cached = {kind.name: sum(map(_size, _entries(kind))) for kind in _kinds(found.cache)}
    nearest = next(folder for folder in (found.cache, *found.cache.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        found.errors.append(f"{found.cache}: cannot be written; set EMBEDTUNE_CACHE to a folder that can")
    elif (free := shutil.disk_usage(nearest).free) < LEAST_FREE:
        found.warnings.append(f"{found.cache}: only {free / 1024**3:.1f} GB are free there")


def _examine_hub(found: Examination) -> None:
    try:
        from huggingface_hub import constants
    except ImportError:
        return  # said already: a package that needs it is missing
    found.hub_folder = constants.HF_HUB_CACHE
    found.offline = bool(constants.HF_HUB_OFFLINE)


def _kinds(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir()) if cache.is_dir() else []


def _entries(kind: Path) -> list[Path]:
    return [path for path in sorted(kind.iterdir()) if _ENTRY.fullmatch(path.name)]


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in (entry, *entry.rglob("*")) if path.is_file())


def clean() -> int:
    """Empties embedtune's cache and nothing else; returns the bytes that were freed."""
    entries = [entry for kind in _kinds(cache_folder()) for entry in _entries(kind)]
    freed = sum(map(_size, entries))
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return freed
