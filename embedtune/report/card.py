"""The model card: README.md in the model's folder, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluate.guarded import HALF, GuardedSet
from ..evaluate.measures import mteb_name
from ..evaluate.sources import Measured
from ..files import write_text
from ..models.folders import MINILM, locate
from ..recipe import split_of
from .model_facts import card_name
from .record import RunRecord, read_record
from .wording import data_name, towers_of, trained_on
from .write import card_text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense", "retrieval", "embedtune"]


def write_card(run: Path, summary: dict[str, Any]) -> None:
    """Writes model/README.md of a run that ends, from its files and the summary that is about to be written."""
    record = read_record(run, negatives=False, summary=summary)
    write_text(run / "model" / "README.md", card(record))


def card(record: RunRecord) -> str:
    """Metadata between `---` lines, then the card's part of the report."""
    return f"---\n{metadata(record)}\n---\n\n{card_text(record)}"


def metadata(record: RunRecord) -> str:
    """YAML. Without base models and datasets that are not on the hub under a name. A value that was measured on a part
    of a split is that of a dataset with a name of its own: its readers take others for the whole split's."""
    from huggingface_hub import ModelCardData

    results = [result for part in record.tuned.values() for result in _results(part, record.guarded(part.label))]
    data = ModelCardData(
        base_model=_base_models(record.base_model),
        datasets=[_hub_dataset(name) for name in trained_on(record.recipe)],
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=TAGS,
        model_name=card_name(record) if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _results(part: Measured, guarded: GuardedSet | None) -> list[EvalResult]:
    """The values of one dataset, as the hub lists them."""
    from huggingface_hub import EvalResult

    half = guarded if guarded is not None and guarded.chosen_on == HALF else None
    name = f"{part.label} (the half of the queries that chose no weights: {half.queries})" if half else part.label
    return [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_name=name,
            dataset_type=f"{part.label}-reporting-half" if half else part.label,
            dataset_split=f"{part.split}-reporting-half" if half else part.split,
            metric_type=mteb_name(measure),
            metric_name=measure,
            metric_value=value,
        )
        for measure, value in part.measures.items()
    ]


def _base_models(model: Mapping[str, Any]) -> str | list[str] | None:
    ids = [hub for name in towers_of(model) if (hub := hub_id(name)) is not None]
    return ids if len(ids) > 1 else ids[0] if ids else None


def hub_id(name: str) -> str | None:
    """A model's id on the hub, without its revision; None for a folder."""
    if name == MINILM:
        return "sentence-transformers/all-MiniLM-L6-v2"
    if Path(name).is_absolute():  # a folder, which may be gone
        return None
    return None if locate(name).folder is not None else locate(name).name


def _hub_dataset(name: str) -> str:
    """A dataset's id on the hub where it came from there, else its folder's name."""
    if name.startswith("hf://"):
        return split_of(name)[0].removeprefix("hf://").partition("@")[0]
    return split_of(data_name(name))[0]
