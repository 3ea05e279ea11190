"""`recipes keys` and `recipes schema`: every key has a right example, and the schema agrees with the check."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedtune.errors import InputError
from embedtune.recipe import check_recipe, shipped
from embedtune.recipe.json_schema import json_schema
from embedtune.recipe.keys import RecipeKey, keys, named
from embedtune.recipe.strict_yaml import parse

RunCli = Callable[..., Any]


def problems_of(key: RecipeKey) -> list[str]:
    """The problems that the check finds at the key itself, where its example is given."""
    values: dict[str, Any] = {"version": 1, "model": {"name": "m"}, "data": {"train": "d"}}
    target, (*parents, last) = values, key.path.split(".")
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = parse(key.example, key.path)
    try:
        check_recipe(values)
    except InputError as error:
        rules = ("has no effect", "missing", "either name or compose", "goes by a teacher", "not with", "expected data")
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        return [line for line in lines if line.startswith(key.path) and not any(rule in line for rule in rules)]
    return []


@pytest.mark.parametrize("key", keys(), ids=lambda key: key.path)
def test_every_key_has_an_example_that_the_check_accepts_and_a_meaning(key: RecipeKey) -> None:
    assert key.text or key.path in ("train.early_stopping.patience",), key.path
    assert key.example, key.path
    assert problems_of(key) == []


def test_a_wrong_example_would_be_seen() -> None:
    wrong = RecipeKey(path="train.epochs", type="", default="", example="many", text="")
    assert problems_of(wrong) == ["train.epochs: expected a number, got 'many'"]


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("matryoshka", "matryoshka"), ("prompts", "model.prompts"), ("pooling", "model.pooling"),
        ("chunk_size", "train.chunk_size"), ("chunk", "train.chunk_size"), ("gradient caching", "train.chunk_size"),
        ("seed", "train.seed"), ("learning_rate", "train.learning_rate"),
    ],
)  # fmt: skip
def test_a_key_is_found_by_a_part_of_its_path_or_a_word_of_its_meaning(word: str, path: str) -> None:
    assert path in [key.path for key in keys(word)]


def test_a_name_that_is_a_key_and_no_method_leads_to_the_key(run_cli: RunCli) -> None:
    result = run_cli("methods", "matryoshka")
    assert result.exit_code == 0
    assert "matryoshka is a key of recipes and no method; more with: embedtune recipes keys matryoshka" in result.stderr
    assert result.stdout.splitlines()[1].startswith("matryoshka\t")
    assert named("infonce") == []
    assert run_cli("methods", "mining").stdout.startswith("family\t")


def test_the_schema_accepts_what_ships_and_refuses_what_the_check_refuses() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    jsonschema.Draft202012Validator.check_schema(json_schema())
    for name in shipped.names():
        values = parse(shipped.read(name), name)
        assert [error.message for error in validator.iter_errors(values)] == [], name
    right: dict[str, Any] = {"version": 1, "model": {"name": "m"}, "data": {"train": "d"}}
    wrong: list[dict[str, Any]] = [
        {"train": {"epoch": 1}},
        {"loss": {"name": "infonec"}},
        {"loss": {"name": "infonce", "temperatur": 1.0}},
        {"negatives": {"filtering": [{"name": "positive_ratio", "at_most": "much"}]}},
        {"data": {"train": "d", "validation": 2}},
        {"matryoshka": [0]},
    ]
    for change in wrong:
        assert list(validator.iter_errors(right | change)), change
    scheduled = {"weighting": {"name": "hardness", "alpha": {"from": 0.0, "to": 5.0}}}
    assert not list(validator.iter_errors(right | scheduled))


def test_the_schema_describes_every_key_and_every_methods_options() -> None:
    schema = json_schema()
    assert "Divides" not in json.dumps(schema["properties"]["version"])
    assert schema["$defs"]["Train"]["properties"]["batch_size"]["description"].startswith("Queries of a batch")
    assert "Chosen" not in json.dumps(schema)
    (infonce,) = [
        m for m in schema["$defs"]["loss"]["anyOf"] if m.get("properties", {}).get("name", {}).get("const") == "infonce"
    ]
    assert set(infonce["properties"]) >= {"temperature", "directions", "weight"}


def test_the_schema_is_written_and_written_again_and_no_other_file_is(run_cli: RunCli, tmp_path: Path) -> None:
    target = tmp_path / "recipe.schema.json"
    assert run_cli("recipes", "schema", "-o", target).exit_code == 0
    assert json.loads(target.read_text()) == json_schema() == json.loads(run_cli("recipes", "schema").stdout)
    assert run_cli("recipes", "schema", "-o", target).exit_code == 0
    (tmp_path / "other.json").write_text("{}")
    assert run_cli("recipes", "schema", "-o", tmp_path / "other.json").exit_code == 2
    assert yaml.safe_load((tmp_path / "other.json").read_text()) == {}
