"""The model card: README.md in the model's folder, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluate.guarded import HALF
from ..evaluate.measures import mteb_name
from ..files import write_text
from ..models.folders import MINILM, locate
from ..recipe import split_of
from .record import RunRecord, read_record
from .wording import data_name, towers_of, trained_on
from .write import card_text

TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense", "retrieval", "embedtune"]


def write_card(run: Path, summary: dict[str, Any]) -> None:
    """Writes model/README.md of a run that ends, from its files and the summary that is about to be written."""
    record = read_record(run, negatives=False, summary=summary)
    write_text(run / "model" / "README.md", card(record))


def card(record: RunRecord) -> str:
    """Metadata between `---` lines, then the card's part of the report."""
    return f"---\n{metadata(record)}\n---\n\n{card_text(record)}"


def metadata(record: RunRecord) -> str:
    """YAML. Without base models and datasets that are not on the hub under a name, and without values that were
    measured on a part of a split: its readers take them for the whole split's."""
    from huggingface_hub import EvalResult, ModelCardData

    halves = {one.label for one in record.guard.sets if one.chosen_on == HALF} if record.guard else set()
    results = [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_name=part.label,
            dataset_type=part.label,
            dataset_split=part.split,
            metric_type=mteb_name(measure),
            metric_name=measure,
            metric_value=value,
        )
        for part in record.tuned.values()
        if part.label not in halves
        for measure, value in part.measures.items()
    ]
    data = ModelCardData(
        base_model=_base_models(record.recipe["model"]),
        datasets=[_hub_dataset(name) for name in trained_on(record.recipe)],
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=TAGS,
        model_name=record.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _base_models(model: Mapping[str, Any]) -> str | list[str] | None:
    ids = [hub for name in towers_of(model) if (hub := hub_id(name)) is not None]
    return ids if len(ids) > 1 else ids[0] if ids else None


def hub_id(name: str) -> str | None:
    """A model's id on the hub, without its revision; None for a folder."""
    if name == MINILM:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return None if locate(name).folder is not None else locate(name).name


def _hub_dataset(name: str) -> str:
    """A dataset's id on the hub where it came from there, else its folder's name."""
    if name.startswith("hf://"):
        return split_of(name)[0].removeprefix("hf://").partition("@")[0]
    return split_of(data_name(name))[0]
