"""Evaluation protocols with candidates for each query: each file recognises one layout and reads it into a Suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ...data.dataset import load_dataset
from ...errors import InputError, unknown
from ...types import Dataset
from ..results import distinct
from ..suites import Suite


@cache
def names() -> list[str]:
    """The names of the protocols, which are those of their files."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[a-z]*.py"))


def open_suite(folder: Path, protocol: str | None = None, images: Path | None = None) -> Suite | None:
    """Reads a folder by the named protocol, or by the one that recognises it; None if none does.

    images: the folder of the images, if it is another one. Raises InputError for an unknown protocol, for a folder of
    another layout than the named protocol's, for wrong rows and for absent images.
    """
    if protocol is not None and protocol not in names():
        raise InputError(unknown("protocol", protocol, names()))
    if images is not None and not images.is_dir():
        raise InputError(f"{images}: no such folder of images")
    for name in names() if protocol is None else [protocol]:
        module: Any = import_module(f".{name}", __package__)
        if module.recognises(folder):
            suite: Suite = module.read(folder, images)
            return suite
    if protocol is not None:
        raise InputError(f"{folder}: not laid out as {protocol}; expected {module.LAYOUT}")
    return None


def open_data(
    data: Sequence[str], protocol: str | None = None, images: Path | None = None
) -> tuple[list[Dataset], list[Suite]]:
    """The named data as datasets to retrieve from and as suites of protocols, recognised or named.

    Raises InputError as `open_suite` and `load_dataset` do, and for data that is named twice.
    """
    datasets: list[Dataset] = []
    suites: list[Suite] = []
    for name in data:
        folder = Path(name).expanduser()
        plain = protocol is None and (not folder.is_dir() or (folder / "corpus.jsonl").exists())
        suite = None if plain else open_suite(folder, protocol, images)
        if suite is not None:
            suites.append(suite)
        else:
            datasets.append(load_dataset(name))
    if images is not None and not suites:
        raise InputError(f"--image-folder {images}: has no effect; none of {', '.join(data)} is a protocol's folder")
    datasets = distinct(datasets)
    counts = Counter([*(dataset.label for dataset in datasets), *(label for suite in suites for label in suite.labels)])
    for label, count in counts.items():
        if count > 1:
            raise InputError(f"{label} is given twice")
    return datasets, suites
