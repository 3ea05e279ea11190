"""What can be compared: evaluation folders, run folders, TREC runs, mteb's result files; each read into a Source."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.dataset import load_dataset, source_of
from ..data.jsonl import decode, parse_object, read_lines
from ..errors import InputError, unknown
from ..recipe import without_prefixes
from ..recipe.strict_yaml import parse as parse_yaml
from ..types import Dataset
from .measures import DEFAULT_MEASURES, MAIN_SCORE, from_mteb, mean
from .results import BASELINE, MEANS


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One source on one dataset.

    measures: measure -> mean. per_query: measure -> query_id -> value; None where only means are known. first_ranks:
    query_id -> where its first positive stands, None where it was not found. fingerprint: of the data. folder: the
    dataset's, where it is known. texts: the queries', where the results keep them.
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

    @property
    def query_ids(self) -> list[str]:
        return list(next(iter(self.per_query.values()))) if self.per_query else []

    def values(self, measure: str) -> dict[str, float]:
        """query_id -> value of one measure."""
        return (self.per_query or {})[measure]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one path holds: label -> what was measured. recipe: a run's, but for its seed, as one string."""

    name: str
    measured: dict[str, Measured]
    recipe: str | None = None
    seed: int | None = None


def read_source(path: Path, datasets: Sequence[Dataset] = (), measures: Sequence[str] | None = None) -> Source:
    """Reads an evaluation folder, a folder of them, a run folder, a TREC run or mteb's results.

    datasets: measure the runs again by these judgements, by `measures`; a plain TREC run needs exactly one. Raises
    InputError where there is nothing to read, where it was written by an older version, and for values that are NaN.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected an evaluation or run folder, a TREC run or .json")
    if path.is_file() and path.suffix != ".json":
        return Source(name=str(path), measured=_keyed([_trec_run(path, datasets, measures)]))
    if path.is_file():
        found = [_no_runs(path)] if datasets else _mteb(path)
        return Source(name=str(path), measured=_keyed(found))
    recipe, seed = _recipe(path)
    folders, results = _evaluations(path), _mteb_results(path)
    measured = [read_evaluation(folder) for folder in folders]
    if folders and datasets:
        measured = _measured_again(path, measured, datasets, measures)
    elif results and datasets:
        measured = [_no_runs(path)]
    elif results:  # what was measured query by query says more than its means
        measured = [*(part for file in results for part in _mteb(file)), *measured]
    if not measured:
        raise InputError(_nothing_in(path))
    return Source(name=str(path), measured=_keyed(measured), recipe=recipe, seed=seed)


def _keyed(measured: Sequence[Measured]) -> dict[str, Measured]:
    """By label, whatever its case: mteb says SciFact where a folder says scifact."""
    return {part.label.casefold(): part for part in measured}


def _evaluations(path: Path) -> list[Path]:
    if (path / "measures.json").exists():
        return [path]
    root = path / "evaluation" if (path / "recipe.yaml").exists() else path
    return sorted(file.parent for file in root.glob("*/measures.json") if file.parent.name != BASELINE)


def _mteb_results(path: Path) -> list[Path]:
    """mteb's result files: of the folder itself, or of the one model and revision in mteb's own layout."""
    found = sorted(file for file in path.glob("*.json") if not file.name.endswith(MEANS) and _is_mteb(file))
    models = sorted({file.parent for file in path.glob("results/*/*/*.json")})
    if len(models) > 1:
        listed = ", ".join(str(model.relative_to(path)) for model in models[:5])
        raise InputError(f"{path}: mteb's results of {len(models)} models or revisions ({listed}); name one's folder")
    return found or [file for model in models for file in sorted(model.glob("*.json")) if _is_mteb(file)]


def _nothing_in(path: Path) -> str:
    if (path / "recipe.yaml").exists():
        return (
            f"{path}: this run has no evaluation: it was stopped before its end (go on with `embedtune train "
            f"{path / 'recipe.yaml'} --output {path} --resume`), or its recipe names no dataset to evaluate on"
        )
    return f"{path}: no evaluation here; expected <dataset>/measures.json as `embedtune eval --output` writes it"


def _recipe(path: Path) -> tuple[str | None, int | None]:
    file = path / "recipe.yaml"
    if not file.exists():
        return None, None
    values = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    if not isinstance(values, dict) or not isinstance(values.get("train"), dict):
        raise InputError(f"{file}: expected the resolved recipe of a run, with a `train` block")
    seed = values["train"].pop("seed", None)
    return json.dumps(values, sort_keys=True), seed


def read_evaluation(folder: Path) -> Measured:
    """An evaluation as `embedtune eval` and `embedtune train` write it."""
    path = folder / "measures.json"
    found = _json(path)
    missing = [key for key in ("dataset", "split", "fingerprints", "queries", "measures") if key not in found]
    lines = folder / "per-query.jsonl"
    if missing or "data" not in found["fingerprints"] or not lines.exists():
        lacks = f"{missing[0]!r}" if missing else "per-query.jsonl" if not lines.exists() else "the data's fingerprint"
        raise InputError(f"{path}: written by an older version of embedtune ({lacks} is missing); evaluate again")
    per_query, first_ranks, texts = _per_query(lines, list(found["measures"]))
    count = len(next(iter(per_query.values()), {}))
    if count != found["queries"]:
        raise InputError(f"{lines}: {count} queries, but measures.json says {found['queries']}; evaluate again")
    return Measured(
        label=found["dataset"] if found["split"] == "test" else f"{found['dataset']}-{found['split']}",
        where=folder,
        measures=found["measures"],
        per_query=per_query,
        first_ranks=first_ranks,
        fingerprint=found["fingerprints"]["data"],
        folder=Path(found["folder"]) if found.get("folder") else None,
        split=found["split"],
        texts=texts,
    )


def unchanged(part: Measured) -> Dataset | None:
    """The dataset that was evaluated on, where it is still there as it was."""
    folder = Path(without_prefixes(str(part.folder)))
    if part.folder is None or not (folder / "qrels" / f"{part.split}.tsv").exists():
        return None
    dataset = load_dataset(part.folder, part.split)
    return dataset if dataset.fingerprint == part.fingerprint else None


def _per_query(
    path: Path, names: Sequence[str]
) -> tuple[dict[str, dict[str, float]], dict[str, int | None], dict[str, str]]:
    """measure -> query_id -> value, the ranks of first positives, and the texts of the queries whose line has one."""
    values: dict[str, dict[str, float]] = {name: {} for name in names}
    ranks: dict[str, int | None] = {}
    texts: dict[str, str] = {}
    for number, raw in read_lines(path):
        line, where = parse_object(raw, f"{path}:{number}"), f"{path}:{number}"
        query_id = str(line.get("query_id"))
        for name in names:
            value = line.get("measures", {}).get(name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{where}: {name} must be a finite number, got {value!r}; evaluate again")
            values[name][query_id] = float(value)
        if "first_positive" in line:
            ranks[query_id] = line["first_positive"]["rank"] if line["first_positive"] else None
        if isinstance(line.get("text"), str):
            texts[query_id] = line["text"]
    return values, ranks, texts


def _json(path: Path) -> dict[str, Any]:
    text = "".join(decode(raw, f"{path}:{number}") for number, raw in read_lines(path))
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a JSON object")
    return found


def _measured_again(
    path: Path, measured: Sequence[Measured], datasets: Sequence[Dataset], measures: Sequence[str] | None
) -> list[Measured]:
    by_label = {part.label.casefold(): part for part in measured}
    again = []
    for dataset in datasets:
        part = by_label.get(dataset.label.casefold())
        if part is None:
            known = [part.label for part in measured]
            raise InputError(f"{path}: {unknown('dataset', dataset.label, known)} (its evaluations, by --data's name)")
        again.append(_by_judgements(part.where / "run.trec", dataset, measures))
    return again


def _trec_run(path: Path, datasets: Sequence[Dataset], measures: Sequence[str] | None) -> Measured:
    if len(datasets) != 1:
        said = f"{len(datasets)} are given" if datasets else "none is given"
        raise InputError(f"{path}: a TREC run is measured by one dataset, named with --data DIR[:split]; {said}")
    return _by_judgements(path, datasets[0], measures)


def _by_judgements(path: Path, dataset: Dataset, measures: Sequence[str] | None) -> Measured:
    """Over the judged queries that the run has: which ones those are is for the comparison to say."""
    from .retrieval import evaluate_run

    found = evaluate_run(path, dataset, measures=measures or DEFAULT_MEASURES)
    per_query = {
        name: {query_id: value for query_id, value in values.items() if query_id in found.run}
        for name, values in found.per_query.items()
    }
    return Measured(
        label=dataset.label,
        where=path,
        measures=mean(per_query),
        per_query=per_query,
        fingerprint=dataset.fingerprint,
        folder=Path(source_of(dataset)),
        split=dataset.split,
    )


def _no_runs(path: Path) -> Measured:
    raise InputError(f"{path}: mteb's results hold means only; there is no run to measure by --data")


def _is_mteb(path: Path) -> bool:
    found = _json(path)
    return "task_name" in found and isinstance(found.get("scores"), Mapping)


def _mteb(path: Path) -> list[Measured]:
    """mteb's result file of one task: its means, one dataset for each split and subset."""
    if not _is_mteb(path):
        raise InputError(f"{path}: expected mteb's result of a task, with `task_name` and `scores`")
    found = _json(path)
    measured = []
    for split, subsets in found["scores"].items():
        for scores in subsets:
            subset = scores.get("hf_subset", "default")
            name = found["task_name"] if subset == "default" else f"{found['task_name']}-{subset}"
            measured.append(
                Measured(
                    label=name if split == "test" else f"{name}-{split}",
                    where=path,
                    measures=_mteb_means(path, scores),
                    split=split,
                )
            )
    return measured


def _mteb_means(path: Path, scores: Mapping[str, Any]) -> dict[str, float]:
    """Retrieval measures by our names; of other tasks the main score."""
    named = {key: measure for key in scores if (measure := from_mteb(key)) is not None}
    means = {}
    for key, measure in (named or {MAIN_SCORE: MAIN_SCORE}).items():
        value = scores.get(key)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{path}: {key} must be a finite number, got {value!r}")
        means[measure] = float(value)
    return means
