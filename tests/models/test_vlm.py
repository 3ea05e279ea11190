"""Qwen-VL embedders: texts, images and both; the last token, whatever side is padded; images of any size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from pictures import draw
from tiny_models import QWEN, write_qwen

from embedtune.data.images import open_image
from embedtune.errors import InputError
from embedtune.models import adapters
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Lora, Model
from embedtune.train.preflight import preflight
from embedtune.types import Item


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Texts, images of several sizes, and both."""
    sizes = {"small": (28, 28), "wide": (90, 30), "tall": (40, 100), "large": (200, 150)}
    for name, size in sizes.items():
        drawn = draw("red" if name == "wide" else "blue", "circle", "left", size=120)
        drawn.resize(size).save(tmp_path / f"{name}.png")
    return [
        Item(id="text", text="a red circle on the left"),
        Item(id="small", image=tmp_path / "small.png"),
        Item(id="both", text="find a picture of the red bar", image=tmp_path / "wide.png"),
        Item(id="short", text="red"),
        Item(id="tall", image=tmp_path / "tall.png"),
        Item(id="large", image=tmp_path / "large.png", text="the blue one"),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", QWEN)
def test_the_last_token_in_a_batch_is_that_of_the_item_alone(
    vlm_models: dict[str, Path], items: list[Item], tmp_path: Path, family: str, side: str
) -> None:
    folder = vlm_models[family] if side == "right" else write_qwen(tmp_path / family, family, padding_side=side)
    encoder = load_encoder(Model(name=str(folder), pooling="lasttoken"))
    together = encoder.encode(items, "query")
    alone = np.concatenate([encoder.encode([item], "query") for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    given = []
    for item in items:
        image = {"image": open_image(item.image)} if item.image else {}
        given.append({**image, **({"text": item.text} if item.text else {})})
    np.testing.assert_allclose(encoder.model.encode_query(given), together, atol=1e-4)
    states = encoder.model[0].model(**encoder.model.preprocess([given[2]])).last_hidden_state  # (1, T, H)
    np.testing.assert_allclose(states[0, -1].detach().numpy(), together[2], atol=1e-4)


def test_an_item_has_its_own_patches(vlm_models: dict[str, Path], items: list[Item]) -> None:
    encoder = load_encoder(Model(name=str(vlm_models["qwen2_vl"]), pooling="lasttoken"))
    prepared = {item.id: one for item, one in zip(items, encoder.prepare(items, "query"), strict=True)}
    patches = {name: one.joined["pixel_values"].shape[0] for name, one in prepared.items() if one.joined}
    assert patches == {"small": 4, "both": 12, "tall": 16, "large": 8}  # of 28 x 28 to 56 x 56 pixels
    for name, count in patches.items():
        assert int(prepared[name].joined["image_grid_thw"].prod()) == count
        assert prepared[name].length == count + len(prepared[name].padded["input_ids"])


def test_a_bare_checkpoint_is_never_pooled_by_the_mean_silently(vlm_models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"a bare checkpoint has no pooling; set model\.pooling: mean\|cls\|lasttoken"):
        load_encoder(str(vlm_models["qwen2_5_vl"]))


def test_an_instruction_is_read_before_the_item(vlm_models: dict[str, Path], items: list[Item]) -> None:
    encoder = load_encoder(Model(name=str(vlm_models["qwen3_vl"]), pooling="lasttoken"))
    image = items[2].image
    plain, instructed = Item(id="a", image=image), Item(id="a", image=image, instruction="find the bar")
    first, second = encoder.encode([plain, instructed], "query")
    assert np.abs(first - second).max() > 1e-3
    by_hand = encoder.model.encode([{"image": open_image(image)}], prompt="find the bar")  # type: ignore[arg-type]
    np.testing.assert_allclose(second[None], by_hand, atol=1e-4)


def test_pixels_are_bounded_as_the_recipe_says(vlm_models: dict[str, Path], items: list[Item], tmp_path: Path) -> None:
    def patches(**bounds: int) -> int:
        block = Model(name=str(vlm_models["qwen2_vl"]), pooling="lasttoken", **bounds)  # type: ignore[arg-type]
        encoder = load_encoder(block)
        encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
        saved = load_encoder(str(tmp_path / "saved"))  # keeps them
        found = [one.prepare([items[5]], "query")[0].joined["pixel_values"].shape[0] for one in (encoder, saved)]
        assert found[0] == found[1]
        return found[0]

    assert patches() == 8
    assert patches(max_pixels=28 * 28) == 4
    assert patches(min_pixels=112 * 112, max_pixels=200 * 200) == 14 * 10
    with pytest.raises(InputError, match=r"model\.min_pixels: 9,000 is more than model\.max_pixels: 1,000"):
        patches(min_pixels=9000, max_pixels=1000)


def test_an_image_of_more_tokens_than_the_length_is_refused(vlm_models: dict[str, Path], items: list[Item]) -> None:
    encoder = load_encoder(Model(name=str(vlm_models["qwen2_vl"]), pooling="lasttoken", max_length=6))
    with pytest.raises(InputError, match=r"cannot take item 'large' \(.*large\.png\): Mismatch in `image` token count"):
        encoder.encode([items[5]], "query")


def test_lora_adapts_the_language_part_alone_and_the_preflight_says_so(
    vlm_models: dict[str, Path], pictures: Path, tmp_path: Path
) -> None:
    from embedtune.recipe import check_recipe

    model = {"name": str(vlm_models["qwen2_vl"]), "pooling": "lasttoken", "lora": {"rank": 2}}
    recipe = check_recipe({"version": 1, "model": model, "data": {"train": str(pictures)}, "train": {"batch_size": 8}})
    lines = preflight(recipe, tmp_path)
    assert lines["vision"] == "frozen: LoRA adapts the language part alone (model.lora.target_modules: auto)"
    encoder = load_encoder(recipe.model)
    adapted = adapters.attach(encoder.model, Lora(rank=2), "base")
    assert len(adapted) == 2 * 7  # attention's four and the MLP's three, in each of two layers
    assert all(name.startswith("language_model.layers.") for name in adapted)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is here")
def test_what_needs_torchvision_says_so(vlm_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    parts = classmethod(lambda cls: ["image_processor", "tokenizer", "video_processor"])
    monkeypatch.setattr(transformers.Qwen2VLProcessor, "get_attributes", parts)  # as it comes
    with pytest.raises(InputError) as caught:
        load_encoder(Model(name=str(vlm_models["qwen2_vl"]), pooling="lasttoken"))
    assert str(caught.value).endswith(
        "needs torchvision, which is not here or was built for another torch: pip install 'embedtune[vlm]', or the "
        "torchvision that is made for your torch"
    )
