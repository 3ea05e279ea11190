"""A recipe may choose how attention is computed; where that tells texts apart by itself, they are not padded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.loading import load_model
from embedtune.models.prepared import Prepared
from embedtune.recipe import Compose, Model, Prompts, check_recipe
from embedtune.types import Item

TEXTS = ["the old river is new 7", "bread", "what is the small planet 5", "winter 3 is open", "the engine is early"]
ITEMS = [Item(id=str(n), text=text) for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize("asked", ["eager", "sdpa"])
def test_the_implementation_that_is_asked_for_reaches_the_model(asked: str, tiny_model: Path) -> None:
    encoder = load_encoder(Model(name=str(tiny_model), attention=asked))
    assert encoder.model[0].model.config._attn_implementation == asked
    assert encoder.attention == [asked]
    default = load_encoder(str(tiny_model))
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), default.encode(ITEMS, "query"), atol=1e-6)
    assert encoder.identity == default.identity  # the same model: an index of the one is one of the other
    assert (encoder.fingerprint == default.fingerprint) == (asked == "sdpa")


def test_a_bare_checkpoint_and_both_towers_of_a_composed_model_are_asked_too(
    bare_checkpoint: Path, image_models: dict[str, Path]
) -> None:
    bare = load_encoder(Model(name=str(bare_checkpoint), pooling="mean", attention="eager"))
    assert bare.attention == ["eager"]
    towers = Compose(text=str(image_models["words"]), image=str(image_models["vit"]), dimension=8)
    composed = load_model(Model(compose=towers, attention="eager"), torch.device("cpu"))
    routes = composed[0].sub_modules
    assert {routes[name][0].model.config._attn_implementation for name in ("text", "image")} == {"eager"}


def test_what_cannot_be_had_is_said_in_one_line(tiny_model: Path, tiny_dataset: Path) -> None:
    def load(asked: str, **more: Any) -> None:
        load_encoder(Model(name=str(tiny_model), attention=asked, **more))

    with pytest.raises(InputError, match=r"model\.attention: unknown attention 'sdpaa': did you mean 'sdpa'\?$"):
        load("sdpaa")
    with pytest.raises(
        InputError, match=r"model\.attention: flash_attention_2 needs a GPU .*: pip install flash-attn$"
    ):
        load("flash_attention_2")
    with pytest.raises(InputError, match=r"flash_attention_3 needs a GPU and its own package, which is not here$"):
        load("flash_attention_3")
    with pytest.raises(InputError, match=r"is code from the hub; it needs model\.trust_remote_code: true$"):
        load("kernels-community/flash-attn2")
    values = {"version": 1, "model": {"name": "m", "attention": "flash_attention_2"}, "data": {"train": "d"}}
    with pytest.raises(InputError, match=r"flash_attention_2 computes in bf16 .* alone; give evaluate.precision: bf16"):
        check_recipe(values)
    check_recipe({**values, "evaluate": {"precision": "bf16"}})


def test_the_command_ends_with_2(
    run_cli: Callable[..., Any], tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}, attention: sdpb}}\ndata: {{train: {tiny_dataset}}}\n"
        "train: {batch_size: 4}\n"
    )
    result = run_cli("train", recipe, "--output", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: model.attention: unknown attention 'sdpb': did you mean 'sdpa'?"


def text_by_text(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What flash attention does with a row of texts (1, heads, T, H), by torch's own attention, one text at a time."""
    assert cu_seq_lens_q is not None, "asked without boundaries, as for padded texts"
    assert attention_mask is None
    lengths = cu_seq_lens_q.diff().tolist()
    outputs = [
        torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        for q, k, v in zip(*(part.split(lengths, dim=2) for part in (query, key, value)), strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


@pytest.fixture
def without_padding(monkeypatch: pytest.MonkeyPatch) -> Callable[[Encoder], Encoder]:
    """Makes an encoder's model one whose attention takes texts without padding, as if flash attention were here."""
    from transformers import AttentionInterface, AttentionMaskInterface, modeling_flash_attention_utils

    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_text_by_text", text_by_text)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "flash_text_by_text", lambda *args, **kwargs: None)
    functions = ((None, text_by_text, None, None, None), (None, None))
    monkeypatch.setattr(modeling_flash_attention_utils, "lazy_import_flash_attention", lambda name: functions)

    def changed(encoder: Encoder) -> Encoder:
        encoder.model[0].model.config._attn_implementation = "flash_text_by_text"
        encoder.model[0].unpad_inputs = None  # decides anew
        assert encoder.model[0].can_flatten_inputs
        return Encoder(encoder.model, encoder.name, "bf16")

    return changed


def equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
        else:
            assert (type(found[name]), found[name]) == (type(value), value), name


@pytest.mark.parametrize("prompt", [None, "what is "])
def test_features_are_those_of_sentence_transformers(
    prompt: str | None, tiny_model: Path, without_padding: Callable[[Encoder], Encoder]
) -> None:
    padded = load_encoder(Model(name=str(tiny_model), prompts=Prompts(query=prompt)))
    with_padding = padded.prepare(ITEMS, "query")  # kept by content: what is flat must not be taken for it
    assert not any(item.flat for item in with_padding)
    encoder = without_padding(padded)
    prepared = encoder.prepare(ITEMS, "query")
    assert all(item.flat for item in prepared)
    assert [item.length for item in prepared] == [item.length for item in with_padding]
    for rows in ([0, 1, 2, 3, 4], [3, 1], [2]):
        expected = encoder.model.preprocess([TEXTS[row] for row in rows], prompt=prompt, task="query")
        equal(encoder.features([prepared[row] for row in rows], "query"), expected)


def test_positions_and_lengths_by_hand(tiny_model: Path, without_padding: Callable[[Encoder], Encoder]) -> None:
    encoder = without_padding(load_encoder(str(tiny_model)))
    prepared = encoder.prepare([ITEMS[1], ITEMS[3]], "document")  # [CLS] bread [SEP], [CLS] winter 3 is open [SEP]
    features = encoder.features(prepared, "document")
    assert features["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 5]]
    assert features["seq_idx"].tolist() == [[0] * 3 + [1] * 6]
    assert features["cu_seq_lens_q"].tolist() == features["cu_seq_lens_k"].tolist() == [0, 3, 9]
    assert (features["max_length_q"], features["max_length_k"]) == (6, 6)
    assert "attention_mask" not in features


def test_embeddings_and_gradients_without_padding_are_those_with_it(
    tiny_model: Path, tiny_dataset: Path, without_padding: Callable[[Encoder], Encoder]
) -> None:
    items = list(load_dataset(tiny_dataset).corpus)[:12]

    def found(encoder: Encoder) -> tuple[Tensor, Tensor]:
        encoder.model.zero_grad()
        chunk: list[Prepared] = encoder.prepare(items, "document")
        encoder.precision = "fp32"  # the stand-in's arithmetic is as exact as torch's
        embeddings = encoder.forward(chunk, "document")
        embeddings[:, 0].sum().backward()
        gradients = [p.grad.flatten() for p in encoder.model.parameters() if p.grad is not None]
        return embeddings.detach(), torch.cat(gradients)

    encoder = load_encoder(str(tiny_model))
    embeddings, gradients = found(encoder)
    flat_embeddings, flat_gradients = found(without_padding(encoder))
    torch.testing.assert_close(flat_embeddings, embeddings, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(flat_gradients, gradients, atol=1e-6, rtol=1e-4)


def test_flash_attention_is_refused_in_fp32(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    encoder.model[0].model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="flash_attention_2 computes in bf16 or fp16 alone, and precision is fp32"):
        Encoder(encoder.model, "m", "fp32")


def test_positions_on_three_axes_keep_their_padding(
    vlm_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.sentence_transformer.modules import Transformer

    monkeypatch.setattr(Transformer, "_can_flatten_inputs", lambda module: True)
    loaded = load_model(Model(name=str(vlm_models["qwen3_vl"]), pooling="lasttoken"), torch.device("cpu"))
    assert not loaded[0].can_flatten_inputs
