"""Hugging Face datasets: saved on disk (`save_to_disk`), or by hub id where one is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from .records import Row

HUB = "hf://"
Table = Any
"""A `datasets.Dataset`: rows as dicts, with `column_names`."""
T = TypeVar("T")


def is_source(source: str | Path) -> bool:
    """Whether this is a hub id or a dataset saved on disk."""
    path = Path(source).expanduser()
    saved = (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()
    return str(source).startswith(HUB) or (saved and not (path / "corpus.jsonl").exists())


def open_tables(source: str, split: str) -> dict[str, Table]:
    """split -> table. A dataset without splits gets the name `split`. Only `hf://` uses the network.

    Of a retrieval set on the hub, whose configurations are corpus, queries and judgements: `configuration/split`.
    """
    if source.startswith(HUB):
        return _from_hub(source)
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(Path(source).expanduser()))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{source}: cannot be read as a saved dataset: {_first_line(error)}") from None
    tables = dict(loaded) if isinstance(loaded, DatasetDict) else {split: loaded}
    return {name: _as_stored(table, source) for name, table in tables.items()}


def _as_stored(table: Table, source: str) -> Table:
    """The table with images as their stored bytes, not decoded.

    Raises InputError for a column of datasets' type Json: its strings are parsed, so that the id "007" comes back as 7.
    """
    from datasets import Image, List

    for name, feature in table.features.items():
        if "Json(" in repr(feature) and not name.startswith("meta"):  # metadata is not read
            raise InputError(
                f"{source}: column {name!r} has values of several types, which datasets stores as Json and gives back "
                'changed ("007" as 7); make all of them strings and save the dataset again'
            )
        if isinstance(feature, Image):
            table = table.cast_column(name, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image):
            table = table.cast_column(name, List(Image(decode=False)))
    return table


def rows_of(table: Table, where: str) -> Iterator[Row]:
    """The rows of a table. A label of datasets' type ClassLabel is its name; -1, which means none, is None."""
    from datasets import ClassLabel

    named = {name: feature.names for name, feature in table.features.items() if isinstance(feature, ClassLabel)}
    for number, row in enumerate(table, start=1):
        labels = {
            name: names[row[name]] if row[name] is not None and row[name] >= 0 else None
            for name, names in named.items()
        }
        yield f"{where}: row {number}", row | labels


def pinned(source: str) -> str:
    """The hub id with the commit of its revision. Asks the hub unless the revision is a commit already."""
    name, config, revision = _parts(source)
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        from huggingface_hub import dataset_info

        revision = str(_asking(source, lambda: dataset_info(name, revision=revision).sha))
    return f"{HUB}{name}/{config}@{revision}"


def _from_hub(source: str) -> dict[str, Table]:
    from datasets import get_dataset_config_names

    name, config, revision = _parts(source)
    configs = [] if config else _asking(source, lambda: get_dataset_config_names(name, revision=revision))
    if not {"corpus", "queries"} <= set(configs):
        return _load(source, config)
    return {f"{part}/{split}": table for part in configs for split, table in _load(source, part).items()}


def _load(source: str, config: str) -> dict[str, Table]:
    from datasets import load_dataset

    name, _, revision = _parts(source)
    tables = _asking(source, lambda: load_dataset(name, config or None, revision=revision))
    return {split: _as_stored(table, source) for split, table in tables.items()}


def _parts(source: str) -> tuple[str, str, str]:
    """`hf://owner/name[/configuration]@revision` as (owner/name, configuration or "", revision)."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:/([\w.-]+))?@([\w./-]+)", source)
    if not match:
        raise InputError(f"{source}: expected hf://owner/name@revision (or hf://owner/name/configuration@revision)")
    return match[1], match[2] or "", match[3]


def _asking(source: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Exception as error:  # the hub's client, its transport and the builders each raise their own kinds
        message = f"{source}: cannot be loaded from the hub ({type(error).__name__}: {_first_line(error)})"
        raise InputError(f"{message}; offline, save it elsewhere with save_to_disk and name that folder") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
