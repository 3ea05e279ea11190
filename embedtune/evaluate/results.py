"""What an evaluation found, and the folder that keeps it: measures, per-query values, the run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data.trec import write_run
from ..errors import InputError
from ..files import FileKind, FolderKind, check_container, check_folder, whole_folder, write_json, write_lines
from ..types import Dataset, Qrels, Run
from .measures import ranked

BASELINE = "baseline"
MEANS = "-means.json"  # behind a protocol's name
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

    folder: the dataset's, where its texts are found again. fingerprints: of the data, and of the model or the run
    file, where known.
    protocol: how it was retrieved: depth, whether documents with the query's own id were removed, dimensions used.
    measures: measure -> mean over all judged queries. per_query: measure -> query_id -> value.
    groups: category -> its number of queries and the means over them, where the data has categories.
    texts: query_id -> how it is shown, where that is not in the data's own queries.jsonl.
    """

    label: str
    dataset: str
    split: str
    model: str
    folder: str
    fingerprints: dict[str, str]
    queries: int
    measures: dict[str, float]
    protocol: dict[str, int | bool] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict, repr=False)
    per_query: dict[str, dict[str, float]] = field(repr=False)
    run: Run = field(repr=False)
    qrels: Qrels = field(repr=False)


def distinct(datasets: Sequence[Dataset]) -> list[Dataset]:
    """The datasets under names whose results do not collide: as many parent folders in front as that takes.

    Raises InputError where a dataset is given twice.
    """
    names = [dataset.name for dataset in datasets]
    for parents in range(1, max((len(dataset.folder.resolve().parts) for dataset in datasets), default=0)):
        counts = Counter(label.casefold() for label in _labels(datasets, names))
        for place, dataset in enumerate(datasets):
            label = _labels([dataset], [names[place]])[0]
            if counts[label.casefold()] > 1 or label == BASELINE:
                names[place] = "-".join([*dataset.folder.resolve().parts[-parents - 1 : -1], dataset.name])
    labels = _labels(datasets, names)
    for label, count in Counter(label.casefold() for label in labels).items():
        if count > 1:
            twice = datasets[[name.casefold() for name in labels].index(label)]
            raise InputError(f"dataset {twice.folder} (split {twice.split}) is given twice")
    return [dataclasses.replace(dataset, name=name) for dataset, name in zip(datasets, names, strict=True)]


def _labels(datasets: Sequence[Dataset], names: Sequence[str]) -> list[str]:
    return [dataclasses.replace(dataset, name=name).label for dataset, name in zip(datasets, names, strict=True)]


def write(evaluation: Evaluation, output: Path) -> Path:
    """Writes `output/<label>/` with measures.json, per-query.jsonl and run.trec, whole, in place of an earlier one."""
    folder = output / evaluation.label
    shown = ["dataset", "split", "model", "folder", "fingerprints", "queries", "measures", "protocol"]
    shown += ["groups"] if evaluation.groups else []
    with whole_folder(folder, EVALUATION, overwrite=True) as temporary:
        write_json(temporary / "measures.json", {name: getattr(evaluation, name) for name in shown})
        write_lines(temporary / "per-query.jsonl", _per_query_lines(evaluation))
        write_run(temporary / "run.trec", evaluation.run, Path(evaluation.model).name)
    return folder


def _per_query_lines(evaluation: Evaluation) -> Iterator[str]:
    for query_id, judged in evaluation.qrels.items():
        values = {name: by_query[query_id] for name, by_query in evaluation.per_query.items()}
        first = _first_positive(judged, evaluation.run.get(query_id, {}))
        line: dict[str, object] = {"query_id": query_id, "measures": values, "first_positive": first}
        line |= {"text": evaluation.texts[query_id]} if query_id in evaluation.texts else {}
        yield json.dumps(line, ensure_ascii=False)


def _first_positive(judged: dict[str, int], scores: dict[str, float]) -> dict[str, object] | None:
    """Where the first relevant document stands in the ranking, or None where there is none in it."""
    for rank, doc_id in enumerate(ranked(scores), start=1):
        if judged.get(doc_id, 0) > 0:
            return {"doc_id": doc_id, "rank": rank, "score": scores[doc_id]}
    return None


def results_in(output: Path) -> list[Path]:
    """The result folders in an output folder, the baseline's included."""
    return sorted(file.parent for pattern in ("*", f"{BASELINE}/*") for file in output.glob(f"{pattern}/measures.json"))


def prepare(output: Path, overwrite: bool, labels: Sequence[str] = ()) -> None:
    """Makes the output folder before hours are spent on its content.

    labels: of the evaluations that will be written there. Raises InputError where the output is a file, a dataset, a
    model, a run or an index, cannot be written to, holds results that may not be overwritten, or where something else
    than an earlier result stands under one of the labels.
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
