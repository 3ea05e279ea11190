"""Winoground, ARO and SugarCrepe: strict comparisons in their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from protocol_layouts import Constant, Known, picture, write_jsonl, write_parquet

from embedtune.errors import InputError
from embedtune.evaluate.protocols import open_suite
from embedtune.evaluate.protocols.aro import LEAST
from embedtune.evaluate.protocols.winoground import reported
from embedtune.evaluate.results import Evaluation
from embedtune.evaluate.sources import read_evaluation
from embedtune.evaluate.suites import Suite, evaluate_suite, evaluate_task, means_of


def suite_of(folder: Path, images: Path | None = None) -> Suite:
    suite = open_suite(folder, None, images)
    assert suite is not None
    return suite


def evaluated(suite: Suite, encoder: Known, output: Path | None = None) -> dict[str, Evaluation]:
    return {found.label: found for found in evaluate_suite(encoder, suite, output=output)}  # type: ignore[arg-type]


# Winoground


def winoground(folder: Path) -> Path:
    rows = [
        {"id": n, "image_0": f"ex_{n}_img_0", "image_1": f"ex_{n}_img_1", "caption_0": f"a hits b {n}",
         "caption_1": f"b hits a {n}", "collapsed_tag": "Object" if n else "Relation"} for n in range(3)
    ]  # fmt: skip
    write_jsonl(folder / "data" / "examples.jsonl", rows)
    for n in range(3):
        for image in range(2):
            picture(folder / "data" / "images" / f"ex_{n}_img_{image}.png")
    return folder


@pytest.mark.parametrize(
    ("scores", "right"),  # image 0 with caption 0 and 1, image 1 with caption 0 and 1
    [
        ((0.9, 0.2, 0.1, 0.8), (1, 1, 1)),
        ((0.9, 0.2, 0.9, 0.95), (1, 0, 0)),  # c0i0 = c0i1: level is not above
        ((0.5, 0.6, 0.4, 0.7), (0, 1, 0)),
        ((0.5, 0.5, 0.5, 0.5), (0, 0, 0)),
        ((0.1, 0.9, 0.9, 0.1), (0, 0, 0)),
        ((0.9, 0.8, 0.7, 0.8), (1, 0, 0)),  # c1i1 = c1i0
    ],
)
def test_the_four_scores_of_an_example(scores: tuple[float, ...], right: tuple[int, ...]) -> None:
    run = {
        "7/image_0": {"7/caption_0": scores[0], "7/caption_1": scores[1]},
        "7/image_1": {"7/caption_0": scores[2], "7/caption_1": scores[3]},
    }
    found = reported(run)
    assert tuple(found.values[name]["7"] for name in ("text", "image", "group")) == right
    assert found.run["7"] == dict(zip(
        [f"image_{i}/caption_{c}" for i in (0, 1) for c in (0, 1)], scores, strict=True))  # fmt: skip


def test_random_scores_have_the_chances_that_the_paper_names() -> None:
    drawn = np.random.default_rng(0).random((20_000, 4))
    run = {
        f"{n}/image_{image}": {f"{n}/caption_{c}": float(row[2 * image + c]) for c in (0, 1)}
        for n, row in enumerate(drawn)
        for image in (0, 1)
    }
    chances = {name: float(np.mean(list(values.values()))) for name, values in reported(run).values.items()}
    assert chances == {
        "text": pytest.approx(1 / 4, abs=0.01),
        "image": pytest.approx(1 / 4, abs=0.01),
        "group": pytest.approx(1 / 6, abs=0.01),
    }


def test_winoground_from_disk_to_results(tmp_path: Path) -> None:
    suite = suite_of(winoground(tmp_path / "winoground"))
    vectors = {f"ex_{n}_img_{image}.png": ((1.0, 0.0), (0.0, 1.0))[image] for n in range(3) for image in range(2)}
    vectors |= {f"a hits b {n}": (0.9, 0.1) for n in range(3)} | {f"b hits a {n}": (0.2, 0.8) for n in range(2)}
    vectors |= {"b hits a 2": (0.95, 0.8)}  # image 0 prefers the wrong caption
    found = evaluated(suite, Known(vectors), tmp_path / "results")["winoground"]
    assert found.measures == dict.fromkeys(("text", "image", "group"), pytest.approx(2 / 3))
    assert found.queries == 3
    assert found.groups == {
        "Object": {"queries": 2, "text": 0.5, "image": 0.5, "group": 0.5},
        "Relation": {"queries": 1, "text": 1.0, "image": 1.0, "group": 1.0},
    }
    read = read_evaluation(tmp_path / "results" / "winoground")
    assert read.per_query == found.per_query
    written = json.loads((tmp_path / "results" / "winoground" / "measures.json").read_text())
    assert written["groups"] == found.groups
    constant = evaluated(suite, Constant())["winoground"]
    assert set(constant.measures.values()) == {0.0}


def test_winoground_with_its_pictures_in_parquet(tmp_path: Path) -> None:
    pictures = [picture(tmp_path / f"{n}.png", 100 * n).read_bytes() for n in range(2)]
    row = {f"image_{n}": {"bytes": content, "path": f"{n}.png"} for n, content in enumerate(pictures)}
    write_parquet(tmp_path / "set" / "test-0.parquet", [row | {"id": 5, "caption_0": "one", "caption_1": "other"}])
    (task,) = suite_of(tmp_path / "set").tasks
    images = [item.image for item in task.queries]
    assert [image.read_bytes() for image in images if image] == pictures
    assert list(task.qrels) == ["5/image_0", "5/image_1"]


# SugarCrepe


def sugarcrepe(folder: Path, images: Path) -> Path:
    entries = {
        str(n): {"filename": f"{n}.jpg", "caption": f"right {n}", "negative_caption": f"wrong {n}"} for n in range(4)
    }
    for name in ("add_obj", "add_att", "swap_obj"):
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "data" / f"{name}.json").write_text(json.dumps(entries))
    for n in range(4):
        picture(images / f"{n}.jpg", 50 * n)
    return folder


def test_sugarcrepe_by_hand(tmp_path: Path) -> None:
    folder = sugarcrepe(tmp_path / "sugar-crepe", tmp_path / "coco")
    with pytest.raises(InputError, match=r"add_obj.json: entry 0: no image '0.jpg' in .*; .* --image-folder DIR$"):
        open_suite(folder)
    suite = suite_of(folder, tmp_path / "coco")
    vectors = {f"{n}.jpg": (1.0, 0.0) for n in range(4)} | {f"right {n}": (0.5, 0.0) for n in range(4)}
    vectors |= {"wrong 0": (0.4, 0.0), "wrong 1": (0.5, 0.0), "wrong 2": (0.6, 0.0), "wrong 3": (0.1, 0.0)}
    encoder = Known(vectors)
    found = evaluated(suite, encoder)
    assert list(found) == ["sugarcrepe-add_obj", "sugarcrepe-add_att", "sugarcrepe-swap_obj"]
    assert all(e.measures == {"accuracy": 0.5} for e in found.values())  # level is not above
    assert found["sugarcrepe-add_obj"].per_query["accuracy"] == {"0": 1.0, "1": 0.0, "2": 0.0, "3": 1.0}
    means = means_of(suite, list(found.values()))
    assert [(m.title, m.parts, m.of) for m in means] == [("add", 2, 2), ("swap", 1, 2), ("SugarCrepe", 3, 7)]
    assert len(encoder.encoded[0][1]) == 4  # each picture once a category
    assert all(e.measures == {"accuracy": 0.0} for e in evaluated(suite, Constant()).values())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"filename": "0.jpg", "caption": "a"}, "'negative_caption' must be a text, got 'None'"),
        ({"filename": "0.jpg", "caption": "a", "negative_caption": "a"}, "both captions are the same"),
        ({"caption": "a", "negative_caption": "b"}, "expected an image's name, got 'None'"),
    ],
)
def test_bad_entries_are_answered_with_their_place(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    picture(tmp_path / "images" / "0.jpg")
    path = tmp_path / "add_obj.json"
    path.write_text(json.dumps({"17": entry}))
    with pytest.raises(InputError) as caught:
        open_suite(tmp_path)
    assert str(caught.value) == f"{path}: entry 17: {message}"


# ARO


def aro(folder: Path) -> Path:
    box = {"bbox_x": 2, "bbox_y": 1, "bbox_w": 4, "bbox_h": 3, "image_path": "1.png"}
    relations = [("on", 2), ("under", 1), ("beside", 1)]  # beside is among those that are left out
    rows = [
        box | {"relation_name": name, "true_caption": f"a {name} b {n}", "false_caption": f"b {name} a {n}"}
        for name, count in relations
        for n in range(count)
    ]
    picture(folder / "images" / "1.png")
    (folder / "visual_genome_relation.json").write_text(json.dumps(rows))
    pairs = [("red", "big")] * LEAST + [("new", "old")] * 3
    rows = [
        box | {"attributes": list(pair), "true_caption": f"{pair} {n}", "false_caption": f"no {pair} {n}"}
        for n, pair in enumerate(pairs)
    ]
    (folder / "visual_genome_attribution.json").write_text(json.dumps(rows))
    options = [f"the {word}" for word in ("right", "first", "second", "third", "fourth")]
    (folder / "coco_order.json").write_text(json.dumps([{"image": "1.png", "caption_options": options}]))
    return folder


def test_aro_by_hand(tmp_path: Path) -> None:
    suite = suite_of(aro(tmp_path / "aro"))
    relation, attribution, order = suite.tasks
    (image,) = [item.image for item in relation.queries]  # the same part of the same picture, once
    assert image is not None
    with Image.open(image) as part:
        assert part.size == (4, 3)
    vectors: dict[str, tuple[float, float]] = {image.name: (1.0, 0.0), "1.png": (1.0, 0.0)}
    vectors |= {item.text: (0.0, 0.0) for item in [*relation.documents, *attribution.documents, *order.documents]}
    vectors |= {"a on b 0": (0.5, 0.0), "a beside b 0": (0.5, 0.0), "the right": (0.5, 0.0)}
    vectors |= {f"('red', 'big') {n}": (0.5, 0.0) for n in range(10)}
    found = evaluated(suite, Known(vectors))
    assert found["aro-VG-Relation"].measures == {"accuracy": 0.5}  # micro: two of four
    assert found["aro-VG-Relation"].groups["on"] == {"queries": 2, "accuracy": 0.5}
    assert found["aro-COCO-Order"].measures == {"accuracy": 1.0}
    means = {mean.title: mean for mean in means_of(suite, list(found.values()))}
    assert means["VG-Relation, macro"].measures == {"accuracy": 0.25}  # on and under; without beside
    assert (means["VG-Relation, macro"].parts, means["VG-Relation, macro"].of) == (2, 3)
    assert means["VG-Attribution, macro"].measures == {"accuracy": pytest.approx(10 / LEAST)}  # without the rare pair


def test_a_constant_model_is_never_right(tmp_path: Path) -> None:
    for found in evaluated(suite_of(aro(tmp_path / "aro")), Constant()).values():
        assert found.measures == {"accuracy": 0.0}
        assert found.protocol["ties"] == found.queries


def test_order_sets_must_bring_their_captions(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    (tmp_path / "coco_order.json").write_text(json.dumps([{"image": "1.png", "caption": "alone"}]))
    with pytest.raises(InputError, match=r"coco_order.json: entry 1: 'caption_options' must be a list of texts, the"):
        open_suite(tmp_path)


def test_truncation_is_bounded(tmp_path: Path) -> None:
    (task,) = suite_of(winoground(tmp_path / "winoground")).tasks
    with pytest.raises(InputError, match="cannot truncate to 3 dimensions: models/known has 2"):
        evaluate_task(Constant(), task, truncate_dim=3)  # type: ignore[arg-type]
