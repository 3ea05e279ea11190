"""Recipes: every mistake is named at once, with where it is and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.errors import InputError
from embedtune.recipe import Chosen, Recipe, Validation, check_recipe, dump, load_recipe, resolve, split_of
from embedtune.recipe.strict_yaml import parse

SMALL = {"version": 1, "model": {"name": "m"}, "data": {"train": "d"}}


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_five_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
version: 1
model: {name: m, loar: {rank: 8}}
data: {train: d}
weighting: {name: hardnes}
loss: {name: infonce, temprature: 0.1}
train: {epochs: two, batchsize: 3}
""",
    )
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    first, *lines = str(caught.value).split("\n")
    assert first == f"{path}: 5 problems"
    assert sorted(line.strip() for line in lines) == [
        "loss.0.temprature: unknown option of infonce 'temprature': did you mean 'temperature'?",
        "model.loar: unknown key 'loar': did you mean 'lora'?",
        "train.batchsize: unknown key 'batchsize': did you mean 'batch_size'?",
        "train.epochs: expected a valid number, got 'two'",
        "weighting.0.name: unknown weighting method 'hardnes': did you mean 'hardness'?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nmodel: {name: m}\n", "data: missing; it must be given"),
        ("version: 2\nmodel: {name: m}\ndata: {train: d}\n", r"version: expected 1, got 2"),
        ("just words\n", "expected a mapping with version, model and data"),
        ("version: 1\nversion: 1\n", r"recipe\.yaml:1: key 'version' is given twice|:2: key 'version' is given twice"),
        ("version: [1\n", r"recipe\.yaml:\d: not valid YAML"),
        (
            "version: 1\nmodel: {name: m, gradient_checkpointing: no}\ndata: {train: d}\n",
            "gradient_checkpointing: expected a valid boolean, got 'no'",
        ),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\nbatching: {name: unique, weight: 2}\n",
            r"batching\.weight: only a loss has a weight",
        ),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\nloss: 3\n",
            r"loss\.0: expected .*\{name: METHOD, .*\}.* got 3",
        ),
        ("version: 1\nmodel: {name: m}\ndata: {train: d, positives: some}\n", r"data\.positives: "),
        ("version: 1\nmodel: {name: m}\ndata: {train: d}\ntrain: {learning_rate: -1}\n", "greater than 0, got -1"),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\nnegatives: {refresh: {every: 5}}\n",
            r"negatives\.refresh: has no effect without negatives\.mining",
        ),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\nnegatives: {sampling: simans, empty: refuse}\n",
            r"negatives\.empty: has no effect .*\n  negatives\.sampling\.simans: has no effect without .*mining",
        ),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\nnegatives: {filtering: guide}\nloss: listwise_kl\n",
            r"filtering\.guide: goes by a teacher's .*\n  loss\.listwise_kl: goes by .*; give negatives\.teacher",
        ),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\ntrain: {validate_every: 5}\n",
            r"train\.validate_every: has no effect without data\.validation",
        ),
        (
            "version: 1\nmodel: {name: m}\ndata: {train: d}\nloss: [infonce, fsc_clip]\n",
            r"loss\.fsc_clip: has no effect without negatives of the query's own: negatives\.mining, .*or synthesis",
        ),
        ("version: 1\nmodel: {name: m}\ndata: {train: d}\nloss: {name: infonce, temperature: hot}\n", "got 'hot'"),
    ],
)
def test_each_mistake_is_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(written(tmp_path, text))


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe; `embedtune recipes list`"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, "version: 1\nmodel: {name: m}\ndata: {train: d}\nloss: [{name: infonce}]\n")
    changes = ["train.learning_rate=1e-5", "loss.0.temperature=0.2", "model.lora.rank=4", "evaluate.in_domain=[a, b]"]
    recipe = load_recipe(path, changes)
    assert recipe.train.learning_rate == 1e-5
    assert recipe.loss == [Chosen(name="infonce", options={"temperature": 0.2})]
    assert recipe.model.lora is not None
    assert recipe.model.lora.rank == 4
    assert recipe.evaluate.in_domain == ["a", "b"]
    for wrong, message in (("train.epochs", "expected key=value"), ("version.x=1", "'x' cannot be set there")):
        with pytest.raises(InputError, match=message):
            load_recipe(path, [wrong])


def test_a_single_method_may_stand_for_a_list_and_a_name_for_a_method() -> None:
    recipe = check_recipe({**SMALL, "loss": "infonce", "data": {"train": "d", "validation": 0.2}})
    assert recipe.loss == [Chosen(name="infonce")]
    assert recipe.data.validation == Validation(share=0.2)


@settings(deadline=None)
@given(
    epochs=st.floats(0.1, 10),
    rate=st.floats(1e-9, 1),
    warmup=st.one_of(st.floats(0, 1), st.integers(1, 100)),
    validation=st.none() | st.floats(0.01, 0.99),
    positives=st.sampled_from(["each", "all", 1, 3]),
    weight=st.floats(0.1, 5),
)
def test_a_dumped_recipe_reads_back_the_same(
    epochs: float, rate: float, warmup: float, validation: float | None, positives: object, weight: float
) -> None:
    recipe = check_recipe(
        {
            **SMALL,
            "data": {"train": "d", "validation": validation, "positives": positives},
            "loss": [{"name": "infonce", "weight": weight, "temperature": 0.07}],
            "train": {"epochs": epochs, "learning_rate": rate, "warmup": warmup},
        }
    )
    assert check_recipe(parse(dump(recipe), "dumped")) == recipe


def test_resolving_makes_existing_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    evaluate = {"in_domain": ["data", "data:dev"], "out_of_domain": ["hf://someone/set@v1"]}
    recipe: Recipe = resolve(check_recipe({**SMALL, "data": {"train": "data"}, "evaluate": evaluate}))
    assert recipe.data.train == str(tmp_path / "data")
    assert recipe.evaluate.in_domain == [str(tmp_path / "data"), f"{tmp_path / 'data'}:dev"]
    assert recipe.evaluate.out_of_domain == ["hf://someone/set@v1"]
    assert recipe.model.name == "m"
    assert resolve(recipe) == recipe


def test_a_colon_names_a_split() -> None:
    assert split_of("data/scifact:dev") == ("data/scifact", "dev")
    assert split_of("data/scifact") == ("data/scifact", None)
    assert split_of("hf://name@revision") == ("hf://name@revision", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("2E3", 2000.0), ("no", "no"), ("on", "on"), ("true", True), ("-.5", -0.5), ("1.5e+2", 150.0)],
)
def test_yaml_means_what_it_says(text: str, value: object) -> None:
    assert parse(text, "x") == value
    assert type(parse(text, "x")) is type(value)


def test_a_misspelt_measure_is_refused_before_any_training(tmp_path: Path) -> None:
    evaluate = "{measure: hit_rate@1, measures: [nDCG@10, brilliance], guard: {measure: recall}, out_of_domain: [x]}"
    path = written(tmp_path, f"version: 1\nmodel: {{name: m}}\ndata: {{train: d}}\nevaluate: {evaluate}\n")
    with pytest.raises(InputError) as error:
        load_recipe(path)
    lines = str(error.value).splitlines()
    assert lines[0].endswith("3 problems")
    assert lines[1].startswith("  evaluate.measure: unknown measure 'hit_rate@1': did you mean 'hit@1' (")
    assert lines[2].startswith("  evaluate.measures.1: unknown measure 'brilliance': known are")
    assert lines[3] == "  evaluate.guard.measure: measure 'recall' needs a cut-off, as in R@10"


def test_a_measure_is_kept_under_its_own_name() -> None:
    recipe = check_recipe(
        {
            "version": 1,
            "model": {"name": "m"},
            "data": {"train": "d"},
            "evaluate": {"measure": "MRR@10", "measures": ["ndcg_cut_10", "map"]},
        }
    )
    assert (recipe.evaluate.measure, recipe.evaluate.measures) == ("RR@10", ["nDCG@10", "AP"])
