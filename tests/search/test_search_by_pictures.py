"""Searching by words, by pictures and by both; contact sheets of what was found and of what audits suspect."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mining_jobs import mine
from pictures import BROKEN, write_pictures
from PIL import Image

from embedtune.data.dataset import load_dataset
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.similarity import as_scored
from embedtune.recipe import Chosen, Model, Negatives
from embedtune.search.build import IndexSource, build
from embedtune.search.folder import find, find_all, open_index
from embedtune.types import Item

RunCli = Callable[..., Any]


@pytest.fixture(scope="module")
def clip(image_models: dict[str, Path]) -> Encoder:
    return load_encoder(str(image_models["clip"]))


@pytest.fixture(scope="module")
def index(clip: Encoder, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexes") / "pictures"
    build(clip, IndexSource(load_dataset(pictures).corpus), folder)
    return folder


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_picture_finds_itself(index: Path, pictures: Path, tmp_path: Path, run_cli: RunCli) -> None:
    asked = ("--image", pictures / "images/7.png", "-k", "4", "--json", "--image-folder", pictures)
    done = run_cli("search", index, *asked, "--sheet", tmp_path / "found.png")
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows[0]["id"] == "d7"
    assert rows[0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert f"written: {tmp_path / 'found.png'}" in done.stderr
    assert size_of(tmp_path / "found.png")[0] > 800


def test_words_and_picture_together_are_the_mean_where_the_model_reads_either(
    clip: Encoder, index: Path, pictures: Path, run_cli: RunCli
) -> None:
    words, image = "a red circle on the left", pictures / "images/7.png"
    parts = [Item(id="words", text=words), Item(id="image", image=image)]
    asked = as_scored(clip.encode(parts, "query"), "cosine").mean(axis=0, keepdims=True)
    documents = as_scored(clip.encode(load_dataset(pictures).corpus, "document"), "cosine")
    wanted = (as_scored(asked, "cosine") @ documents.T)[0]
    done = run_cli("search", index, words, "--image", image, "-k", "48", "--json")
    rows = json.loads(done.stdout)
    assert [row["score"] for row in rows] == pytest.approx(np.sort(wanted)[::-1].tolist(), abs=1e-5)
    for row in rows:
        assert row["score"] == pytest.approx(wanted[int(row["id"][1:])], abs=1e-5)
    assert json.loads(run_cli("search", index, "--text", words, "--image", image, "-k", "48", "--json").stdout) == rows


def test_of_several_queries_each_has_its_own_kind(clip: Encoder, index: Path, pictures: Path) -> None:
    image = pictures / "images/7.png"
    queries = [
        Item(id="a", text="a blue bar"),
        Item(id="b", text="a blue bar", image=image),
        Item(id="c", image=image),
    ]
    together = find_all(open_index(index), clip, queries, 3)
    for query, found in zip(queries, together, strict=True):
        alone = find(open_index(index), clip, query, 3)
        assert [one.document.id for one in found] == [one.document.id for one in alone]
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], abs=1e-6)


def test_words_and_picture_are_one_input_where_the_model_reads_both(
    vlm_models: dict[str, Path], tmp_path: Path
) -> None:
    encoder = load_encoder(Model(name=str(vlm_models["qwen2_vl"]), pooling="lasttoken"))
    data = load_dataset(write_pictures(tmp_path / "few", documents=8, test=4))
    build(encoder, IndexSource(data.corpus), tmp_path / "index")
    query = Item(id="q", text="a red circle", image=data.corpus["d3"].image)
    wanted = (
        as_scored(encoder.encode([query], "query"), "cosine")
        @ as_scored(encoder.encode(data.corpus, "document"), "cosine").T
    )
    found = find(open_index(tmp_path / "index"), encoder, query, 8)
    for one in found:
        assert one.score == pytest.approx(float(wanted[0, int(one.document.id[1:])]), abs=1e-5)


def test_a_file_of_queries_has_a_row_each(index: Path, pictures: Path, tmp_path: Path, run_cli: RunCli) -> None:
    done = run_cli("search", index, "--queries", pictures, "--sheet", tmp_path / "s.png", "--image-folder", pictures)
    assert "note:" not in done.stderr
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    width, height = size_of(tmp_path / "s.png")
    assert (width // 196, height // 250) == (11, 12)  # the query and its 10, and 12 of the 48 queries
    again = run_cli("search", index, "--queries", pictures, "--sheet", tmp_path / "s.png", "-o", tmp_path / "a.run")
    assert again.exit_code == 2
    assert f"{tmp_path / 's.png'}: exists already; choose another --sheet" in again.stderr
    assert not (tmp_path / "a.run").exists()
    options = ("--sheet", tmp_path / "s.png", "-o", tmp_path / "a.run", "--overwrite")
    assert run_cli("search", index, "--queries", pictures, *options).exit_code == 0
    assert (tmp_path / "a.run").exists()


@pytest.mark.parametrize(("name", "fault"), [("text.jpg", "not an image (of JPEG, PNG,"), ("nowhere.png", "no such")])
def test_a_query_that_is_no_picture(index: Path, name: str, fault: str, tmp_path: Path, run_cli: RunCli) -> None:
    if name in BROKEN:
        (tmp_path / name).write_bytes(BROKEN[name][0]())
    done = run_cli("search", index, "--image", tmp_path / name, "--sheet", tmp_path / "s.png")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path / name}: {fault}")
    assert not (tmp_path / "s.png").exists()


def test_a_model_of_texts_refuses_a_picture(
    tiny_model: Path, tiny_dataset: Path, pictures: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    build(load_encoder(str(tiny_model)), IndexSource(load_dataset(tiny_dataset).corpus), tmp_path / "index")
    for words in ([], ["river"]):
        done = run_cli("search", tmp_path / "index", *words, "--image", pictures / "images/7.png")
        assert done.exit_code == 2
        assert "text only" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    sheet = tmp_path / "texts.jpg"
    assert run_cli("search", tmp_path / "index", "river", "--sheet", sheet).exit_code == 0
    assert size_of(sheet)[0] > 800


def test_pictures_that_moved_with_the_index_are_found_and_lost_ones_are_said(
    image_models: dict[str, Path], tmp_path: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_pictures(Path("data"), documents=8, test=4)
    made = run_cli("index", "data", "--model", image_models["clip"], "--output", "indexes/of-data")
    assert made.exit_code == 0, made.stderr
    monkeypatch.chdir(tmp_path)
    shutil.move("here", "there")
    asked = ("there/indexes/of-data", "a red circle", "-k", "8", "--json")
    done = run_cli("search", *asked)
    assert "note:" not in done.stderr
    images = [row["image"] for row in json.loads(done.stdout)]
    assert sorted(images) == [str((tmp_path / f"there/data/images/{n}.png").resolve()) for n in range(8)]
    shutil.rmtree("there/data")
    lost = run_cli("search", *asked)
    assert lost.exit_code == 0
    first = json.loads(lost.stdout)[0]["image"]
    assert first.startswith(str(tmp_path / "here/data/images"))
    assert f"note: 8 of the images cannot be read, the first {first}: no such image" in lost.stderr
    drawn = run_cli("search", *asked, "--sheet", "s.png")
    assert drawn.exit_code == 0
    assert f"note: 8 of the images cannot be read, the first {first}: no such" in drawn.stderr


def test_an_index_cannot_name_images_outside_the_folder_that_was_indexed(
    image_models: dict[str, Path], tmp_path: Path, run_cli: RunCli
) -> None:
    data = write_pictures(tmp_path / "mine" / "data", documents=8, test=4)
    folder, outside = tmp_path / "mine" / "index", tmp_path / "private.png"
    made = run_cli("index", data, "--model", image_models["clip"], "--output", folder)
    assert made.exit_code == 0, made.stderr
    shutil.copyfile(data / "images/0.png", outside)
    (data / "images/link.png").symlink_to(outside)
    asked = ("search", folder, "--image", data / "images/0.png", "-k", "8", "--overwrite", "--sheet")
    whole = tmp_path / "whole.png"
    assert run_cli(*asked, whole).stderr == f"written: {whole}\n"

    documents, manifest = (folder / "documents.jsonl").read_text(), (folder / "manifest.json").read_text()
    named = f'"image": "{data / "images/0.png"}", "image_from_here": "../data/images/0.png"'
    assert named in documents
    for name in (outside, data / "images/link.png", f"{folder}/../data/images/../../../private.png"):
        changed = documents.replace(named, f'"image": "{name}"')
        offsets = np.cumsum([0, *(len(line) for line in changed.encode().splitlines(keepends=True))])[:-1]
        (folder / "documents.jsonl").write_text(changed)
        np.save(folder / "offsets.npy", offsets)
        drawn = run_cli(*asked, tmp_path / "s.png")
        assert drawn.exit_code == 0
        message = f"{name}: not read, it lies outside the indexed folder; allow it with --image-folder DIR"
        assert f"note: 1 of the images cannot be read, the first {message}" in drawn.stderr
        assert (tmp_path / "s.png").read_bytes() != whole.read_bytes()
        # A manifest that claims everything is not believed beyond the current folder and the index's own.
        (folder / "manifest.json").write_text(json.dumps(json.loads(manifest) | {"images": ["/"]}))
        assert "note: 8 of the images cannot be read" in run_cli(*asked, tmp_path / "s.png").stderr
        (folder / "manifest.json").write_text(manifest)
        allowed = run_cli(*asked, tmp_path / "s.png", "--image-folder", tmp_path)
        assert allowed.stderr == f"written: {tmp_path / 's.png'}\n"


def test_an_audit_draws_its_suspects(clip: Encoder, pictures: Path, tmp_path: Path, run_cli: RunCli) -> None:
    negatives = Negatives(mining=[Chosen(name="dense", options={"depth": 5})])
    mine(load_dataset(pictures, "train"), clip, negatives, tmp_path / "mined.run")
    sheet = tmp_path / "suspects.png"
    done = run_cli("audit", tmp_path / "mined.run", "--suspects", "4", "--sheet", sheet, "--json")
    assert done.exit_code == 0, done.stderr
    assert f"written: {sheet}" in done.stderr
    suspects = json.loads(done.stdout)["suspects"]
    assert len(suspects) == 4
    assert suspects[0]["suspect text"] == f"[{suspects[0]['suspect'][1:]}.png]"
    width, height = size_of(sheet)
    assert (width // 348, height // 403) == (3, 4)
    left, top = 24 + 336 + 24 + 348 + 8, 24 + 40 + 8 + 19
    with Image.open(sheet) as drawn:
        shown = np.asarray(drawn.crop((left, top, left + 320, top + 320)).resize((40, 40)), np.int64)
    apart = {}
    for path in (pictures / "images").iterdir():
        with Image.open(path) as picture:
            apart[f"d{path.stem}"] = int(np.abs(np.asarray(picture, np.int64) - shown).sum())
    assert min(apart, key=apart.__getitem__) == suspects[0]["suspect"]
    again = run_cli("audit", tmp_path / "mined.run", "--sheet", sheet)
    assert again.exit_code == 2
    assert again.stderr == (f"error: {sheet}: exists already; choose another --sheet, or replace it with --overwrite\n")
    assert run_cli("audit", tmp_path / "mined.run", "--sheet", sheet, "--overwrite").exit_code == 0
    useless = run_cli("audit", tmp_path / "mined.run", "--suspects", "0", "--sheet", tmp_path / "no.png")
    assert useless.stderr.startswith("error: --sheet shows the suspects; leave --suspects 0 out")
    assert not (tmp_path / "no.png").exists()


def test_an_audit_of_other_data_is_refused(clip: Encoder, pictures: Path, tmp_path: Path, run_cli: RunCli) -> None:
    negatives = Negatives(mining=[Chosen(name="dense", options={"depth": 5})])
    mine(load_dataset(pictures, "train"), clip, negatives, tmp_path / "mined.run")
    few = write_pictures(tmp_path / "few", documents=6, test=2)
    done = run_cli("audit", tmp_path / "mined.run", "--data", few, "--sheet", tmp_path / "s.png")
    assert done.exit_code == 2
    assert re.fullmatch(
        rf"error: {few}: (query|document) '\w+' is not in it; give --data DIR as it was mined", done.stderr.strip()
    )
    assert not (tmp_path / "s.png").exists()
