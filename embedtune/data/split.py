"""Splits judgements by query, seeded, without leaving a test document as a training positive."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from ..errors import InputError, unknown
from ..files import FolderKind, check_folder, whole_folder
from ..types import Qrels
from .dataset import splits_of
from .ids import Numbers, numbers_of
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
    ordered = sorted(qrels)
    groups = np.arange(len(ordered)) if allow_overlap else connected(qrels, ordered)
    rows = np.argsort(groups, kind="stable")  # group by group
    members = list(map(ordered.__getitem__, rows.tolist()))
    starts = np.flatnonzero(np.diff(groups[rows], prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    drawn = list(range(len(starts)))
    random.Random(seed).shuffle(drawn)
    room = {name: max(1, round(share * len(qrels))) for name, share in shares.items()}
    part_of: dict[str, str] = {}  # query_id -> part, where it is not `source`
    for start, size in zip(starts[drawn].tolist(), sizes[drawn].tolist(), strict=True):
        if not any(room.values()):
            break
        for name, free in room.items():
            if size <= free:
                room[name] -= size
                part_of.update(zip(members[start : start + size], repeat(name)))
                break
    parts: dict[str, Qrels] = {part: {} for part in (source, *shares)}
    for query_id, judged in qrels.items():
        parts[part_of.get(query_id, source)][query_id] = judged
    _refuse_small(parts, shares, len(qrels), sizes.max(initial=0))
    return parts


def connected(qrels: Qrels, query_ids: Sequence[str]) -> Numbers:
    """For each query the row of the first query of its group: two queries that share a positive are in the same one.

    Each query points to one of its group that is not behind it, at first to itself. Until nothing moves, queries that
    others point to are pointed to the first that a shared document shows, and pointers are followed once.
    """
    judged = list(map(qrels.__getitem__, query_ids))
    counts = np.fromiter(map(len, judged), np.int64, len(judged))
    positive = np.fromiter((relevance > 0 for relevances in judged for relevance in relevances.values()), np.bool_)
    queries = np.repeat(np.arange(len(judged)), counts)[positive]
    documents = np.unique(numbers_of(list(chain.from_iterable(judged)))[positive], return_inverse=True)[1]
    groups = np.arange(len(judged))
    while True:
        first = np.full(len(documents), len(judged))  # of each document
        np.minimum.at(first, documents, groups[queries])
        moved = groups.copy()
        np.minimum.at(moved, groups[queries], first[documents])
        moved = moved[moved]
        if np.array_equal(moved, groups):
            return groups
        groups = moved


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
