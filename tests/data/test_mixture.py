"""Several datasets as one: ids carry their dataset's label, and training mines and batches each for itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import write_dataset

from embedtune.data.dataset import load_dataset, load_training, subset
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.negatives.audit import audit, dataset_of
from embedtune.negatives.evidence import files_of, read_evidence
from embedtune.recipe import Data, Recipe, check_recipe
from embedtune.train.plan import Plan
from embedtune.train.run import train


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Two datasets whose ids are the same and whose texts differ."""
    return [
        str(write_dataset(tmp_path / name, documents=24, queries=12, seed=seed)) for name, seed in (("a", 1), ("b", 2))
    ]


def recipe_of(model: Path, data: list[str], **batching: object) -> Recipe:
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": data},
            "negatives": {"mining": [{"name": "dense", "depth": 5}]},
            "batching": {"name": "homogeneous", **batching},
            "train": {"batch_size": 4, "max_steps": 2},
        }
    )


def test_ids_carry_the_label_and_lead_to_the_parts(two: list[str]) -> None:
    mixed, first = load_training(Data(train=two)), load_dataset(two[0], "train")
    assert mixed.name == "a-train+b-train"
    assert len(mixed.corpus) == 48
    assert mixed.corpus["b-train/d3"].content == load_dataset(two[1], "train").corpus["d3"].content
    assert mixed.corpus["b-train/d3"].id == "b-train/d3"
    assert [item.id for item in mixed.corpus] == list(mixed.corpus.ids)
    assert [mixed.corpus.row(item_id) for item_id in mixed.corpus.ids] == list(range(48))
    assert "c/d3" not in mixed.corpus
    assert mixed.qrels["a-train/q1"] == {f"a-train/{doc_id}": 1 for doc_id in first.qrels["q1"]}
    part = subset(mixed, ["a-train/q1"])
    assert [(p.label, p.qrels) for p in part.parts] == [("a-train", {"q1": first.qrels["q1"]})]


def test_two_of_one_name_are_refused(two: list[str], tmp_path: Path) -> None:
    again = str(write_dataset(tmp_path / "other" / "a"))
    with pytest.raises(InputError, match=r"^data.train: two datasets are called 'a-train'; rename one of the folders$"):
        load_training(Data(train=[two[0], again]))


def test_embeddings_are_those_of_the_parts(two: list[str], tiny_model: Path) -> None:
    encoder, mixed = load_encoder(str(tiny_model)), load_training(Data(train=two))
    expected = [encoder.encode(load_dataset(name, "train").corpus, "document") for name in two]
    np.testing.assert_array_equal(encoder.encode(mixed.corpus, "document"), np.concatenate(expected))


def test_training_mines_each_for_itself_and_the_audit_finds_its_texts(
    two: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    run = train(recipe_of(tiny_model, two), tmp_path / "run")
    files = files_of(run.folder / "negatives" / "mined.run")
    mined = list(read_evidence(files.evidence))
    assert {m.query_id[0] for m in mined} == {"a", "b"}
    assert all(m.query_id[0] == m.doc_id[0] for m in mined)
    assert len(audit(files.run).queries) == 16
    assert dataset_of(files).fingerprint == load_training(Data(train=two)).fingerprint
    assert json.loads(files.summary.read_text())["data"]["folders"] == [f"{Path(name).resolve()}:train" for name in two]


def test_shares_say_how_much_of_each(two: list[str], tiny_model: Path) -> None:
    data = load_training(Data(train=two))
    plan = Plan(recipe_of(tiny_model, two, shares={"a-train": 3.0, "b-train": 1.0}), data, list(data.qrels))
    used = [pair.query_id[0] for batch in plan.epoch(0) for pair in batch]
    assert (used.count("a"), used.count("b")) == (10, 3)  # all ten pairs of a, a third as many of b
    with pytest.raises(InputError, match=r"shares: expected a number above 0 for each of a-train, b-train, got"):
        Plan(recipe_of(tiny_model, two, shares={"a": 1.0, "b": 1.0}), data, list(data.qrels))
