"""Folders with images: where they may be, what their fingerprint covers, and what happens to broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pictures import BROKEN, as_bytes, draw, write_pictures

from embedtune.data import broken as broken_module
from embedtune.data.check import check
from embedtune.data.dataset import load_dataset, load_training
from embedtune.data.jsonl import JsonLines
from embedtune.data.relevance import Relevance, item_key
from embedtune.errors import InputError
from embedtune.recipe import Data
from embedtune.types import Item


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", documents=12, test=4)


def set_image(folder: Path, row: int, image: object, file: str = "corpus.jsonl") -> None:
    lines = (folder / file).read_text().splitlines()
    lines[row] = json.dumps({**json.loads(lines[row]), "image": image})
    (folder / file).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "images/../../secret.png", "link.png", "out/a.png"]
)
def test_an_image_outside_the_folder_is_refused(pictures: Path, name: str) -> None:
    outside = pictures.parent / "outside"
    outside.mkdir()
    draw("red", "ring", "top").save(outside / "a.png")
    draw("red", "ring", "top").save(pictures.parent / "secret.png")
    (pictures / "link.png").symlink_to(outside / "a.png")
    (pictures / "out").symlink_to(outside)
    set_image(pictures, 2, name)
    with pytest.raises(InputError) as caught:
        load_dataset(pictures)
    assert str(caught.value) == f'{pictures}/corpus.jsonl:3: "image" must be a path inside {pictures}, got {name!r}'


def test_a_link_within_the_folder_and_a_hub_clients_snapshot_are_fine(pictures: Path, tmp_path: Path) -> None:
    (pictures / "same.png").symlink_to(pictures / "images/0.png")
    set_image(pictures, 0, "same.png")
    assert load_dataset(pictures).corpus["d0"].image == pictures / "same.png"
    snapshot = tmp_path / "hub/datasets--a--b/snapshots/0123"
    blobs = tmp_path / "hub/datasets--a--b/blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (pictures / "images/1.png").rename(blobs / "beef")
    (snapshot / "1.png").symlink_to("../../blobs/beef")
    (snapshot / "corpus.jsonl").write_text('{"_id": "d1", "image": "1.png"}\n')
    assert JsonLines(snapshot / "corpus.jsonl")["d1"].image == snapshot / "1.png"


def test_an_image_of_none_is_no_image(pictures: Path) -> None:
    set_image(pictures, 0, None)
    assert load_dataset(pictures).corpus["d0"].image is None
    set_image(pictures, 0, 5)
    with pytest.raises(InputError, match=r'corpus\.jsonl:1: "image" must be a string, got 5'):
        load_dataset(pictures)


def test_the_fingerprint_covers_the_pictures(pictures: Path) -> None:
    before, queries = load_dataset(pictures), load_dataset(pictures).queries.fingerprint
    draw("purple", "bar", "left", size=44).save(pictures / "images/3.png")
    after = load_dataset(pictures)
    assert before.corpus.fingerprint != after.corpus.fingerprint
    assert before.fingerprint != after.fingerprint
    assert after.queries.fingerprint == queries


def break_images(folder: Path, rows: list[int]) -> None:
    for row in rows:
        (folder / f"images/{row}.png").write_bytes(BROKEN["cut.png"][0]())


def test_a_few_broken_images_are_left_out_of_training_and_listed(pictures: Path) -> None:
    break_images(pictures, [1, 11])
    (pictures / "images/2.png").unlink()
    dataset = load_training(Data(train=str(pictures), broken_images=0.25))
    assert len(dataset.corpus) == 9
    assert [i for i in ("d1", "d2", "d11") if i in dataset.corpus] == []
    assert dataset.qrels["q1"] == {}
    assert dataset.qrels["q0"] == {"d0": 1}
    faults = [said.removeprefix(f"{pictures}/images/").partition(": ")[::2] for said in dataset.left_out]
    assert [name for name, _ in faults] == ["1.png", "2.png", "11.png"]
    assert [reason.partition(":")[0] for _, reason in faults] == ["damaged image", "no such image", "damaged image"]
    assert dataset.fingerprint != load_dataset(pictures, "train").fingerprint


def test_more_broken_images_than_allowed_are_refused(pictures: Path) -> None:
    break_images(pictures, [0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(InputError) as caught:
        load_training(Data(train=str(pictures)))
    assert str(caught.value).startswith(
        f"{pictures}: corpus: 7 of 12 images are broken (58.3%), more than the 1.0% that broken_images allows; the "
        f"first: {pictures}/images/0.png: damaged image: "
    )


def test_a_query_with_a_broken_image_is_left_out_with_its_judgements(pictures: Path) -> None:
    break_images(pictures, [11])
    set_image(pictures, 0, "images/11.png", "queries.jsonl")
    dataset = load_training(Data(train=str(pictures), broken_images=1.0))
    assert "q0" not in dataset.queries
    assert "q0" not in dataset.qrels
    break_images(pictures, list(range(11)))
    with pytest.raises(InputError, match="no positive is left without the broken images"):
        load_training(Data(train=str(pictures), broken_images=1.0))


def test_images_are_decoded_once_to_find_broken_ones(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_training(Data(train=str(pictures)))
    monkeypatch.setattr(broken_module, "faults_of", None)  # would fail if it were asked again
    assert load_training(Data(train=str(pictures))).left_out == ()


def test_check_names_broken_missing_and_equal_images(pictures: Path) -> None:
    break_images(pictures, [1])
    (pictures / "images/2.png").unlink()
    (pictures / "images/4.png").write_bytes((pictures / "images/3.png").read_bytes())
    faults = {fault.kind: fault.where for fault in check(pictures).faults}
    assert faults["broken image"][0].startswith(f"{pictures}/corpus.jsonl:2: 'd1' names images/1.png: damaged image: ")
    assert faults["missing image"] == (f"{pictures}/corpus.jsonl:3: 'd2' names images/2.png, which is absent",)
    assert faults["equal documents"] == (f"{pictures}/corpus.jsonl:5: 'd4' is the same as 'd3'",)
    assert check(pictures).counts["images"] == 12


def test_the_same_picture_under_two_names_is_never_a_negative(pictures: Path) -> None:
    (pictures / "images/4.png").write_bytes((pictures / "images/3.png").read_bytes())
    set_image(pictures, 5, "images/3.png", "queries.jsonl")  # text and image
    set_image(pictures, 6, "images/6.png", "queries.jsonl")
    dataset = load_dataset(pictures, "train")
    relevance = Relevance(dataset)
    assert relevance.forbidden("q3", ["d3", "d4", "d5", "d0"]) == [True, True, False, False]
    assert relevance.forbidden("q5", ["d3", "d5"]) == [False, True]  # the query has words besides the picture


def test_items_compare_by_text_and_image(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "red"), ("c", "blue")):
        (tmp_path / name).write_bytes(as_bytes(draw(colour, "ring", "top")))
    items = [
        Item(id="1", image=tmp_path / "a"),
        Item(id="2", image=tmp_path / "c"),
        Item(id="3", text="A ring", image=tmp_path / "a"),
        Item(id="4", text="a ring"),
        Item(id="5"),
    ]
    assert len({item_key(item) for item in items}) == 5
    assert item_key(items[0]) == item_key(Item(id="6", image=tmp_path / "b"))
    assert item_key(items[2]) == item_key(Item(id="7", text="a  RING", image=tmp_path / "b"))
    assert items[2].shown == "A ring [a]"
    assert items[0].shown == "[a]"
