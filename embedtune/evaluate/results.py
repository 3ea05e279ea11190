"""The results of an evaluation, and the folder that keeps them: measures, per-query values, the run."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..data.trec import write_run
from ..errors import InputError
from ..files import (
    FileKind,
    FolderKind,
    check_container,
    check_folder,
    whole_folder,
    write_json,
    write_lines,
    write_text,
)
from ..types import Dataset, Qrels, Run
from .measures import mean, ranked

BASELINE = "baseline"
MEANS = "-means.json"  # behind a protocol's name
Protocol = dict[str, int | bool | str]
"""How documents were retrieved: setting -> value."""
EVALUATION = FolderKind(verb="eval", unmarked={"measures.json", "per-query.jsonl", "run.trec"}.__eq__)


def _holds_means(file: Path) -> bool:
    try:
        means = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(means, list) and all(isinstance(mean, dict) and "parts" in mean for mean in means)


MEANS_FILE = FileKind(verb="eval", wrote=_holds_means)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One model (or run) on one split of one dataset.

    folder: the dataset's, from which its texts are read later. fingerprints: of the data, and of the model or the run
    file. per_query: measure -> query_id -> value, for every judged query. protocol: how documents were retrieved: the
    depth, whether documents with the query's own id were removed, the number of dimensions, how documents were split.
    groups: category -> its number of queries and the means over them, if the data has categories. texts: query_id ->
    how it is shown, if that is not in the data's own queries.jsonl. files: name -> text of more files in its folder.
    slices: query_id -> the slices that it is in, which are groups, too.
    """

    dataset: str
    split: str
    model: str
    folder: str
    fingerprints: dict[str, str]
    per_query: dict[str, dict[str, float]] = field(repr=False)
    run: Run = field(repr=False)
    qrels: Qrels = field(repr=False)
    protocol: Protocol = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict, repr=False)
    files: dict[str, str] = field(default_factory=dict, repr=False)
    slices: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The dataset's name, with the split if it is not `test`."""
        return self.dataset if self.split == "test" else f"{self.dataset}-{self.split}"

    @property
    def queries(self) -> int:
        return len(self.qrels)

    @cached_property
    def measures(self) -> dict[str, float]:
        """measure -> mean over all judged queries."""
        return mean(self.per_query)


def distinct(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The datasets under names whose results do not collide: with parent folders in front, as few as that takes.

    Raises InputError for a dataset that is given twice.
    """
    renamed = list(datasets)
    for parents in range(1, max((len(dataset.folder.resolve().parts) for dataset in datasets), default=0)):
        counts = Counter(dataset.label.casefold() for dataset in renamed)
        for index, dataset in enumerate(datasets):
            label = renamed[index].label
            if counts[label.casefold()] > 1 or label == BASELINE:
                name = "-".join([*dataset.folder.resolve().parts[-parents - 1 : -1], dataset.name])
                renamed[index] = replace(dataset, name=name)
    counts = Counter(dataset.label.casefold() for dataset in renamed)
    for dataset in renamed:
        if counts[dataset.label.casefold()] > 1:
            raise InputError(f"dataset {dataset.folder} (split {dataset.split}) is given twice")
    return renamed


def write(evaluation: Evaluation, output: Path) -> Path:
    """Writes `output/<label>/` with measures.json, per-query.jsonl and run.trec, whole, in place of an earlier one."""
    folder = output / evaluation.label
    shown = ["dataset", "split", "model", "folder", "fingerprints", "queries", "measures", "protocol"]
    shown += ["groups"] if evaluation.groups else []
    with whole_folder(folder, EVALUATION, overwrite=True) as temporary:
        write_json(temporary / "measures.json", {name: getattr(evaluation, name) for name in shown})
        write_lines(temporary / "per-query.jsonl", _per_query_lines(evaluation))
        write_run(temporary / "run.trec", evaluation.run, Path(evaluation.model).name)
        for name, text in evaluation.files.items():
            write_text(temporary / name, text)
    return folder


def _per_query_lines(evaluation: Evaluation) -> Iterator[str]:
    for query_id, judged in evaluation.qrels.items():
        line: dict[str, object] = {
            "query_id": query_id,
            "measures": {name: values[query_id] for name, values in evaluation.per_query.items()},
            "first_positive": _first_positive(judged, evaluation.run.get(query_id, {})),
        }
        if query_id in evaluation.texts:
            line["text"] = evaluation.texts[query_id]
        if query_id in evaluation.slices:
            line["slices"] = evaluation.slices[query_id]
        yield json.dumps(line, ensure_ascii=False)


def _first_positive(judged: dict[str, int], scores: dict[str, float]) -> dict[str, object] | None:
    """The first relevant document of the ranking with its rank and score, None if the ranking has none."""
    for rank, doc_id in enumerate(ranked(scores), start=1):
        if judged.get(doc_id, 0) > 0:
            return {"doc_id": doc_id, "rank": rank, "score": scores[doc_id]}
    return None


def results_in(output: Path) -> list[Path]:
    """The result folders in an output folder, the baseline's included."""
    return sorted(file.parent for pattern in ("*", f"{BASELINE}/*") for file in output.glob(f"{pattern}/measures.json"))


def prepare(output: Path, overwrite: bool, labels: Sequence[str] = ()) -> None:
    """Makes the output folder before hours are spent on its content.

    labels: of the evaluations that will be written there. Raises InputError for an output that is a file, a dataset, a
    model, a run or an index, for one that cannot be written or holds results that may not be overwritten, and if
    something else than an earlier result has the name of one of the labels.
    """
    check_container(output)
    results = results_in(output)
    if results and not overwrite:
        raise InputError(
            f"{output}: holds results already ({results[0].relative_to(output)}); "
            "choose another --output, or replace them with --overwrite"
        )
    for label in labels:
        check_folder(output / label, EVALUATION, overwrite=overwrite)
    output.mkdir(parents=True, exist_ok=True)


def remove_others(output: Path, keep: Sequence[Path]) -> None:
    """Removes results of an earlier evaluation, so that a folder never holds two evaluations' results at once."""
    for folder in results_in(output):
        if folder not in keep and not folder.is_symlink() and EVALUATION.wrote(folder):
            shutil.rmtree(folder)
    for file in (file for pattern in ("*", f"{BASELINE}/*") for file in output.glob(f"{pattern}{MEANS}")):
        if file not in keep and MEANS_FILE.wrote(file):
            file.unlink()
    if (output / BASELINE).is_dir() and not any((output / BASELINE).iterdir()):
        (output / BASELINE).rmdir()
