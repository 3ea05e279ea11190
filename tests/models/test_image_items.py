"""Images and texts through one encoder: as sentence-transformers encodes them, whatever the chunk, opened once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import BROKEN, draw
from sentence_transformers import SentenceTransformer

from embedtune.data.dataset import load_dataset
from embedtune.data.images import open_image, open_images
from embedtune.errors import InputError
from embedtune.models import prepare
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.prepared import Kept, Prepared, chunks, collated
from embedtune.recipe import Model, Prompts
from embedtune.types import Item

FAMILIES = ["clip", "siglip"]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """An empty store of prepared images, in the place of the process's own."""
    own = Kept(10**8)
    monkeypatch.setattr(prepare, "KEPT", own)
    return own


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that are opened."""
    paths: list[Path] = []

    def count(asked: list[Path]) -> object:
        paths.extend(asked)
        return open_images(asked)

    monkeypatch.setattr(prepare, "open_images", count)
    return paths


@pytest.mark.parametrize("family", FAMILIES)
def test_images_and_texts_as_sentence_transformers_encodes_them(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path, family: str
) -> None:
    encoder, dataset = load_encoder(str(image_models[family])), load_dataset(pictures)
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    images = [open_image(item.image) for item in dataset.corpus if item.image]
    np.testing.assert_allclose(encoder.encode(dataset.corpus, "document"), saved.encode(images), atol=1e-6)
    texts = [item.text for item in dataset.queries]
    np.testing.assert_allclose(encoder.encode(dataset.queries, "query"), saved.encode(texts), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_embedding_does_not_depend_on_its_batch(image_models: dict[str, Path], pictures: Path, family: str) -> None:
    encoder, dataset = load_encoder(str(image_models[family])), load_dataset(pictures)
    mixed = [item for pair in zip(dataset.queries, dataset.corpus, strict=True) for item in pair][:20]
    mixed.append(Item(id="long", text="the red circle on the left of the blue square"))
    together = encoder.encode(mixed, "query")
    alone = np.concatenate([encoder.encode([item], "query") for item in mixed])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=1e-5)


def test_a_chunk_holds_one_kind_and_is_cut_by_items() -> None:
    texts = [Prepared({"input_ids": torch.arange(n)}, {}, (("modality", "text"),), length=n) for n in (3, 1, 2)]
    images = [
        Prepared({}, {"pixel_values": torch.full((rows, 2), float(rows))}, (("modality", "image"),), length=rows)
        for rows in (4, 2)
    ]
    items = [texts[0], images[0], texts[1], images[1], texts[2]]
    assert chunks(items, 100) == [[0, 4, 2], [1, 3]]
    assert chunks(items, 1) == [[0], [4], [2], [1], [3]]
    features = collated(texts, pad=9)
    assert features["input_ids"].tolist() == [[0, 1, 2], [0, 9, 9], [0, 1, 9]]
    assert features["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert features["modality"] == "text"
    assert collated(images, pad=0)["pixel_values"][:, 0].tolist() == [4, 4, 4, 4, 2, 2]


def test_a_text_is_never_taken_for_the_address_of_an_image(
    image_models: dict[str, Path], pictures: Path, kept: Kept, opened: list[Path]
) -> None:
    encoder = load_encoder(str(image_models["clip"]))
    addresses = [str(pictures / "images/0.png"), "https://127.0.0.1:9/a.png", "data:image/png;base64,AAAA"]
    prepared = encoder.prepare([Item(id=str(n), text=text) for n, text in enumerate(addresses)], "query")
    assert [dict(one.constant)["modality"] for one in prepared] == ["text"] * 3
    assert opened == []


def test_what_a_model_cannot_read_is_one_line_that_names_those_that_can(
    image_models: dict[str, Path], tiny_model: Path, pictures: Path
) -> None:
    image = pictures / "images/0.png"
    with pytest.raises(InputError) as caught:
        load_encoder(str(tiny_model)).encode([Item(id="d0", image=image)], "document")
    assert str(caught.value) == (
        f"model {tiny_model}: reads text only, and item 'd0' has an image; CLIP and SigLIP models read either, "
        "Qwen2-VL, Qwen2.5-VL and Qwen3-VL both at once, and model.compose makes one that reads either"
    )
    with pytest.raises(InputError, match="reads text or an image, not both, and item 'd0' has an image and text; CLIP"):
        load_encoder(str(image_models["clip"])).encode([Item(id="d0", text="red", image=image)], "document")


def test_a_broken_image_is_an_error_that_names_it(image_models: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "cut.jpg"
    broken.write_bytes(BROKEN["cut.jpg"][0]())
    encoder = load_encoder(str(image_models["clip"]))
    with pytest.raises(InputError, match=r"/cut\.jpg: damaged image: "):
        encoder.encode([Item(id="d", image=broken)], "document")
    with pytest.raises(InputError, match=r"/none\.jpg: no such image"):
        encoder.encode([Item(id="d", image=tmp_path / "none.jpg")], "document")


def test_no_image_is_opened_twice_while_it_is_kept(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path, kept: Kept, opened: list[Path]
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "images/1.png").write_bytes((folder / "images/0.png").read_bytes())
    corpus = load_dataset(folder).corpus
    encoder = load_encoder(str(image_models["clip"]), cached=False)
    first = encoder.encode(corpus, "document")
    assert len(opened) == len(corpus)
    again = load_encoder(str(image_models["clip"]), cached=False).encode(corpus, "document")
    np.testing.assert_array_equal(again, first)
    assert len(opened) == len(corpus)
    load_encoder(str(image_models["siglip"]), cached=False).encode(corpus, "document")  # another form of the pictures
    assert len(opened) == 2 * len(corpus)
    draw("purple", "ring", "top", size=50).save(folder / "images/5.png")
    changed = encoder.encode(load_dataset(folder).corpus, "document")
    assert opened[2 * len(corpus) :] == [folder / "images/5.png"]
    assert np.flatnonzero(np.abs(changed - first).max(axis=1) > 1e-4).tolist() == [5]


def test_images_of_different_shapes_are_chunked_apart() -> None:
    shapes = [(1, 3, 8, 8), (1, 3, 8, 4), (1, 3, 8, 8)]
    items = [Prepared(joined={"pixel_values": torch.zeros(shape)}) for shape in shapes]
    assert chunks(items, 100) == [[0, 2], [1]]


def test_a_raw_input_counts_by_its_text() -> None:
    kept = Kept(10)
    for key in ("a", "b"):
        kept.put(key, Prepared(raw="eight ch"))
    assert kept.get("a") is None
    assert kept.get("b") is not None
    assert kept.bytes == 8


def test_what_is_kept_stays_within_its_bytes(image_models: dict[str, Path], pictures: Path, kept: Kept) -> None:
    encoder, corpus = load_encoder(str(image_models["clip"]), cached=False), load_dataset(pictures).corpus
    each = encoder.prepare([corpus["d0"]], "document")[0].bytes
    assert each == 3 * 32 * 32 * 4
    kept.most = 5 * each
    encoder.encode(corpus, "document")
    assert kept.bytes == 5 * each
    small = Kept(each - 1)
    small.put("key", encoder.prepare([corpus["d0"]], "document")[0])
    assert small.get("key") is None
    assert small.bytes == 0


def test_a_changed_picture_is_not_served_from_the_embedding_cache(
    image_models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    encoder = load_encoder(str(image_models["clip"]))
    before = np.array(encoder.encode(load_dataset(folder).corpus, "document"))
    draw("purple", "ring", "top", size=50).save(folder / "images/5.png")
    after = encoder.encode(load_dataset(folder).corpus, "document")
    assert np.flatnonzero(np.abs(after - before).max(axis=1) > 1e-4).tolist() == [5]


def test_the_identity_knows_how_images_are_made_small(image_models: dict[str, Path]) -> None:
    encoder, other = load_encoder(str(image_models["clip"])), load_encoder(str(image_models["clip"]))
    assert encoder.identity == other.identity
    other.model[0].processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    assert encoder.identity != Encoder(other.model, other.name, other.precision).identity


def test_an_items_instruction_takes_the_prompts_place(tiny_model: Path) -> None:
    plain = load_encoder(str(tiny_model))
    by_hand = plain.encode([Item(id="x", text="what is the old river")], "query")
    instructed = [Item(id="x", text="the old river", instruction="what is ")]
    np.testing.assert_allclose(plain.encode(instructed, "query"), by_hand, atol=1e-6)
    prompted = load_encoder(Model(name=str(tiny_model), prompts=Prompts(query="what {instruction} the ")))
    asked = [Item(id="x", text="old river", instruction="is")]
    np.testing.assert_allclose(prompted.encode(asked, "query"), by_hand, atol=1e-6)
    with pytest.raises(InputError, match="item 'x' has no instruction, and the query prompt asks for one: 'what"):
        prompted.encode([Item(id="x", text="old river")], "query")
    mixed = [*instructed, Item(id="y", text="music"), Item(id="z", text="the old river", instruction="what is ")]
    together = plain.encode(mixed, "query")
    np.testing.assert_allclose(together[0], together[2], atol=1e-6)
    np.testing.assert_allclose(together[1:2], plain.encode([mixed[1]], "query"), atol=1e-6)


def test_pixels_are_bounded_only_where_images_keep_their_shape(image_models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"model\.max_pixels: .*clip does not take images of any size"):
        load_encoder(Model(name=str(image_models["clip"]), max_pixels=1000))
    with pytest.raises(InputError, match=r"clip: has its own pooling; remove model\.pooling"):
        load_encoder(Model(name=str(image_models["clip"]), pooling="mean"))
