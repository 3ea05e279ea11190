"""The recipes for models that only a hub has: two steps of each on a tiny model of its family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_families import write_family

from embedtune.models.encoder import load_encoder
from embedtune.recipe import load_recipe, shipped
from embedtune.train.run import train

TEXTS = {"llm/qwen3-embedding-0.6b": "qwen3", "llm/embeddinggemma-300m": "gemma3", "llm/modernbert": "modernbert"}
SMALL = ["train.max_steps=2", "train.batch_size=6", "train.precision=fp32", "evaluate.bm25=false"]


def run(name: str, model: Path, data: Path, output: Path, *changes: str) -> dict[str, Any]:
    """Trains by the recipe on other data; the log's events by name, of which the last stays."""
    sets = [f"evaluate.in_domain=[{data}]", "evaluate.out_of_domain=[]", "evaluate.guard=null"]
    recipe = load_recipe(shipped.path(name), [f"model.name={model}", f"data.train={data}", *sets, *SMALL, *changes])
    done = train(recipe, output)
    events = [json.loads(line) for line in (done.folder / "log.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2]
    shown, tuned = load_recipe(shipped.path(name)).model.prompts, load_encoder(str(done.model))
    for role in ("query", "document"):
        assert shown.of(role) is None or tuned.prompt(role) == shown.of(role)
    return {event["event"]: event for event in events}


@pytest.mark.parametrize("name", TEXTS)
def test_a_recipe_of_texts_trains_a_tiny_model_of_its_family(name: str, tmp_path: Path, tiny_dataset: Path) -> None:
    model = write_family(tmp_path / "model", TEXTS[name])
    bare = load_recipe(shipped.path(name)).model.pooling is not None
    if bare:  # the recipe's checkpoint has no modules
        (model / "modules.json").unlink()
    small = ["model.max_length=20"]
    small += ["matryoshka=[16, 8]"] if "gemma" in name else []
    small += [] if bare else ["negatives.filtering.0.at_most=2.0"]  # a random model's scores hardly differ
    run(name, model, tiny_dataset, tmp_path / "run", *small)


def test_the_recipe_of_pages_trains_a_tiny_model_of_its_family(
    tmp_path: Path, vlm_models: dict[str, Path], pictures: Path
) -> None:
    small = ["model.pooling=lasttoken", "model.max_length=120", "model.max_pixels=3136"]
    run("vlm/qwen3-vl-embedding-2b", vlm_models["qwen3_vl"], pictures, tmp_path / "run", *small)
