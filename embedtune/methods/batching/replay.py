from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...types import Pair
from . import BatchContext


def replay(
    pairs: Sequence[Pair], batch_size: int, context: BatchContext, *, path: str, generator: torch.Generator
) -> list[list[Pair]]:
    """Takes the batches, in order, from a JSON file: for exact comparisons with another trainer.

    path: a list of batches, each a list of [query_id, doc_id] pairs, or an object that has it under "batches". Pairs
    that the file does not name are not used. Raises InputError where an entry is no pair of the training data or
    stands twice, and where a batch is larger than batch_size.
    """
    known = {(pair.query_id, doc_id): index for index, pair in enumerate(pairs) for doc_id in pair.positives}
    used: set[int] = set()
    batches = []
    for number, entries in enumerate(_read(path), start=1):
        where = f"{path}: batch {number}"
        if len(entries) > batch_size:
            raise InputError(f"{where} has {len(entries)} pairs, more than train.batch_size {batch_size}")
        batch = []
        for query_id, doc_id in entries:
            index = known.get((query_id, doc_id))
            if index is None:
                raise InputError(f"{where}: [{query_id!r}, {doc_id!r}] is not a positive pair of the training data")
            if index in used:
                raise InputError(f"{where}: [{query_id!r}, {doc_id!r}] was used before; give one epoch of batches")
            used.add(index)
            batch.append(pairs[index])
        batches.append(batch)
    return batches


def _read(path: str) -> list[list[tuple[str, str]]]:
    try:
        values: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON batches: {error}") from None
    batches = values.get("batches") if isinstance(values, dict) else values
    if not isinstance(batches, list) or not batches or not all(isinstance(batch, list) and batch for batch in batches):
        raise InputError(f"{path}: expected a list of batches, each a list of [query_id, doc_id] pairs")
    for number, batch in enumerate(batches, start=1):
        for entry in batch:
            if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
                raise InputError(f"{path}: batch {number}: expected [query_id, doc_id], got {entry!r}")
    return [[(query_id, doc_id) for query_id, doc_id in batch] for batch in batches]
