from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import InputError
from ...types import Pair
from . import BatchContext, cut


def homogeneous(
    pairs: Sequence[Pair],
    batch_size: int,
    context: BatchContext,
    *,
    sub_batch: int | None = None,
    temperature: float = 1.0,
    shares: dict[str, float] | None = None,
    generator: torch.Generator,
) -> list[list[Pair]]:
    """Mixes several datasets in sub-batches of one dataset each (VLM2Vec, arXiv 2410.05160), large ones damped.

    sub_batch: pairs of one dataset that stand together, a divisor of batch_size. Absent: each batch has pairs of one
        dataset only. VLM2Vec uses 64 in batches of 1024.
    temperature: a dataset of n pairs has n^(1 / temperature) shares. At 1 every pair is used once. Above 1 the larger
        datasets are cut down, to pairs drawn again every epoch, until the shares hold (the dataset that has the least
        to spare is used whole); towards infinity all count the same.
    shares: of each dataset, by its label (its folder's name, with the split where that is not `test`), in place of
        those of its size: {scifact-train: 0.8, nq-train: 0.2} replays one pair of nq for four of scifact.

    Raises InputError where data.train is a single dataset, and for shares of other datasets than those.
    """
    if context.dataset_of is None:
        raise InputError("batching.homogeneous: mixes several datasets; name them in data.train as a list")
    if temperature < 1:
        raise InputError(f"batching.homogeneous.temperature: must be at least 1, got {temperature}")
    size = sub_batch or batch_size
    if size < 1 or batch_size % size:
        raise InputError(f"batching.homogeneous.sub_batch: {size} does not divide the batch size {batch_size}")
    datasets: dict[str, list[Pair]] = {}
    for index in torch.randperm(len(pairs), generator=generator).tolist():
        datasets.setdefault(context.dataset_of[pairs[index].query_id], []).append(pairs[index])
    weights = _checked(shares, datasets) or {
        label: len(of_label) ** (1 / temperature) for label, of_label in datasets.items()
    }
    per_share = min((len(members) / weights[label] for label, members in datasets.items()), default=0.0)
    parts = []
    for label in sorted(datasets):
        used = min(max(round(per_share * weights[label]), 1), len(datasets[label]))
        parts += cut(datasets[label][:used], size)
    parts = [parts[index] for index in torch.randperm(len(parts), generator=generator).tolist()]
    return _joined(parts, batch_size // size, size)


def _checked(shares: dict[str, float] | None, datasets: dict[str, list[Pair]]) -> dict[str, float] | None:
    if shares is None:
        return None
    if shares.keys() != datasets.keys() or min(shares.values()) <= 0:
        raise InputError(
            f"batching.homogeneous.shares: expected a number above 0 for each of {', '.join(sorted(datasets))}, "
            f"got {shares}"
        )
    return shares


def _joined(parts: list[list[Pair]], count: int, size: int) -> list[list[Pair]]:
    """Batches of `count` sub-batches each. Single sub-batches that remain share a batch."""
    batches = [
        [pair for part in parts[start : start + count] for pair in part] for start in range(0, len(parts), count)
    ]
    alone = [pair for batch in batches if len(batch) == 1 for pair in batch]
    batches = [batch for batch in batches if len(batch) > 1]
    if batches and len(alone) == 1:
        batches[-1] += alone
        return batches
    return batches + cut(alone, count * size)
