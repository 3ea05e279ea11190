"""Images in other formats' columns become files of the folder, named by their content."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pictures import as_bytes, draw
from PIL import Image

from embedtune.data.convert import convert
from embedtune.data.dataset import load_dataset
from embedtune.data.pairs import Columns
from embedtune.errors import InputError

RED, BLUE = as_bytes(draw("red", "circle", "left")), as_bytes(draw("blue", "bar", "top"), "JPEG")


def name_of(content: bytes, suffix: str) -> str:
    return f"images/{hashlib.sha256(content).hexdigest()[:32]}.{suffix}"


def uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def write_jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def images_of(folder: Path, file: str = "corpus.jsonl") -> list[tuple[str, str]]:
    """(text, image's path in the folder) of each item."""
    found = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    return [(item.get("text", ""), item.get("image", "")) for item in found]


def test_paths_and_data_uris(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/red.png").write_bytes(RED)
    source = write_jsonl(
        tmp_path / "pairs.jsonl",
        {"caption": "a red circle", "picture": "in/red.png"},
        {"caption": "a circle, red", "picture": uri(RED)},
        {"caption": "a blue bar", "picture": uri(BLUE)},
    )
    converted = convert(source, tmp_path / "out")
    assert converted.notes == (f"{source}: took 'picture' (images) as positive, the only other column of texts",)
    assert images_of(tmp_path / "out") == [("", name_of(RED, "png")), ("", name_of(BLUE, "jpg"))]
    assert (tmp_path / "out" / name_of(RED, "png")).read_bytes() == RED
    dataset = load_dataset(tmp_path / "out", "train")
    assert len(dataset.queries) == 3
    assert len(dataset.corpus) == 2


def test_text_and_image_beside_each_other_are_one_item(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "pairs.jsonl",
        {"query": "redder", "query_image": uri(RED), "document_image": uri(BLUE), "negative_image": [uri(RED)]},
        {"query": None, "query_image": uri(RED), "document_image": uri(BLUE), "negative_image": None},
    )
    convert(source, tmp_path / "out")
    red, blue = name_of(RED, "png"), name_of(BLUE, "jpg")
    assert images_of(tmp_path / "out", "queries.jsonl") == [("redder", red), ("", red)]
    assert images_of(tmp_path / "out") == [("", blue), ("", red)]
    assert (tmp_path / "out/negatives/given.run").read_text().count("\n") == 1


def test_image_is_the_positives_or_the_querys(tmp_path: Path) -> None:
    to_image = write_jsonl(tmp_path / "a.jsonl", {"query": "a red circle", "image": uri(RED)})
    convert(to_image, tmp_path / "a")
    assert images_of(tmp_path / "a") == [("", name_of(RED, "png"))]
    from_image = write_jsonl(tmp_path / "b.jsonl", {"image": uri(RED), "positive": "a red circle"})
    convert(from_image, tmp_path / "b")
    assert images_of(tmp_path / "b", "queries.jsonl") == [("", name_of(RED, "png"))]
    named = write_jsonl(tmp_path / "c.jsonl", {"a": "x", "b": uri(RED), "c": "y"})
    convert(named, tmp_path / "c", columns=Columns(query="b", positive="c", positive_image="b"))
    assert images_of(tmp_path / "c") == [("y", name_of(RED, "png"))]


def saved_dataset(folder: Path, images: Any) -> Path:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    features = Features({"caption": Value("string"), "image": ImageFeature()})
    rows = {"caption": ["a red circle", "a blue bar"], "image": images}
    Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
    return folder


def test_hugging_face_images_keep_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "blue.jpg").write_bytes(BLUE)
    source = saved_dataset(tmp_path / "saved", [{"bytes": RED}, {"path": str(tmp_path / "blue.jpg")}])
    columns = Columns(query="caption", positive="image")
    convert(source, tmp_path / "out", columns=columns)
    assert images_of(tmp_path / "out") == [("", name_of(RED, "png")), ("", name_of(BLUE, "jpg"))]
    dataset = load_dataset(tmp_path / "saved", "train")
    assert [item.image is not None for item in dataset.corpus] == [True, True]


def test_bytes_in_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"query": ["a red circle", "a blue bar"], "positive": [RED, BLUE]})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    convert(tmp_path / "pairs.parquet", tmp_path / "out")
    assert [image for _, image in images_of(tmp_path / "out")] == [name_of(RED, "png"), name_of(BLUE, "jpg")]


def test_a_beir_set_with_images(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, Features, Value
    from datasets import Image as ImageFeature

    corpus = Dataset.from_dict(
        {"_id": ["d1"], "image": [Image.new("RGB", (4, 4), "red")]},
        features=Features({"_id": Value("string"), "image": ImageFeature()}),
    )
    queries = Dataset.from_dict({"_id": ["q1"], "text": ["red"]})
    judged = Dataset.from_dict({"query-id": ["q1"], "corpus-id": ["d1"], "score": [1]})
    DatasetDict({"corpus": corpus, "queries": queries, "test": judged}).save_to_disk(str(tmp_path / "saved"))
    convert(tmp_path / "saved", tmp_path / "out")
    image = load_dataset(tmp_path / "out").corpus["d1"].image
    assert image is not None
    assert image.suffix == ".png"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("../up.png", "'image' must be a path inside {folder}, got '../up.png'"),
        ("/etc/x.png", "'image' must be a path inside {folder}, got '/etc/x.png'"),
        ("link.png", "'image' must be a path inside {folder}, got 'link.png'"),
        ("none.png", "'image': 'none.png' cannot be read: No such file or directory"),
        ("https://a.b/x.png", "'image' is a URL; download the images, nothing is fetched here"),
        ("data:image/png;base64,***", "'image' is not a data: URI of an image (Only base64 data is allowed)"),
        ("data:image/png,abc", "'image' is not a data: URI of an image (only base64 is read)"),
        (None, "'image' is empty; every line needs one"),
        (5, "'image' must be an image (a path, bytes, data: URI), got 5"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, image: object, message: str) -> None:
    (tmp_path / "up.png").write_bytes(RED)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "up.png")
    rows = {"query": "a", "image": uri(RED)}, {"query": "b", "image": image}
    source = write_jsonl(folder / "pairs.jsonl", *rows)
    with pytest.raises(InputError) as caught:
        convert(source, tmp_path / "out", columns=Columns(query="query", positive_image="image"))
    expected = message.format(folder=folder)
    assert str(caught.value).partition(" (`embedtune")[0] == f"{source}:2: {expected}"
    assert not (tmp_path / "out").exists()


def test_what_is_no_image_is_written_and_noted(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "pairs.jsonl", {"query": "a", "image": uri(RED)}, {"query": "b", "image": uri(b"x")}
    )
    converted = convert(source, tmp_path / "out")
    assert converted.notes[-1] == f"1 images are none by their first bytes, the first at {source}:2"


def test_files_named_in_a_training_file_are_converted_first(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    (tmp_path / "red.png").write_bytes(RED)
    source = write_jsonl(tmp_path / "pairs.jsonl", {"query": "a", "positive_image": "red.png"})
    with pytest.raises(InputError, match="'positive_image' names a file; `embedtune data convert` reads image files"):
        load_dataset(source)
    result = run_cli("data", "convert", source, "--output", tmp_path / "out", "--json")
    assert result.exit_code == 0
    assert images_of(tmp_path / "out") == [("", name_of(RED, "png"))]
    assert run_cli("data", "check", tmp_path / "out").exit_code == 0
