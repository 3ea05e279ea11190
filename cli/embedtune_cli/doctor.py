"""`embedtune doctor`: the versions, devices and caches of this machine, and the faults that stop embedtune."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from . import options
from .options import switch
from .output import say, show_json, show_table

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LEAST_FREE = 2 * 1024**3  # bytes; room for a model, its copy and a corpus's embeddings
# Cache entries are named by a hash of their content; a leading dot marks one that a killed process left half written.
# Other files in the cache folder belong to the user and are never deleted.
_ENTRY = re.compile(r"\.?[0-9a-f]{32}(\..+)?")


@dataclass(kw_only=True)
class Examination:
    """The state of this machine. An error keeps embedtune from working; a warning costs time or a feature."""

    versions: dict[str, str | None]  # package -> version, None if it is not installed
    cache: Path
    devices: list[str] = field(default_factory=list)
    threads: int | None = None
    precision: str | None = None  # the precision that `auto` selects here
    cached: dict[str, int] = field(default_factory=dict)  # kind of cache entry -> bytes
    hub_folder: str | None = None
    offline: bool | None = None
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def doctor(
    clean: Annotated[bool, switch("--clean", "Empty embedtune's own cache and do nothing else.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show versions, devices, threads, caches and the offline state. Exits with code 1 if it finds an error.

    Example: embedtune doctor

    Example: embedtune doctor --clean
    """
    from embedtune.errors import BarMissed, InputError

    if clean and as_json:
        raise InputError("--json has no effect with --clean")
    if clean:
        say(f"freed {_in_words(clean_cache())}")
        return
    examination = examine()
    if as_json:
        show_json(dataclasses.asdict(examination) | {"cache": str(examination.cache)})
    else:
        show_table(["item", "value"], _rows(examination), as_json=False)
    if count := len(examination.errors):
        raise BarMissed(f"{count} {'errors' if count > 1 else 'error'} to fix, listed above")


def _rows(examination: Examination) -> list[Sequence[object]]:
    return [
        *([name, version or "not installed"] for name, version in examination.versions.items()),
        ["devices", ", ".join(examination.devices)],
        ["threads", examination.threads],
        ["precision auto", examination.precision],
        ["cache", examination.cache],
        *([f"cache: {kind}", _in_words(size)] for kind, size in examination.cached.items()),
        ["hub cache", examination.hub_folder],
        ["offline (HF_HUB_OFFLINE)", "yes" if examination.offline else "no"],
        *(["ERROR", error] for error in examination.errors),
        *(["warning", warning] for warning in examination.warnings),
    ]


def _in_words(size: int) -> str:
    return f"{size / 1024**3:.2f} GB" if size >= 1024**3 else f"{size / 1024**2:.1f} MB"


def examine() -> Examination:
    """Examines packages, devices, caches and the environment. Imports torch; a failed import is an error listed."""
    from importlib.metadata import version

    from embedtune.files import cache_folder

    versions: dict[str, str | None] = {"python": sys.version.split()[0], "embedtune": version("embedtune")}
    examination = Examination(versions=versions, cache=cache_folder())
    examine_packages(examination)
    _examine_torch(examination)
    examine_vision(examination)
    examine_cache(examination)
    _examine_hub(examination)
    return examination


def examine_packages(examination: Examination) -> None:
    """Compares the installed packages with the requirements that embedtune's own metadata states."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    for requirement in map(Requirement, requires("embedtune") or ()):
        extra = _extra_of(requirement)
        if extra == "test":
            continue
        installed = examination.versions[requirement.name] = _version_of(requirement.name)
        wanted = f"{requirement.name}{requirement.specifier}"
        if installed is None and extra is None:
            examination.errors.append(f"{requirement.name} is not installed: pip install '{wanted}'")
        elif installed is not None and not requirement.specifier.contains(installed, prereleases=True):
            examination.errors.append(f"{requirement.name} {installed} is outside {wanted}: pip install '{wanted}'")
    for name in ("transformers", "torchvision"):
        examination.versions[name] = _version_of(name)


def _extra_of(requirement: Requirement) -> str | None:
    match = re.search(r"extra == .(\w+)", str(requirement.marker or ""))
    return match[1] if match else None


def _version_of(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _examine_torch(examination: Examination) -> None:
    try:
        import torch

        from embedtune.models.precision import resolve_device, resolve_precision
    except (ImportError, OSError, RuntimeError) as error:
        examination.errors.append(f"torch cannot be imported ({_first_line(error)}): install it again")
        return
    cuda = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    examination.devices = [*cuda, *(["mps"] if torch.mps.is_available() else []), f"cpu ({os.cpu_count()} cores)"]
    examination.threads = torch.get_num_threads()
    examination.precision = resolve_precision("auto", resolve_device("auto"))
    if shutil.which("nvidia-smi") and not cuda:
        examination.warnings.append(f"this machine has an NVIDIA driver, but torch {torch.__version__} sees no GPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not cuda and examination.threads < cores // 2:
        limit = os.environ.get("OMP_NUM_THREADS")
        because = f" because OMP_NUM_THREADS={limit}" if limit else ""
        examination.warnings.append(f"torch computes with {examination.threads} of {cores} cores{because}")


def examine_vision(examination: Examination) -> None:
    """Imports torchvision where it is installed: a build for another torch fails only then."""
    if examination.versions["torchvision"] is None:
        return
    try:
        import_module("torchvision")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        versions = examination.versions
        examination.warnings.append(
            f"torchvision {versions['torchvision']} cannot be imported beside torch {versions['torch']} "
            f"({_first_line(error)}): install the build made for this torch, or uninstall it"
        )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def examine_cache(examination: Examination) -> None:
    """Measures the cache, and checks that its folder can be written and has free space."""
    cache = examination.cache
    examination.cached = {kind.name: sum(map(_size, _entries(kind))) for kind in _kinds(cache)}
    nearest = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        examination.errors.append(f"{cache}: cannot be written; set EMBEDTUNE_CACHE to a folder that can")
    elif (free := shutil.disk_usage(nearest).free) < LEAST_FREE:
        examination.warnings.append(f"{cache}: only {free / 1024**3:.1f} GB of disk space are free")


def _examine_hub(examination: Examination) -> None:
    try:
        from huggingface_hub import constants
    except ImportError:
        return  # examine_packages has listed the missing package
    examination.hub_folder = constants.HF_HUB_CACHE
    examination.offline = bool(constants.HF_HUB_OFFLINE)


def _kinds(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir()) if cache.is_dir() else []


def _entries(kind: Path) -> list[Path]:
    return [path for path in sorted(kind.iterdir()) if _ENTRY.fullmatch(path.name)]


def _size(entry: Path) -> int:
    return sum(path.stat().st_size for path in (entry, *entry.rglob("*")) if path.is_file())


def clean_cache() -> int:
    """Deletes embedtune's cache entries and nothing else; returns the number of bytes freed."""
    from embedtune.files import cache_folder

    entries = [entry for kind in _kinds(cache_folder()) for entry in _entries(kind)]
    freed = sum(map(_size, entries))
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    return freed
