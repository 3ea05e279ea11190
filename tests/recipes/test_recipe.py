"""Recipes: every mistake is named at once, with where it is and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.errors import InputError
from embedtune.recipe import (
    Chosen,
    Recipe,
    Validation,
    check_recipe,
    dump,
    load_recipe,
    plain,
    refuse_absent,
    resolve,
    split_of,
    upgrade_recipe,
)
from embedtune.recipe.keys import keys
from embedtune.recipe.strict_yaml import flattened, parse

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
        "train.epochs: expected a number, got 'two'",
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
            "gradient_checkpointing: expected true or false, got 'no'",
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


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            "negatives: {sampling: {name: top, count: 8}}",
            "negatives.sampling.top: has no effect without negatives.mining",
        ),
        (
            "weighting: {name: hardness, negatives: own}",
            "weighting.hardness: has no effect without negatives of the query's own: ",
        ),
        (
            "loss: {name: infonce, negatives: own}",
            "loss.infonce: has no effect without negatives of the query's own: ",
        ),
        (
            "negatives: {teacher: t}",
            "negatives.teacher: has no effect without negatives.mining, negatives.filtering, or a",
        ),
        (
            "loss: [infonce, {name: bidirectional_margin, weight: 0.1}]",
            "loss.bidirectional_margin: has no effect without a filter: negatives.filtering",
        ),
        (
            "loss: [infonce, {name: bidirectional_margin, soft: made}]",
            "loss.bidirectional_margin: has no effect without made negatives: synthesis",
        ),
        ("loss: soft_alignment", "loss.soft_alignment: goes by a teacher's scores; give negatives.teacher"),
        ("loss: []", "loss: expected at least one loss with a weight above 0"),
        ("loss: {name: infonce, weight: -1}", "loss: expected at least one loss with a weight above 0"),
        ("loss: [infonce, {name: ncu, weight: 0}]", "loss.ncu.weight: has no effect at 0; leave the loss out"),
        ("loss: {name: infonce, weight: 0}", "loss.infonce.weight: has no effect at 0; leave the loss out"),
        ("matryoshka: [64, 64]", "matryoshka: expected each dimension once, got [64, 64]"),
        (
            "train: {warmup: 100, max_steps: 50}",
            "train.warmup: 100 steps are not less than train.max_steps 50, so the learning rate would",
        ),
        (
            "negatives: {mining: {name: union, sources: [{name: dens, depth: 5}]}}",
            "negatives.mining: dens: name: unknown mining method 'dens': did you mean 'dense'?",
        ),
    ],
)
def test_a_key_without_effect_is_refused(tmp_path: Path, block: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(written(tmp_path, f"version: 1\nmodel: {{name: m}}\ndata: {{train: d}}\n{block}\n"))
    (line,) = str(caught.value).split("\n")[1:]
    assert line.startswith(f"  {message}")


@pytest.mark.parametrize(
    "block",
    [
        "negatives: {mining: dense, sampling: {name: top, count: 8}}\nweighting: {name: hardness, negatives: own}",
        "negatives: {teacher: t, filtering: absolute}",
        "negatives: {teacher: t}\nloss: margin_mse",
        "negatives: {teacher: t}\nweighting: propensity",
        "negatives: {filtering: absolute}\nloss: [infonce, {name: bidirectional_margin, weight: 0.1}]",
        "loss: {name: soft_alignment, path: scores.run}",
        "negatives: {mining: {name: union, sources: [{name: dense, depth: 5, quota: 2}]}}",
        "train: {warmup: 10, max_steps: 50}",
        "model: {name: m, lora: {target_modules: all-linear}}",
    ],
)
def test_a_key_with_effect_is_taken(tmp_path: Path, block: str) -> None:
    model = "" if block.startswith("model") else "model: {name: m}\n"
    load_recipe(written(tmp_path, f"version: 1\n{model}data: {{train: d}}\n{block}\n"))


@pytest.mark.parametrize("key", ["stay_close.freeze_layers=2", "stay_close.layer_decay=0.5", "model.lora.rank=4"])
def test_frozen_towers_leave_no_effect_to_what_is_said_of_layers(tmp_path: Path, key: str) -> None:
    text = "version: 1\nmodel: {compose: {text: t, image: i, towers: frozen}}\ndata: {train: d}\n"
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=r"has no effect without model\.compose\.towers: trained"):
        load_recipe(path, [key])
    load_recipe(path, [key, "model.compose.towers=trained"])


def test_a_key_of_several_types_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = written(tmp_path, "version: 1\nmodel: {name: m, lora: {target_modules: linear}}\ndata: {train: d}\n")
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert str(caught.value).split("\n")[1:] == [
        "  model.lora.target_modules: expected 'auto' or 'all-linear' or a list, got 'linear'"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {name: 'a\x07b'}\n", r":1: not valid YAML: the character U\+0007"),
        ("a: &x [1]\nb: *x\n", r":2: not valid YAML: aliases \(\*name\) are not read; write the value out"),
        ("? [a]\n: b\n", r":1: not valid YAML: a key must be a word"),
        ("a: 2024-99-99\n", "not valid YAML: month must be in"),
        ("a: " + "[" * 3000 + "\n", "not valid YAML: nested too deeply"),
        ("seed: " + "9" * 5000 + "\n", "not valid YAML: Exceeds the limit"),
    ],
)
def test_yaml_that_would_crash_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(written(tmp_path, text))


def test_what_a_recipe_names_and_is_not_there_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "models").mkdir()
    values = {
        "version": 1,
        "model": {"name": "models/absent"},
        "data": {"train": ["here", "reversed:gone:dev"]},
        "negatives": {
            "mining": [{"name": "run", "path": "no.run"}, {"name": "dense", "model": "owner/hub-name@v1"}],
            "teacher": "cross-encoder:./judge",
        },
        "stay_close": {"distill": {"data": "texts"}},
        "evaluate": {"in_domain": ["judged:here", "hf://someone/set@v1"], "out_of_domain": ["foreign"]},
    }
    with pytest.raises(InputError) as caught:
        refuse_absent(check_recipe(values), "r.yaml")
    assert str(caught.value).split("\n") == [
        "r.yaml: names what is not there",
        "  data.train: reversed:gone:dev: no such file or folder",
        "  negatives.teacher: ./judge: no such file or folder",
        "  stay_close.distill.data: texts: no such file or folder",
        "  model.name: models/absent: no such file or folder",
        "  evaluate.out_of_domain: foreign: no such file or folder",
        "  mining.run.path: no.run: no such file or folder",
    ]


def test_every_key_is_listed_with_its_type_default_and_meaning() -> None:
    listed = {key.path: key for key in keys()}
    assert (listed["train.epochs"].type, listed["train.epochs"].default) == ("number above 0", "1.0")
    assert listed["model.lora.target_modules"].type == "auto | all-linear | list of text"
    assert listed["data.train"].default == "required"
    assert listed["negatives.sampling"].default == '{"name": "top"}'
    assert listed["train.learning_rate"].text == "The largest learning rate."
    assert listed["stay_close.distill"].text.startswith("The base model's own scores on unlabelled text")
    for key in listed.values():
        assert key.text.rstrip(".)").strip(), key.path
    flat = set(flattened(plain(check_recipe(SMALL))))
    lists = ("loss.", "negatives.sampling.", "batching.", "evaluate.measures.", "evaluate.slices.")
    assert flat - set(listed) <= {path for path in flat if path.startswith(lists)}
    assert [key.path for key in keys("model.lora")] == [path for path in listed if path.startswith("model.lora")]
    with pytest.raises(InputError, match=r"unknown key 'train\.epoch': did you mean 'train.epochs'"):
        keys("train.epoch")


OLD = """# a comment
version: 1
model: {name: m}
data: {train: d}
train: {chunk_size: 4, backward: {keep: 0.9}}  # behind
"""


def test_a_former_key_is_read_as_the_present_one_and_rewritten_on_request(tmp_path: Path) -> None:
    path = written(tmp_path, OLD)
    recipe = load_recipe(path)
    assert recipe.train.selective_backward is not None
    assert recipe.train.selective_backward.keep == 0.9
    assert upgrade_recipe(path) == {"train.backward": "train.selective_backward"}
    assert path.read_text() == OLD.replace("backward", "selective_backward")
    assert load_recipe(path) == recipe
    assert upgrade_recipe(path) == {}
    assert load_recipe(path, ["train.selective_backward.keep=0.5"]).train.selective_backward is not None
    both = written(tmp_path, OLD.replace("}}", "}, selective_backward: {keep: 0.8}}"))
    for read in (load_recipe, upgrade_recipe):
        with pytest.raises(InputError, match=r"train\.backward is called selective_backward now; remove one"):
            read(both)


@pytest.mark.parametrize(("before", "after"), [("true", "['*']"), ("false", "[]")])
def test_a_key_with_another_kind_of_value_is_rewritten_with_its_value(before: str, after: str, tmp_path: Path) -> None:
    text = "version: 1\nmodel: {name: m, random_weights: VALUE}  # kept\ndata: {train: d}\n"
    path = written(tmp_path, text.replace("VALUE", before))
    recipe = load_recipe(path)
    assert recipe.model.new_weights == parse(after, "new_weights")
    assert upgrade_recipe(path) == {"model.random_weights": "model.new_weights"}
    assert path.read_text() == text.replace("random_weights", "new_weights").replace("VALUE", after)
    assert load_recipe(path) == recipe


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


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ({"train": {"seed": 10**23}}, r"train\.seed: expected a number less than 9223372036854775808, got 1000+"),
        ({"train": {"seed": -1}}, r"train\.seed: expected a number greater than or equal to 0, got -1"),
        (
            {"model": {"name": "m", "lora": {"target_modules": []}}},
            r"model\.lora\.target_modules: expected 'auto' or 'all-linear' or a list that is not empty, got \[\]",
        ),
    ],
)
def test_values_that_no_run_can_use(block: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_recipe({**SMALL, **block})
    assert check_recipe({**SMALL, "train": {"seed": 2**63 - 1}}).train.seed == 2**63 - 1
