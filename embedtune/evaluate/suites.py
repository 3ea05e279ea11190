"""What a folder holds by a protocol, evaluated; and the means that the protocol reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..files import check_file, write_json
from ..types import Dataset
from .lists import Task, evaluate_task
from .results import MEANS, MEANS_FILE, Evaluation
from .retrieval import Retrieval, evaluate

if TYPE_CHECKING:
    from ..models.encoder import Encoder, Progress


@dataclass(frozen=True, kw_only=True)
class Part:
    """One value that a mean is over: a task's, or that of one of its groups."""

    label: str
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What a folder holds by a protocol: tasks (and whole corpora to retrieve from, with the measure for them), and
    which means the protocol reports. means: title -> (its parts that are here, of how many there are)."""

    protocol: str
    tasks: list[Task]
    means: dict[str, tuple[list[Part], int]] = field(default_factory=dict)
    corpora: list[Dataset] = field(default_factory=list)
    corpus_measure: str = "nDCG@5"
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Of all its results."""
        return [task.label for task in self.tasks] + [corpus.label for corpus in self.corpora]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over sets that count the same, whatever their size. parts: how many are here, of how many there are."""

    title: str
    measures: dict[str, float]
    parts: int
    of: int


def evaluate_suite(
    encoder: Encoder,
    suite: Suite,
    *,
    truncate_dim: int | None = None,
    output: Path | None = None,
    on_progress: Progress | None = None,
) -> list[Evaluation]:
    """Every task's and every corpus's evaluation; written as folders under `output`, with the means, where given."""
    found = [
        evaluate_task(encoder, task, truncate_dim=truncate_dim, output=output, on_progress=on_progress)
        for task in suite.tasks
    ]
    found += [
        evaluate(
            encoder,
            dataset,
            measures=suite.corpus_measure,
            retrieval=Retrieval(truncate_dim=truncate_dim),
            output=output,
            on_progress=on_progress,
        )
        for dataset in suite.corpora
    ]
    if output is not None and suite.means:
        check_file(output / f"{suite.protocol}{MEANS}", MEANS_FILE, overwrite=True)
        write_json(output / f"{suite.protocol}{MEANS}", [asdict(mean) for mean in means_of(suite, found)])
    return found


def means_of(suite: Suite, evaluations: Sequence[Evaluation]) -> list[Mean]:
    """The means that the protocol reports, of the parts that are there."""
    by_label = {evaluation.label: evaluation for evaluation in evaluations}
    found = []
    for title, (parts, of) in suite.means.items():
        values = [by_label[p.label].measures if p.group is None else by_label[p.label].groups[p.group] for p in parts]
        names = [name for name in values[0] if name != "queries" and all(name in value for value in values)]
        means = {name: float(np.mean([value[name] for value in values])) for name in names}
        found.append(Mean(title=title, measures=means, parts=len(parts), of=of))
    return found


def refuse_repeated(labels: Sequence[str]) -> None:
    """Raises InputError where two results would have the same name."""
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"{label} is given twice")
