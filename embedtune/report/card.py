"""The model card: README.md in the model's folder, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..evaluate.measures import mteb_name
from ..files import write_text
from ..models.locate import MINILM, locate
from ..recipe import Model, split_of
from .markdown import to_markdown
from .record import Record, read_record
from .setting import data_name, towers_of, trained_on
from .single import card_document

TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "dense", "retrieval", "embedtune"]


def write_card(run: Path, summary: dict[str, Any]) -> None:
    """Writes model/README.md of a run that ends, from its files and the summary that is about to be written."""
    record = read_record(run, negatives=False, summary=summary)
    write_text(run / "model" / "README.md", card(record))


def card(record: Record) -> str:
    """Metadata between `---` lines, then the report's Markdown form."""
    return f"---\n{metadata(record)}\n---\n\n{to_markdown(card_document(record))}"


def metadata(record: Record) -> str:
    """YAML. A base model or dataset that is no hub's has no id to name, so the base is left out then."""
    from huggingface_hub import EvalResult, ModelCardData

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
        for measure, value in part.measures.items()
    ]
    data = ModelCardData(
        base_model=_base_models(record.recipe.model),
        datasets=[_hub_dataset(name) for name in trained_on(record.recipe)],
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=TAGS,
        model_name=record.name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _base_models(model: Model) -> str | list[str] | None:
    found = [hub for name in towers_of(model) if (hub := hub_id(name)) is not None]
    return found if len(found) > 1 else found[0] if found else None


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
