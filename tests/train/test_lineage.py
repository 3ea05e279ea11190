"""A run that trains another run's model: what it starts from, what it is compared with, and what it says of indexes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_dataset

from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.recipe import check_recipe, load_recipe
from embedtune.report.card import card
from embedtune.report.outcome import tables
from embedtune.report.record import read_record
from embedtune.report.write import report
from embedtune.train.lineage import facts_of_lineage, lineage_of
from embedtune.train.run import train
from embedtune.types import Item

TRAIN = {"batch_size": 8, "max_steps": 5, "learning_rate": 3e-2}


def recipe_of(model: object, data: Path, **parts: Any) -> dict[str, Any]:
    evaluate = {"in_domain": [str(data)], "measures": ["nDCG@10"], "bm25": False, **parts.pop("evaluate", {})}
    block = model if isinstance(model, dict) else {"name": str(model)}
    return {"version": 1, "model": block, "data": {"train": str(data)}, "train": TRAIN, "evaluate": evaluate, **parts}


def measured(folder: Path, which: str, label: str) -> float:
    file = folder / which / label / "measures.json"
    return float(json.loads(file.read_text())["measures"]["nDCG@10"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("months")
    return {name: write_dataset(folder / name, seed=seed) for seed, name in enumerate(("old", "new", "newer"))}


@pytest.fixture(scope="module")
def july(bare_checkpoint: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with an adapter, of a bare checkpoint, so that pooling and length are the recipe's."""
    block = {"name": str(bare_checkpoint), "pooling": "mean", "max_length": 32, "lora": {"rank": 4}}
    recipe = recipe_of(block, data["old"], evaluate={"in_domain": [str(data[name]) for name in ("old", "new")]})
    return train(check_recipe(recipe), tmp_path_factory.mktemp("runs") / "july").folder


@pytest.fixture(scope="module")
def august(july: Path, data: dict[str, Path], bare_checkpoint: Path) -> Path:
    """The next run, by the same recipe on new data."""
    block = {"name": str(bare_checkpoint), "pooling": "mean", "max_length": 32, "lora": {"rank": 4}}
    file = july.parent / "next.yaml"
    file.write_text(json.dumps(recipe_of(block, data["new"])))
    return train(load_recipe(file, start=july), july.parent / "august").folder


def test_a_run_starts_from_the_merged_model_and_is_compared_with_it_and_with_its_base(july: Path, august: Path) -> None:
    assert measured(august, "evaluation-base", "new") == measured(july, "evaluation", "new")
    assert measured(august, "evaluation-origin", "new") == measured(july, "evaluation-base", "new")
    assert measured(august, "evaluation", "new") not in (
        measured(august, "evaluation-base", "new"), measured(august, "evaluation-origin", "new")
    )  # fmt: skip
    (table, *_) = tables(read_record(august))
    assert table.columns == [
        "dataset", "queries", "base", "deployed", "tuned", "difference [95% interval]", "verdict",
        "against base [95% interval]",
    ]  # fmt: skip
    values = [measured(august, which, "new") for which in ("evaluation-origin", "evaluation-base", "evaluation")]
    assert [float(str(value)) for value in table.rows[0][2:5]] == [round(value, 3) for value in values]


def test_an_adapter_of_a_later_run_opens_over_the_earlier_run_s_model(july: Path, august: Path) -> None:
    config = json.loads((august / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(july / "model")
    items = [Item(id="1", text="the old river"), Item(id="2", text="bread is new 3")]
    adapted, merged = (load_encoder(str(august / name)).encode(items, "query") for name in ("adapter", "model"))
    np.testing.assert_allclose(adapted, merged, atol=1e-5)


def test_the_lineage_is_recorded_and_survives_the_earlier_run(
    july: Path, august: Path, data: dict[str, Path], bare_checkpoint: Path, tmp_path: Path
) -> None:
    recorded = json.loads((august / "environment.json").read_text())["lineage"]
    weights = json.loads((july / "summary.json").read_text())["weights"]
    assert recorded["runs"] == [{"run": str(july), "weights": weights}]
    assert recorded["base"]["name"] == str(bare_checkpoint)
    moved = shutil.copytree(august, tmp_path / "august")
    environment = json.loads((moved / "environment.json").read_text())
    environment["lineage"]["runs"][0]["run"] = str(tmp_path / "gone")
    (moved / "environment.json").write_text(json.dumps(environment))
    september = train(check_recipe(recipe_of(moved, data["newer"])), tmp_path / "september")
    lineage = json.loads((september.folder / "environment.json").read_text())["lineage"]
    assert [Path(one["run"]).name for one in lineage["runs"]] == ["august", "gone"]
    assert lineage["base"] == recorded["base"]
    record = read_record(september.folder)
    assert record.ancestry is not None
    assert record.ancestry.startswith("This run trains august further (sha256 of its weights ")
    assert record.ancestry.endswith("which came from gone, which came from bare.")
    assert set(record.origin) == {"newer"}


def test_the_card_and_the_report_name_the_earlier_run_and_all_three_models(august: Path) -> None:
    record = read_record(august)
    for text in (report([august], form="md").text, card(record)):
        assert "## Lineage" in text
        assert "This run trains july further" in text
        assert "| base | deployed | tuned |" in text
    assert str(august.parent) not in card(record)


def test_indexes_of_the_earlier_model_are_refused_and_the_run_says_how_to_build_them_again(
    july: Path, august: Path, data: dict[str, Path], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    index = tmp_path / "index"
    assert run_cli("index", data["old"], "--model", july, "--output", index).exit_code == 0
    refused = run_cli("search", index, "river", "--model", august)
    identity = json.loads((index / "manifest.json").read_text())["identity"]
    first, second = read_record(august).indexes
    assert (
        f"Indexes of july do not fit this model: `identity` in their manifest.json begins with {identity[:12]}" in first
    )
    assert (refused.exit_code, "is another" in refused.stderr) == (2, True)
    assert second == "Documents' embeddings have changed: in other stores, too, they do not fit (32 were compared)."
    words = first.partition("`embedtune ")[2].rpartition("`")[0].split()
    words[words.index("DATA")], words[words.index("INDEX")] = str(data["old"]), str(index)
    assert run_cli(*words).exit_code == 0
    assert run_cli("search", index, "river", "--model", august).exit_code == 0


def test_documents_embeddings_stay_where_only_the_query_side_is_trained(
    july: Path, data: dict[str, Path], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    index = tmp_path / "index"
    assert run_cli("index", data["old"], "--model", july, "--output", index).exit_code == 0
    live = recipe_of(july, data["new"], negatives={"live": {"depth": 5}}, evaluate={"in_domain": []})
    run = train(check_recipe(live), tmp_path / "live")
    (sentence,) = read_record(run.folder).indexes
    assert sentence.startswith("Indexes of july fit this model, too: it encodes documents as before")
    searched = run_cli("search", index, "river", "--model", run.folder)
    assert (searched.exit_code, len(searched.stdout.splitlines())) == (0, 11), searched.stderr


def test_a_run_without_a_step_that_helps_keeps_the_indexes(july: Path, data: dict[str, Path], tmp_path: Path) -> None:
    recipe = recipe_of(july, data["new"], evaluate={"in_domain": []})
    recipe["train"] = TRAIN | {"learning_rate": 10.0, "max_steps": 2}
    recipe["data"]["validation"] = 0.3
    run = train(check_recipe(recipe), tmp_path / "none")
    assert run.untouched is not None
    (sentence,) = read_record(run.folder).indexes
    assert sentence.startswith("Indexes of july fit this model, too")


def test_the_earlier_data_is_proposed_until_it_is_replayed(
    july: Path, data: dict[str, Path], run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "next.yaml"
    file.write_text(json.dumps(recipe_of({"name": "any/model", "max_length": 16}, data["new"])))
    dry = run_cli("train", file, "--from", july, "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert f"      from  {july}, which came from " in dry.stderr
    assert "served otherwise than before: max_length 32 -> 16" in dry.stderr
    names = json.dumps([f"{data['new']}:train", f"{data['old']}:train"])
    assert f"--set 'data.train={names}'" in dry.stderr
    mixed = load_recipe(file, [f"data.train={names}"], start=july)
    assert facts_of_lineage(mixed)["replay"] == "all that the earlier run was trained on is trained on again"


def test_a_recipe_may_name_the_run_or_its_model_folder(july: Path, data: dict[str, Path], tiny_model: Path) -> None:
    for name in (july, july / "model"):
        lineage = lineage_of(check_recipe(recipe_of(name, data["new"])).model)
        assert lineage is not None
        assert lineage.run == july
    assert lineage_of(check_recipe(recipe_of(tiny_model, data["new"])).model) is None
    assert lineage_of(check_recipe(recipe_of("some/model", data["new"])).model) is None


def test_what_cannot_be_trained_further_is_refused_in_one_line(
    july: Path, tiny_model: Path, data: dict[str, Path], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    file = tmp_path / "next.yaml"
    file.write_text(json.dumps(recipe_of("any/model", data["new"])))

    def refuse(start: Path) -> str:
        result = run_cli("train", file, "--from", start, "--output", tmp_path / "out")
        assert (result.exit_code, result.stdout) == (2, "")
        assert not (tmp_path / "out").exists()
        return str(result.stderr)

    assert "no such folder; expected a run's folder" in refuse(tmp_path / "absent")
    assert "expected a run's folder" in refuse(tiny_model)
    assert f"--set model.name={tiny_model}" in refuse(tiny_model)
    stopped = shutil.copytree(july, tmp_path / "stopped")
    (stopped / "summary.json").unlink()
    assert f"finish it with `embedtune train {stopped}/recipe.yaml --output {stopped} --resume`" in refuse(stopped)
    tidied = shutil.copytree(july, tmp_path / "cell" / "seed-1")
    shutil.rmtree(tidied / "model")
    assert f"train it again with `embedtune train {tidied}/recipe.yaml --output {tidied} --overwrite`" in refuse(tidied)
    (tmp_path / "cell" / "seed-0" / "model").mkdir(parents=True)
    assert f"take {tmp_path / 'cell' / 'seed-0'}, the same recipe with another seed, or" in refuse(tidied)
    damaged = shutil.copytree(july, tmp_path / "damaged")
    environment = json.loads((damaged / "environment.json").read_text())
    (damaged / "environment.json").write_text(json.dumps(environment | {"lineage": {"runs": [3]}}))
    assert "damaged (lineage)" in refuse(damaged)


def test_a_base_that_is_gone_leaves_two_columns_and_a_word(
    july: Path, data: dict[str, Path], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    moved = shutil.copytree(july, tmp_path / "july")
    recipe = (moved / "recipe.yaml").read_text().replace("/bare\n", "/gone\n")
    (moved / "recipe.yaml").write_text(recipe)
    file = tmp_path / "next.yaml"
    file.write_text(json.dumps(recipe_of("any/model", data["new"])))
    result = run_cli("train", file, "--from", moved, "--output", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert "/gone is not measured beside the new model: " in result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["outcome"][0]["base"] is None
    assert np.isclose(outcome["outcome"][0]["untouched"], measured(july, "evaluation", "new"))


def test_a_run_named_in_a_recipe_has_its_own_pooling(july: Path, data: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="has its own pooling; remove model"):
        train(check_recipe(recipe_of({"name": str(july), "pooling": "mean"}, data["new"])), july.parent / "wrong")
