"""Saved model folders in the layout that older versions of sentence-transformers and the servers read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result
from tiny_models import WORDS as VOCABULARY
from tiny_models import tokenizer

from embedtune.models.encoder import load_encoder
from embedtune.models.saving import save_model

TEXTS = ["the old river", "bread is new 3", "winter " * 90, ""]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def modules_of(folder: Path, *more: Any, poolings: Any = "mean") -> Any:
    """A sentence-transformers model of the folder's transformer, with these modules behind its pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(folder))
    pooling = Pooling(transformer.get_embedding_dimension(), poolings)
    return SentenceTransformer(modules=[transformer, pooling, *more], device="cpu")


def layouts(bare: Path) -> dict[str, Callable[[], Any]]:
    """Models that the older versions can compute."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    def with_prompts() -> Any:
        model = modules_of(bare, Normalize())
        model.prompts = {"query": "what is ", "document": "the ", "passage": "the "}
        model.default_prompt_name = "query"
        return model

    def cut() -> Any:
        model = modules_of(bare)
        model.max_seq_length, model.truncate_dim = 12, 8
        return model

    return {
        "mean": lambda: modules_of(bare, Normalize()),
        "poolings joined": lambda: modules_of(bare, poolings=("cls", "mean", "lasttoken")),
        "dense": lambda: modules_of(bare, Dense(32, 8), Normalize()),
        "without activation": lambda: modules_of(bare, Dense(32, 8, bias=False, activation_function=None)),
        "prompts": with_prompts,
        "cut": cut,
    }


@pytest.mark.parametrize("name", layouts(Path()))
def test_the_same_model_in_either_layout(name: str, bare_checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(0)
    model = layouts(bare_checkpoint)[name]()
    model.save_pretrained(str(tmp_path / "theirs"), create_model_card=False)
    save_model(model, tmp_path / "ours")
    theirs, ours = (SentenceTransformer(str(tmp_path / layout), device="cpu") for layout in ("theirs", "ours"))
    for encode in ("encode", "encode_query", "encode_document"):
        np.testing.assert_array_equal(getattr(ours, encode)(TEXTS), getattr(theirs, encode)(TEXTS))
    assert ours.max_seq_length == theirs.max_seq_length
    identities = {load_encoder(str(tmp_path / layout)).fingerprint for layout in ("theirs", "ours")}
    assert len(identities) == 1  # caches and indexes stay valid
    kinds = [entry["type"] for entry in read(tmp_path / "ours" / "modules.json")]
    assert kinds == [f"sentence_transformers.models.{type(module).__name__}" for module in model]


def test_required_keys(bare_checkpoint: Path, tmp_path: Path) -> None:
    """Of text-embeddings-inference 1.9.3 (router/src/lib.rs, backends/src/lib.rs, backends/candle/src/models),
    sentence-transformers 3.4, which infinity 0.0.78 loads models with, and vLLM (transformers_utils/config.py)."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    save_model(modules_of(bare_checkpoint, Dense(32, 8), Normalize()), tmp_path)
    pooling = read(tmp_path / "1_Pooling" / "config.json")
    assert pooling["pooling_mode_cls_token"] is False
    assert pooling["pooling_mode_mean_tokens"] is True
    assert next(key for key, value in pooling.items() if value is True) == "pooling_mode_mean_tokens"  # vLLM
    assert set(pooling) == {
        "word_embedding_dimension", "pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens",
        "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken",
        "include_prompt",
    }  # fmt: skip
    assert read(tmp_path / "sentence_bert_config.json") == {"max_seq_length": 64, "do_lower_case": False}
    dense = read(tmp_path / "2_Dense" / "config.json")
    activation = "torch.nn.modules.activation.Tanh"
    assert dense == {"in_features": 32, "out_features": 8, "bias": True, "activation_function": activation}
    for entry in read(tmp_path / "modules.json"):
        assert set(entry) == {"idx", "name", "path", "type"}
        known = {f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")}
        assert entry["type"] in known  # TEI leaves out every Dense module where it does not know one of the types
    config = read(tmp_path / "config.json")
    bert = {"architectures": list, "model_type": str, "max_position_embeddings": int, "pad_token_id": int}
    bert |= {"vocab_size": int, "hidden_size": int, "num_hidden_layers": int, "num_attention_heads": int}
    bert |= {"intermediate_size": int, "hidden_act": str, "hidden_dropout_prob": float, "type_vocab_size": int}
    bert |= {"initializer_range": float, "layer_norm_eps": float}
    assert {key: type(config[key]) for key in bert} == bert
    prompts = read(tmp_path / "config_sentence_transformers.json")["prompts"]
    assert all(isinstance(prompt, str) for prompt in prompts.values())
    assert (tmp_path / "tokenizer.json").exists()
    settings = read(tmp_path / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 has no TokenizersBackend


def test_extra_tokens_have_transformers_4s_name(bare_checkpoint: Path, tmp_path: Path) -> None:
    model = modules_of(bare_checkpoint)
    model.tokenizer.add_special_tokens({"extra_special_tokens": ["<mark>"]})
    model[0].model.resize_token_embeddings(len(model.tokenizer))
    save_model(model, tmp_path)
    settings = read(tmp_path / "tokenizer_config.json")
    assert settings["additional_special_tokens"] == ["<mark>"]
    assert "extra_special_tokens" not in settings
    again = load_encoder(str(tmp_path)).model.tokenizer
    assert again.convert_tokens_to_ids(again.tokenize("old <mark> river")) == [14, len(again) - 1, 4]


def test_what_older_versions_cannot_do_is_left_for_them_to_refuse(bare_checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    reversed_poolings = modules_of(bare_checkpoint, poolings=("mean", "cls"))
    models = {
        "order": (reversed_poolings, 1),
        "residual": (modules_of(bare_checkpoint, Dense(32, 8, use_residual=True)), 2),
        "tokens": (modules_of(bare_checkpoint, Normalize("token_embeddings")), 2),
    }
    for name, (model, place) in models.items():
        save_model(model, tmp_path / name)
        kind = read(tmp_path / name / "modules.json")[place]["type"]
        assert kind.startswith(("sentence_transformers.base.", "sentence_transformers.sentence_transformer.")), name
    again = load_encoder(str(tmp_path / "order")).model
    np.testing.assert_array_equal(again.encode(TEXTS), reversed_poolings.encode(TEXTS))


def test_a_model_of_images_keeps_its_layout(image_models: dict[str, Path], tmp_path: Path) -> None:
    model = load_encoder(str(image_models["clip"])).model
    save_model(model, tmp_path)
    assert "modality_config" in read(tmp_path / "sentence_bert_config.json")
    np.testing.assert_array_equal(load_encoder(str(tmp_path)).model.encode("a red"), model.encode("a red"))


def test_frequencies_of_rotary_positions_have_transformers_4s_names(tmp_path: Path) -> None:
    """transformers 4 knows no `rope_parameters`: without its own names it would take its default frequency."""
    from transformers import ModernBertConfig, ModernBertModel, Qwen3Config, Qwen3Model

    sizes = {"vocab_size": len(VOCABULARY), "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 64, "pad_token_id": 0}
    yarn = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 2.0, "original_max_position_embeddings": 32}
    flat = {"num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 16}
    nested = {"full_attention": {"rope_type": "default", "rope_theta": 7e4}}
    nested["sliding_attention"] = {"rope_type": "default", "rope_theta": 3e3}
    layers = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    models = {
        "plain": Qwen3Model(Qwen3Config(**sizes, **flat, rope_parameters={"rope_type": "default", "rope_theta": 3e5})),
        "yarn": Qwen3Model(Qwen3Config(**sizes, **flat, rope_parameters=yarn)),
        "two": ModernBertModel(
            ModernBertConfig(**sizes, num_hidden_layers=4, rope_parameters=nested, layer_types=layers)
        ),
    }
    expected = {
        "plain": {"rope_theta": 3e5},
        "yarn": {"rope_theta": 5e5, "rope_scaling": {key: yarn[key] for key in yarn if key != "rope_theta"}},
        "two": {"global_rope_theta": 7e4, "local_rope_theta": 3e3, "global_attn_every_n_layers": 3},
    }
    for name, bare in models.items():
        bare.save_pretrained(tmp_path / name / "bare")
        tokenizer(length=64).save_pretrained(tmp_path / name / "bare")
        model = modules_of(tmp_path / name / "bare")
        save_model(model, tmp_path / name / "saved")
        config = read(tmp_path / name / "saved" / "config.json")
        assert {key: config.get(key) for key in expected[name]} == expected[name]
        again = load_encoder(str(tmp_path / name / "saved")).model
        np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))


@pytest.mark.skipif(os.name != "posix", reason="no umask here")
def test_every_verb_writes_this_layout_with_the_umasks_mode(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Result]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings = {"version": 1, "data": {"train": str(tiny_dataset)}, "train": {"max_steps": 2, "batch_size": 4}}
    settings["model"] = {"name": str(tiny_model), "lora": {"rank": 2}}
    guard = {"largest_drop": 0.5, "interpolate": True, "alphas": [0.5]}
    settings["evaluate"] = {"out_of_domain": [str(tiny_dataset)], "guard": guard}
    recipe.write_text(json.dumps(settings))
    run, adapter = tmp_path / "run", tmp_path / "run" / "adapter"
    before = os.umask(0o022)
    try:
        for line in (
            ["train", recipe, "--output", run],
            ["merge", tiny_model, run, "--alpha", "0.5", "--output", tmp_path / "merged"],
            ["export", adapter, "--output", tmp_path / "exported"],
            ["index", tiny_dataset, "--model", run, "--output", tmp_path / "index"],
            ["encode", tiny_dataset, "--model", run, "--output", tmp_path / "encoded"],
        ):
            result = run_cli(*line)
            assert result.exit_code == 0, result.stderr
    finally:
        os.umask(before)
    for folder in (run / "model", run / "model-unmixed", tmp_path / "merged", tmp_path / "exported"):
        kinds = {entry["type"].rpartition(".")[0] for entry in read(folder / "modules.json")}
        assert kinds == {"sentence_transformers.models"}, folder
    modes = {
        path: oct(stat.S_IMODE(path.stat().st_mode))
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.name.startswith(".lock") and stat.S_IMODE(path.stat().st_mode) != 0o644
    }
    assert not modes
