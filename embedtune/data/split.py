"""Splits judgements by query, seeded, without leaving a test document as a training positive."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path

from ..errors import InputError, unknown
from ..files import FolderKind, check_folder, whole_folder
from ..types import Qrels
from .dataset import splits_of
from .jsonl import JsonLines
from .trec import read_qrels, write_qrels

SPLIT = FolderKind(verb="data split")


def split_folder(
    folder: Path,
    output: Path,
    shares: Mapping[str, float],
    *,
    source: str = "train",
    seed: int = 0,
    allow_overlap: bool = False,
    overwrite: bool = False,
) -> dict[str, Qrels]:
    """Writes a copy of a dataset folder in which the split `source` has given up a share of its queries to new splits.

    It is always a new folder: a recipe that names the old split would train on the new test queries. Other splits are
    copied as they are. Returns the judgements of the new splits and those that `source` keeps. Raises InputError for an
    output that may not be written, a split that is absent or would be replaced, and shares that cannot be drawn.
    """
    check_folder(output, SPLIT, overwrite=overwrite)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    splits = splits_of(folder)
    if source not in splits:
        raise InputError(f"{folder}: {unknown('split', source, splits)}")
    if taken := [name for name in shares if name in splits]:
        raise InputError(f"{folder}: has a split {taken[0]!r} already; it would be replaced")
    if output.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{output}: lies inside {folder}; choose a folder beside it")
    parts = split_qrels(
        read_qrels(folder / "qrels" / f"{source}.tsv"), shares, source=source, seed=seed, allow_overlap=allow_overlap
    )
    with whole_folder(output, SPLIT, overwrite=overwrite) as temporary:
        for file in _files(folder):
            target = temporary / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        for name, qrels in parts.items():
            write_qrels(temporary / "qrels" / f"{name}.tsv", qrels)
    return parts


def _files(folder: Path) -> Iterator[Path]:
    """The files of a dataset and the images that it names, without other datasets in a folder of it."""
    for part in (folder, folder / "qrels", folder / "negatives"):
        yield from (file for file in sorted(part.glob("[!.]*")) if file.is_file())
    sets = [JsonLines(folder / f"{name}.jsonl") for name in ("corpus", "queries")]
    images = {item.image for items in sets if items.images for item in items}
    for image in sorted(image for image in images if image):
        if not image.is_file():
            raise InputError(f"{image}: no such image; run `embedtune data check {folder}`")
        yield image


def split_qrels(
    qrels: Qrels, shares: Mapping[str, float], *, source: str = "train", seed: int = 0, allow_overlap: bool = False
) -> dict[str, Qrels]:
    """Deals queries out to named shares (of their number); `source` keeps the rest.

    Queries that share a positive, directly or through others, stay together unless `allow_overlap`: then no document is
    a positive in two parts. The same seed and judgements give the same parts, in any order of reading. Raises
    InputError where shares leave no rest, or groups are so large that a share gets less than half of what is asked.
    """
    if not shares or min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        asked = ", ".join(f"{name} {share:g}" for name, share in shares.items()) or "none"
        raise InputError(f"shares must be above 0 and leave a rest for {source!r}; got {asked}")
    groups = [[query_id] for query_id in sorted(qrels)] if allow_overlap else connected(qrels)
    random.Random(seed).shuffle(groups)
    room = {name: max(1, round(share * len(qrels))) for name, share in shares.items()}
    part_of: dict[str, str] = {}  # query_id -> part, where it is not `source`
    for group in groups:
        for name, free in room.items():
            if len(group) <= free:
                room[name] -= len(group)
                part_of.update(zip(group, repeat(name)))
                break
    parts: dict[str, Qrels] = {part: {} for part in (source, *shares)}
    for query_id, judged in qrels.items():
        parts[part_of.get(query_id, source)][query_id] = judged
    _refuse_small(parts, shares, len(qrels), max(map(len, groups), default=0))
    return parts


def connected(qrels: Qrels) -> list[list[str]]:
    """Queries in groups: two that share a positive are in the same one. Groups and their queries are sorted."""
    ordered = sorted(qrels)
    first: dict[str, str] = {}  # doc_id -> the first query that it is a positive of
    group_of: dict[str, list[str]] = {}  # query_id -> its group, one list for all of them; absent while it is alone
    for query_id in ordered:
        for doc_id, relevance in qrels[query_id].items():
            if relevance > 0 and (other := first.setdefault(doc_id, query_id)) != query_id:
                _join(group_of, query_id, other)
    for group in {id(group): group for group in group_of.values()}.values():
        group.sort()
    groups = (group_of.get(query_id, [query_id]) for query_id in ordered)
    return [group for group, query_id in zip(groups, ordered, strict=True) if group[0] == query_id]


def _join(group_of: dict[str, list[str]], one: str, other: str) -> None:
    """Makes one group of those of two queries."""
    small, large = sorted((group_of.setdefault(query_id, [query_id]) for query_id in (one, other)), key=len)
    if small is not large:
        large += small
        group_of.update(zip(small, repeat(large)))


def _refuse_small(parts: Mapping[str, Qrels], shares: Mapping[str, float], queries: int, largest: int) -> None:
    for name, share in shares.items():
        if not parts[name] or len(parts[name]) < 0.5 * share * queries:
            raise InputError(
                f"{name} would have {len(parts[name])} queries instead of {share * queries:.0f}: one group of "
                f"{largest} of the {queries} queries shares positives; ask for less, or allow overlap "
                "(`embedtune data split --allow-overlap`)"
            )
    if empty := [name for name, qrels in parts.items() if not qrels]:
        raise InputError(f"{empty[0]} would have no queries: {queries} are too few for these shares")
