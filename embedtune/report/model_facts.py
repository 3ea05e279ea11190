"""What a report and a card say of the model itself: its name, size, prompts, and how it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.jsonl import read_json_object
from .record import RunRecord
from .wording import data_name, duration, model_name, plural, trained_on

PLACE = "path/to/this/folder"  # in a card's example, until the model has an id on the hub
# Names of folders that say nothing of a model.
_EMPTY_NAMES = {"run", "runs", "out", "output", "model", "result", "results", "tmp", "test"}


def card_name(record: RunRecord) -> str:
    """The run folder's name; where that says nothing, the base model's with the training data's."""
    if record.name.lower() not in _EMPTY_NAMES:
        return record.name
    data = "-".join(data_name(name) for name in trained_on(record.recipe))
    return f"{model_name(record.recipe['model']).replace(' + ', '-')}-{data}"


def facts_of(record: RunRecord) -> dict[str, str]:
    """The model's size and the run's time, in words; without what is not known."""
    model = record.folder / "model"
    weights = [path for path in sorted(model.rglob("*.safetensors")) if path.is_file()]
    facts = {}
    if weights:
        count = sum(map(_parameters, weights))
        size = sum(path.stat().st_size for path in weights)
        facts["Model"] = f"{count / 1e6:,.1f} million parameters, {size / 1e6:,.0f} MB on disk"
    if record.learning.steps:
        facts["Training"] = f"{plural(record.learning.steps[-1], 'step')} in {duration(record.learning.seconds)}"
    seconds = record.summary.get("seconds")
    if isinstance(seconds, int | float):
        facts["Time in all"] = f"{duration(seconds)}, with everything that was mined, mixed and measured"
    return facts


def _parameters(path: Path) -> int:
    """The number of values in a safetensors file, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    count = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            values = 1
            for length in tensor["shape"]:
                values *= length
            count += values
    return count


def prompts_of(model: Path) -> Mapping[str, str]:
    """role -> its prompt, of the roles that have one."""
    path = model / "config_sentence_transformers.json"
    prompts: Any = read_json_object(path).get("prompts") if path.exists() else None
    return {name: str(text) for name, text in (prompts or {}).items() if text}


def example(model: Path, sizes: Sequence[int]) -> str:
    """Python that uses the model, with its prompts and, where it was trained for fewer dimensions, with these."""
    prompts = prompts_of(model)
    query, document = prompts.get("query", ""), prompts.get("document", prompts.get("passage", ""))
    lines = ["from sentence_transformers import SentenceTransformer", ""]
    opened = f'SentenceTransformer("{PLACE}"{f", truncate_dim={min(sizes)}" if sizes else ""})'
    lines.append(f"model = {opened}  # or its id on the Hugging Face hub")
    lines.append(f'queries = model.encode_query(["what is searched for"]){_behind(query)}')
    lines.append(f'documents = model.encode_document(["what is found"]){_behind(document)}')
    return "\n".join([*lines, "print(model.similarity(queries, documents))"])


def _behind(prompt: str) -> str:
    return f"  # puts {json.dumps(prompt, ensure_ascii=False)} in front" if prompt else ""


def usage(model: Path, sizes: Sequence[int]) -> list[str]:
    """Sentences below the example: on truncation and prompts."""
    sentences = []
    if sizes:
        listed = ", ".join(str(size) for size in sorted(sizes, reverse=True))
        sentences.append(
            f"It was trained for embeddings of {listed} dimensions: `truncate_dim` takes the first of them; without it "
            "they are whole."
        )
    if any(prompts_of(model).values()):
        sentences.append(
            "Another library or server must put the same prompts in front of queries and documents by itself."
        )
    return sentences
