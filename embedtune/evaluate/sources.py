"""Results that can be compared: evaluation folders, run folders, TREC runs and mteb's result files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.dataset import load_dataset, source_of
from ..data.jsonl import parse_object, read_json, read_lines
from ..data.runs import RunFile, load_run
from ..errors import InputError, unknown
from ..recipe import without_prefixes
from ..recipe.strict_yaml import read as read_yaml
from ..types import Dataset, Run
from .domains import Domain, domains_of, read_summary
from .measures import DEFAULT_MEASURES, MAIN_SCORE, from_mteb, mean
from .results import BASELINE, MEANS, Protocol
from .retrieval import evaluate_run

RUN_SUFFIXES = {".run", ".trec", ".txt", ".tsv", ".res", ".json"}  # of a run's file in a folder of them


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The values of one source on one dataset.

    measures: measure -> mean. per_query: measure -> query_id -> value, None if only means are known. first_ranks:
    query_id -> rank of its first positive, None if none was retrieved. fingerprint: of the data. folder: the dataset's,
    if it is known. texts: those of the queries, if the results keep
    them. protocol: how documents were retrieved, as in `Evaluation`; empty if unknown. slices: slice -> its queries.
    """

    label: str
    where: Path
    measures: dict[str, float]
    per_query: dict[str, dict[str, float]] | None = None
    first_ranks: dict[str, int | None] = field(default_factory=dict)
    fingerprint: str | None = None
    folder: Path | None = None
    split: str = "test"
    texts: dict[str, str] = field(default_factory=dict)
    protocol: Protocol = field(default_factory=dict)
    slices: dict[str, list[str]] = field(default_factory=dict)

    @property
    def query_ids(self) -> list[str]:
        return list(next(iter(self.per_query.values()))) if self.per_query else []

    def values(self, measure: str) -> dict[str, float]:
        """query_id -> value of one measure."""
        return (self.per_query or {})[measure]


@dataclass(frozen=True, kw_only=True)
class Source:
    """The content of one path: dataset's label in lower case -> its values. recipe: a run's without its seed, as JSON.

    Labels are in lower case because mteb writes SciFact where a folder is called scifact. domains: label -> domain, of
    results in the folder of a finished run.
    """

    name: str
    measured: dict[str, Measured]
    recipe: str | None = None
    seed: int | None = None
    domains: dict[str, Domain] = field(default_factory=dict)


def read_source(
    path: Path | RunFile, datasets: Sequence[Dataset] = (), measures: Sequence[str] | None = None
) -> Source:
    """Reads an evaluation folder, a folder of them, a run folder, a run's file or mteb's results.

    datasets: measure the runs again by these judgements and by `measures`; a run's file needs them, and so does a
    folder of such files, named by the datasets' labels. Raises InputError for a path without results, for results of an
    older version and for values that are not finite.
    """
    recipe: str | None = None
    seed: int | None = None
    file, path = (path, path.path) if isinstance(path, RunFile) else (RunFile(path), path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected an evaluation or run folder, a TREC run or .json")
    if path.is_file():
        means = path.suffix == ".json" and _is_mteb(read_json(path))
        measured = _mteb(path, datasets) if means else _of_run(file, datasets, measures)
    else:
        recipe, seed = _recipe(path)
        evaluations = [read_evaluation(folder) for folder in _evaluations(path)]
        if evaluations and datasets:
            measured = _measured_again(path, evaluations, datasets, measures)
        elif datasets and (files := _run_files(path, datasets)):
            measured = [
                _by_judgements(replace(file, path=files[dataset.label]), dataset, measures) for dataset in datasets
            ]
        else:  # an evaluation comes last and so replaces mteb's means of the same dataset: it knows every query
            measured = [*(part for file in _mteb_results(path) for part in _mteb(file, datasets)), *evaluations]
        if not measured:
            raise InputError(_nothing_in(path))
    by_label = {part.label.casefold(): part for part in measured}
    return Source(name=str(path), measured=by_label, recipe=recipe, seed=seed, domains=_domains(path))


def _domains(path: Path) -> dict[str, Domain]:
    """By the recipe of the finished run whose folder the path is, or is in; empty where there is none."""
    run = next((folder for folder in (path, path.absolute().parent) if (folder / "recipe.yaml").exists()), None)
    summary = read_summary(run) if run is not None else {}
    evaluate = read_yaml(run / "recipe.yaml").get("evaluate") if run is not None and summary else None
    if not isinstance(evaluate, dict):
        return {}
    in_domain, out_of_domain = (evaluate.get(name) or [] for name in ("in_domain", "out_of_domain"))
    return domains_of(in_domain, out_of_domain, summary)


def _evaluations(path: Path) -> list[Path]:
    if (path / "measures.json").exists():
        return [path]
    root = path / "evaluation" if (path / "recipe.yaml").exists() else path
    return sorted(file.parent for file in root.glob("*/measures.json") if file.parent.name != BASELINE)


def _mteb_results(path: Path) -> list[Path]:
    """mteb's result files in the folder itself, or of the one model and revision in mteb's own layout."""
    files = sorted(file for file in path.glob("*.json") if not file.name.endswith(MEANS))
    results = [file for file in files if _is_mteb(read_json(file))]
    models = sorted({file.parent for file in path.glob("results/*/*/*.json")})
    if len(models) > 1:
        listed = ", ".join(str(model.relative_to(path)) for model in models[:5])
        raise InputError(f"{path}: mteb's results of {len(models)} models or revisions ({listed}); name one's folder")
    if results or not models:
        return results
    return [file for file in sorted(models[0].glob("*.json")) if _is_mteb(read_json(file))]


def _nothing_in(path: Path) -> str:
    if (path / "recipe.yaml").exists():
        return (
            f"{path}: this run has no evaluation: it was stopped before its end (continue it with `embedtune train "
            f"{path / 'recipe.yaml'} --output {path} --resume`), or its recipe names no dataset to evaluate on"
        )
    return f"{path}: no evaluation here; expected <dataset>/measures.json as `embedtune eval --output` writes it"


def _recipe(path: Path) -> tuple[str | None, int | None]:
    """A run's recipe without its seed, as JSON, and the seed; None for a folder that is no run."""
    file = path / "recipe.yaml"
    if not file.exists():
        return None, None
    values = read_yaml(file)
    if not isinstance(values, dict) or not isinstance(values.get("train"), dict):
        raise InputError(f"{file}: expected the resolved recipe of a run, with a `train` block")
    seed = values["train"].pop("seed", None)
    return json.dumps(values, sort_keys=True), seed


def read_evaluation(folder: Path) -> Measured:
    """Reads an evaluation as `embedtune eval` and `embedtune train` write it.

    Raises InputError for one of an older version and for values that are not finite.
    """
    path, lines = folder / "measures.json", folder / "per-query.jsonl"
    summary = read_json(path)
    if not isinstance(summary, dict):
        raise InputError(f"{path}: expected a JSON object")
    absent = [repr(k) for k in ("dataset", "split", "fingerprints", "queries", "measures") if k not in summary]
    absent += [] if lines.exists() else ["per-query.jsonl"]
    absent += [] if absent or "data" in summary["fingerprints"] else ["the data's fingerprint"]
    if absent:
        raise InputError(f"{path}: written by an older version of embedtune ({absent[0]} is missing); evaluate again")
    part = Measured(
        label=summary["dataset"] if summary["split"] == "test" else f"{summary['dataset']}-{summary['split']}",
        where=folder,
        measures=summary["measures"],
        per_query={name: {} for name in summary["measures"]},
        fingerprint=summary["fingerprints"]["data"],
        folder=Path(summary["folder"]) if summary.get("folder") else None,
        split=summary["split"],
        protocol=summary.get("protocol", {}),
    )
    for number, raw in read_lines(lines):
        _add_query(part, parse_object(raw, f"{lines}:{number}"), f"{lines}:{number}")
    if len(part.query_ids) != summary["queries"]:
        raise InputError(
            f"{lines}: {len(part.query_ids)} queries, but measures.json says {summary['queries']}; evaluate again"
        )
    return part


def _add_query(part: Measured, line: dict[str, Any], where: str) -> None:
    """Adds one line of per-query.jsonl: the query's values, the rank of its first positive, its text."""
    query_id, values = str(line.get("query_id")), line.get("measures", {})
    for name, table in (part.per_query or {}).items():
        table[query_id] = _finite(values.get(name), f"{where}: {name}", "; evaluate again")
    if "first_positive" in line:
        part.first_ranks[query_id] = line["first_positive"]["rank"] if line["first_positive"] else None
    if isinstance(line.get("text"), str):
        part.texts[query_id] = line["text"]
    for name in line.get("slices", ()):
        part.slices.setdefault(str(name), []).append(query_id)


def _finite(value: Any, where: str, advice: str = "") -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where} must be a finite number, got {value!r}{advice}")
    return float(value)


def unchanged(part: Measured) -> Dataset | None:
    """The dataset of the evaluation, if it is still there and unchanged."""
    folder = Path(without_prefixes(str(part.folder)))
    if part.folder is None or not (folder / "qrels" / f"{part.split}.tsv").exists():
        return None
    dataset = load_dataset(part.folder, part.split)
    return dataset if dataset.fingerprint == part.fingerprint else None


def _measured_again(
    path: Path, evaluations: Sequence[Measured], datasets: Sequence[Dataset], measures: Sequence[str] | None
) -> list[Measured]:
    by_label = {part.label.casefold(): part for part in evaluations}
    measured = []
    for dataset in datasets:
        part = by_label.get(dataset.label.casefold())
        if part is None:
            known = [part.label for part in evaluations]
            raise InputError(f"{path}: {unknown('dataset', dataset.label, known)} (its evaluations, by --data's name)")
        measured.append(_by_judgements(RunFile(part.where / "run.trec"), dataset, measures))
    return measured


def _run_files(path: Path, datasets: Sequence[Dataset]) -> dict[str, Path]:
    """Label -> the run's file in a folder that holds a file for each dataset; empty for a folder without any.

    Raises InputError if a dataset has no file or two.
    """
    by_label: dict[str, list[Path]] = {}
    means = _mteb_results(path)
    for file in sorted(file for file in path.iterdir() if file.suffix.lower() in RUN_SUFFIXES and file not in means):
        by_label.setdefault(file.stem.removesuffix("_predictions").casefold(), []).append(file)  # as mteb names them
    files = {dataset.label: by_label.get(dataset.label.casefold(), []) for dataset in datasets}
    if not any(files.values()):
        return {}
    for label, of_label in files.items():
        if not of_label:
            raise InputError(f"{path}: no run of {label}; expected {label}.run beside the others")
        if len(of_label) > 1:
            listed = ", ".join(file.name for file in of_label)
            raise InputError(f"{path}: several runs of {label}: {listed}; keep one")
    return {label: file for label, (file,) in files.items()}


def _of_run(file: RunFile, datasets: Sequence[Dataset], measures: Sequence[str] | None) -> list[Measured]:
    """The run on each dataset that judges queries of it. Raises InputError for a query that two of them judge."""
    if not datasets:
        raise InputError(f"{file.path}: a run's file is measured by judgements; name them with --data DIR[:split]")
    if len(datasets) == 1:
        return [_by_judgements(file, datasets[0], measures)]
    parts: dict[str, Run] = {dataset.label: {} for dataset in datasets}
    for query_id, scores in load_run(file).items():
        owners = [dataset.label for dataset in datasets if query_id in dataset.qrels]
        if len(owners) > 1:
            raise InputError(
                f"{file.path}: query {query_id!r} is judged in {' and in '.join(owners)}, so whose it is cannot be "
                f"told; give a folder with a run for each: {', '.join(f'{label}.run' for label in parts)}"
            )
        if not owners and not any(query_id in dataset.queries for dataset in datasets):
            raise InputError(f"{file.path}: query {query_id!r} is in none of {', '.join(parts)}")
        for label in owners:
            parts[label][query_id] = scores
    kept = [dataset for dataset in datasets if parts[dataset.label]]
    return [_by_judgements(file, dataset, measures, parts[dataset.label]) for dataset in kept]


def _by_judgements(file: RunFile, dataset: Dataset, measures: Sequence[str] | None, run: Run | None = None) -> Measured:
    """The values of a run over those judged queries that it has; the comparison notes which ones it lacks.

    run: the file's part that is measured; None for the whole file.
    """
    evaluation = evaluate_run(
        file if run is None else run, dataset, measures=measures or DEFAULT_MEASURES, name=str(file.path)
    )
    per_query = {
        name: {query_id: value for query_id, value in values.items() if query_id in evaluation.run}
        for name, values in evaluation.per_query.items()
    }
    return Measured(
        label=dataset.label,
        where=file.path,
        measures=mean(per_query),
        per_query=per_query,
        fingerprint=dataset.fingerprint,
        folder=Path(source_of(dataset)),
        split=dataset.split,
        protocol=evaluation.protocol,
    )


def _is_mteb(content: Any) -> bool:
    return isinstance(content, dict) and "task_name" in content and isinstance(content.get("scores"), Mapping)


def _mteb(path: Path, datasets: Sequence[Dataset]) -> list[Measured]:
    """The means of mteb's result file of one task: one dataset for each split and subset."""
    content = read_json(path)
    if datasets:
        raise InputError(f"{path}: mteb's results hold means only; there is no run to measure by --data")
    if not _is_mteb(content):
        raise InputError(f"{path}: expected mteb's result of a task, with `task_name` and `scores`")
    measured = []
    for split, subsets in content["scores"].items():
        for scores in subsets:
            subset = scores.get("hf_subset", "default")
            name = content["task_name"] if subset == "default" else f"{content['task_name']}-{subset}"
            label = name if split == "test" else f"{name}-{split}"
            measured.append(Measured(label=label, where=path, measures=_mteb_means(path, scores), split=split))
    return measured


def _mteb_means(path: Path, scores: Mapping[str, Any]) -> dict[str, float]:
    """The task's main score, and the retrieval measures by embedtune's names."""
    names = {key: measure for key in scores if (measure := from_mteb(key)) is not None}
    if MAIN_SCORE in scores or not names:
        names = {MAIN_SCORE: MAIN_SCORE} | names
    return {measure: _finite(scores.get(key), f"{path}: {key}") for key, measure in names.items()}
