"""The tasks of mteb, run by its own evaluator (arXiv 2210.07316, 2502.13595); results in its layout and in ours."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, unknown
from ..files import fingerprint_of
from ..models.folders import locate
from ..types import Qrels
from .measures import DEFAULT_MEASURES, per_query
from .results import Evaluation, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models.encoder import Encoder

INSTALL = "pip install 'embedtune[mteb]'"


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """mteb's main score of one split and subset of a task; measure: its name."""

    task: str
    split: str
    subset: str
    measure: str
    value: float


def home_of(model: str) -> Path:
    """The default output: `mteb/` in the model's run folder. Raises InputError for a model outside a run folder."""
    folder = Path(model).expanduser()
    if folder.is_dir() and (folder.parent / "recipe.yaml").exists():
        return folder.parent / "mteb"
    raise InputError(f"{model}: is not in a run folder, where results would go; name a folder with --output")


def tasks_of(name: str) -> list[Any]:
    """The task of a name (`SciFact`), or the tasks of a benchmark (`MTEB(eng, v2)`).

    Raises InputError for an unknown name, with the nearest known one, and if mteb is not installed.
    """
    if find_spec("mteb") is None:
        raise InputError(f"--mteb needs mteb; try: {INSTALL}")
    import mteb

    known = sorted({task.metadata.name for task in mteb.get_tasks(exclude_superseded=False)})
    if name in known:
        return [mteb.get_task(name)]
    benchmarks = {benchmark.name: benchmark for benchmark in mteb.get_benchmarks()}
    if name not in benchmarks:
        raise InputError(unknown("mteb task or benchmark", name, [*known, *benchmarks]))
    return list(benchmarks[name].tasks)


def evaluate_tasks(
    encoder: Encoder,
    tasks: Sequence[Any],
    output: Path,
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
    on_task: Callable[[int, int, str], None] | None = None,
) -> Iterator[TaskScore]:
    """Runs mteb's evaluator on each task and yields its main scores as soon as they are computed.

    Writes `output/results/<model>/<revision>/<task>.json`, which is mteb's layout, and for a retrieval task also
    `output/<task>/` as `embedtune eval` does: the run, and `measures` of every query. A result of the same model that
    is already there is not computed again. on_task: called with (index, count, name) before each task. Raises
    InputError for a task whose data cannot be loaded.
    """
    import mteb

    model = _named(encoder)
    cache = mteb.ResultCache(output)
    for index, task in enumerate(tasks):
        if on_task is not None:
            on_task(index, len(tasks), task.metadata.name)
        _load(task)
        with tempfile.TemporaryDirectory() as predictions:
            (result,) = mteb.evaluate(
                model,
                task,
                cache=cache,
                prediction_folder=Path(predictions),
                encode_kwargs={"show_progress_bar": False},
                co2_tracker=False,
                show_progress_bar=False,
            ).task_results
            for evaluation in _evaluations(encoder, task, Path(predictions), measures):
                write(evaluation, output)
        for split, subsets in result.scores.items():
            for scores in subsets:
                yield TaskScore(
                    task=task.metadata.name,
                    split=split,
                    subset=scores["hf_subset"],
                    measure=task.metadata.main_score,
                    value=float(scores["main_score"]),
                )
        task.unload_data()


def _named(encoder: Encoder) -> Any:
    """The model as mteb takes it. Its name and its revision (the content's fingerprint) are shared with no other."""
    from mteb.models import SentenceTransformerEncoderWrapper

    location = locate(encoder.name)
    parts = [part for part in Path(location.name).parts if part not in ("/", "model")]
    local = re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1]) if parts else "model"
    name = location.name if location.folder is None and "/" in location.name else f"local/{local}"
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it calls a method by its old name
        model = SentenceTransformerEncoderWrapper(encoder.model)
    truncated = f"-{encoder.model.truncate_dim}d" if encoder.model.truncate_dim else ""
    update = {"name": name, "revision": encoder.identity + truncated}
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update=update)
    return model


def _load(task: Any) -> None:
    """Loads the task's data, which is on the Hugging Face hub or in its cache."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if task.data_loaded:
        return
    try:
        task.load_data()
    except (DatasetNotFoundError, HfHubHTTPError, OSError, RuntimeError) as error:
        path = task.metadata.dataset["path"]
        state = " while offline (HF_HUB_OFFLINE=1)" if constants.HF_HUB_OFFLINE else ""
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{task.metadata.name}: its data, {path} of the Hugging Face hub, cannot be loaded{state}: {first}"
        ) from None


def _evaluations(encoder: Encoder, task: Any, predictions: Path, measures: Sequence[str]) -> Iterator[Evaluation]:
    """A retrieval task's runs, measured query by query. A result that mteb took from its cache has no run."""
    from mteb.abstasks import AbsTaskRetrieval

    file = predictions / task.prediction_file_name
    if not isinstance(task, AbsTaskRetrieval) or task.skip_first_result or not file.exists():
        return
    subsets = json.loads(file.read_text(encoding="utf-8"))
    subsets.pop("mteb_model_meta", None)
    for subset, by_split in subsets.items():
        name = task.metadata.name if subset == "default" else f"{task.metadata.name}-{subset}"
        for split, run in by_split.items():
            data = task.dataset[subset][split]
            qrels = {q: {d: int(grade) for d, grade in judged.items()} for q, judged in data["relevant_docs"].items()}
            if task.ignore_identical_ids:
                run = {q: {d: score for d, score in scores.items() if d != q} for q, scores in run.items()}
            yield Evaluation(
                dataset=name,
                split=split,
                model=encoder.name,
                folder="",
                fingerprints={"data": _fingerprint(data, qrels), "model": encoder.fingerprint},
                per_query=per_query(list(measures), qrels, run),
                run=run,
                qrels=qrels,
                protocol={"ignore_identical_ids": task.ignore_identical_ids},
            )


def _fingerprint(data: Any, qrels: Qrels) -> str:
    texts = (str(row.get(key, "")) for part in ("corpus", "queries") for row in data[part] for key in ("id", "text"))
    judged = sorted(f"{q}\t{d}\t{grade}" for q, documents in qrels.items() for d, grade in documents.items())
    return fingerprint_of(*texts, *judged)
