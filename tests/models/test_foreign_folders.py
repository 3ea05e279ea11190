"""Model folders as other tools save them: read whole, or refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from tiny_models import learned

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models import adapters, loading
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.folders import made_once, with_safetensors
from embedtune.models.scorers import CrossEncoderScores
from embedtune.recipe import Lora, Model, Prompts
from embedtune.types import Item, Role

TEXTS = ["the old river", "bread is new 3", "winter"]
ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(TEXTS)]


def opened(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def assert_equals_sentence_transformers(folder: Path, encoder: Encoder | None = None) -> None:
    """Both roles' embeddings are those of SentenceTransformer(folder)."""
    encoder, peer = encoder or load_encoder(str(folder)), opened(folder)
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), peer.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(encoder.encode(ITEMS, "document"), peer.encode_document(TEXTS), atol=1e-6)


def with_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def pickled(folder: Path) -> Path:
    """The folder with every safetensors file as pytorch_model.bin."""
    for file in sorted(folder.rglob("*.safetensors")):
        torch.save(load_file(file), file.with_name("pytorch_model.bin"))
        file.unlink()
    return folder


@pytest.fixture(params=["on a sentence-transformers model", "on a bare checkpoint", "on .bin weights"])
def lora_folder(request: pytest.FixtureRequest, tiny_model: Path, bare_checkpoint: Path, tmp_path: Path) -> Path:
    """Saved by sentence-transformers with an adapter, other prompts, cls pooling and a Dense of its own."""
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    base = bare_checkpoint if request.param == "on a bare checkpoint" else tiny_model
    if request.param == "on .bin weights":
        base = pickled(Path(shutil.copytree(tiny_model, tmp_path / "base")))
    torch.manual_seed(0)
    modules = [Transformer(str(base)), Pooling(32, "cls"), Dense(32, 16)]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "what is the ", "document": "the "})
    model.add_adapter(LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False))
    model.max_seq_length = 5
    model.save_pretrained(str(tmp_path / "lora"))
    return tmp_path / "lora"


def test_an_adapter_folder_that_sentence_transformers_saved_is_read_whole(lora_folder: Path) -> None:
    encoder = load_encoder(str(lora_folder))
    assert (encoder.dimension, encoder.max_length, encoder.prompt("document")) == (16, 5, "the ")
    assert_equals_sentence_transformers(lora_folder, encoder)
    assert not adapters.adapted(encoder.model)  # merged


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_beside_an_adapter_are_not_its_base(lora_folder: Path, name: str) -> None:
    expected = load_encoder(str(lora_folder)).encode(ITEMS, "query")
    weights = load_encoder(str(lora_folder)).model[0].model.state_dict()
    stale = {key: tensor + 1 for key, tensor in weights.items()}
    if name.endswith(".bin"):
        torch.save(stale, lora_folder / name)
    else:
        save_file(stale, lora_folder / name)
    np.testing.assert_array_equal(load_encoder(str(lora_folder)).encode(ITEMS, "query"), expected)
    assert_equals_sentence_transformers(lora_folder)


def router_of(folder: Path, base: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    query, document = list(opened(base))[:2], list(opened(base))[:2]
    modules = [Router.for_query_document(query, document), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def test_the_adapter_of_a_routers_route_is_read_back(tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    router = router_of(tmp_path / "router", tiny_model)
    encoder = load_encoder(str(router))
    adapters.attach(encoder.model, Lora(rank=2), str(router))
    learned(encoder.model, 1.0)
    adapters.save_adapter(encoder.model, tmp_path / "adapter")
    plain = load_encoder(str(router))
    for route, other in (("query", "document"), ("document", "query")):
        back = load_encoder(str(tmp_path / "adapter" / route))
        np.testing.assert_allclose(encode(back, route), encode(encoder, route), atol=1e-5)
        np.testing.assert_array_equal(encode(back, other), encode(plain, other))
        config = json.loads((tmp_path / "adapter" / route / "adapter_config.json").read_text())
        base = AutoModel.from_pretrained(config["base_model_name_or_path"])
        with adapters.quiet():
            assert PeftModel.from_pretrained(base, str(tmp_path / "adapter" / route)).peft_config


def encode(encoder: Encoder, role: str) -> np.ndarray:
    roles: dict[str, Role] = {"query": "query", "document": "document"}
    return encoder.encode(ITEMS, roles[role])


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["output.dense"]},
        {"trainable_token_indices": [2, 4]},
        {"init_lora_weights": "pissa"},
        {"target_modules": ["value", "word_embeddings"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_kind_of_lora_adapter_is_read(options: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = load_encoder(str(tiny_model)).model
    with adapters.quiet():
        adapted: Any = get_peft_model(model[0].model, LoraConfig(**{"r": 2, "target_modules": ["value"], **options}))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_model)
    with adapters.quiet():
        adapted.save_pretrained(str(tmp_path))
    model[0].model = adapted
    plain = load_encoder(str(tiny_model)).encode(ITEMS, "query")
    loaded = load_encoder(str(tmp_path)).encode(ITEMS, "query")
    np.testing.assert_allclose(loaded, model.encode_query(TEXTS), atol=1e-5)
    assert np.abs(loaded - plain).max() > 1e-3


@pytest.mark.parametrize("file", ["1_Pooling/config.json", "config_sentence_transformers.json"])
def test_an_edited_folder_with_bin_weights_is_read_as_it_is_now(file: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = pickled(Path(shutil.copytree(tiny_model, tmp_path / "old")))
    before = load_encoder(str(folder)).encode(ITEMS, "query")
    changes = {"pooling_mode": "cls"} if "Pooling" in file else {"prompts": {"query": "what is the ", "document": ""}}
    with_json(folder / file, **changes)
    after = load_encoder(str(folder)).encode(ITEMS, "query")
    assert np.abs(before - after).max() > 1e-3
    np.testing.assert_allclose(after, opened(folder).encode_query(TEXTS), atol=1e-6)


@pytest.mark.parametrize("stray", [None, "2_Dense/model.safetensors", "onnx/other.safetensors"])
def test_each_modules_bin_weights_are_read(stray: str | None, tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    model = opened(tiny_model)
    torch.manual_seed(0)
    model.insert(2, Dense(32, 8))
    model.save_pretrained(str(tmp_path / "old"))
    folder = pickled(tmp_path / "old")
    if stray is not None:
        (folder / stray).parent.mkdir(exist_ok=True)
        dense = torch.load(folder / "2_Dense/pytorch_model.bin", weights_only=True)
        save_file(dense, folder / stray)
        (folder / "2_Dense/pytorch_model.bin").unlink(missing_ok="2_Dense" in stray)
    if stray == "onnx/other.safetensors":
        torch.save(dense, folder / "2_Dense/pytorch_model.bin")
    assert_equals_sentence_transformers(folder)


def test_shards_of_bin_weights_are_read(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "old"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = [dict(list(weights.items())[::2]), dict(list(weights.items())[1::2])]
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for name, half in zip(names, halves, strict=True):
        torch.save(half, folder / name)
    index = {"metadata": {}, "weight_map": {w: n for n, half in zip(names, halves, strict=True) for w in half}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(
        load_encoder(str(folder)).encode(ITEMS, "query"), load_encoder(str(tiny_model)).encode(ITEMS, "query")
    )
    for damaged in ({"a": 1}, {"weight_map": names}, {"weight_map": {"a": 1}}):
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=r"pytorch_model\.bin\.index\.json: expected .* in `weight_map`"):
            load_encoder(str(folder))


def cut_short(path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path, dict[str, torch.Tensor]], Any], str]] = {
    "cut short": (cut_short, "damaged"),
    "empty": (lambda path, _: path.write_bytes(b""), "damaged"),
    "text": (lambda path, _: path.write_text("no weights"), "holds more than plain tensors, or is damaged"),
    "a list": (lambda path, weights: torch.save(list(weights.values()), path), "expected named tensors, found list"),
    "an unknown global": (lambda path, _: torch.save({"a": Path("x")}, path), "holds more than plain tensors"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("module", ["", "2_Dense", "cross-encoder"])
def test_damaged_weights_are_one_line(
    damage: str, module: str, tiny_model: Path, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    folder, (write, message) = tmp_path / "old", DAMAGES[damage]
    if module == "cross-encoder":
        tiny_models.write_cross_encoder(folder, bare_checkpoint)
    else:
        model = opened(tiny_model)
        model.insert(2, Dense(32, 8))
        model.save_pretrained(str(folder))
    file = folder / ("" if module == "cross-encoder" else module) / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    write(file.with_name("pytorch_model.bin"), weights)
    scores = partial(CrossEncoderScores, dataset=load_dataset(tiny_dataset), device="cpu")
    load: Callable[[str], Any] = scores if module == "cross-encoder" else load_encoder
    with pytest.raises(InputError, match=message) as raised:
        load(str(folder))
    assert "\n" not in str(raised.value)


def test_safetensors_that_are_cut_short_are_one_line(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "cut"))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded") as raised:
        load_encoder(str(folder))
    assert "\n" not in str(raised.value)


def test_processes_that_convert_the_same_model_at_once_do_not_collide(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from embedtune.models.folders import made_once\n"
        "def write(folder):\n    (folder / 'file').write_text('whole'); time.sleep(1)\n"
        "print((made_once('key', write) / 'file').read_text())"
    )
    environment = {**os.environ, "EMBEDTUNE_CACHE": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [one.communicate(timeout=120)[0] for one in started] == ["whole\n"] * 2
    assert [one.returncode for one in started] == [0, 0]


def test_an_interrupted_conversion_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))

    def stopped(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once("key", stopped)
    assert not (tmp_path / "models/key").exists()
    assert (made_once("key", lambda folder: (folder / "whole").touch()) / "whole").exists()


def test_other_kinds_of_models_are_refused_by_name(bare_checkpoint: Path, tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder, SparseEncoder
    from transformers import BertForMaskedLM

    BertForMaskedLM.from_pretrained(str(bare_checkpoint)).save_pretrained(tmp_path / "masked")
    for file in bare_checkpoint.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "masked")
    SparseEncoder(str(tmp_path / "masked"), device="cpu").save_pretrained(str(tmp_path / "SparseEncoder"))
    MultiVectorEncoder(str(tiny_model), device="cpu").save_pretrained(str(tmp_path / "MultiVectorEncoder"))
    tiny_models.write_cross_encoder(tmp_path / "CrossEncoder", bare_checkpoint)
    for kind in ("SparseEncoder", "MultiVectorEncoder", "CrossEncoder"):
        with pytest.raises(InputError, match=f"is a {kind}; expected a model of dense embeddings"):
            load_encoder(str(tmp_path / kind))
        (tmp_path / kind / "config_sentence_transformers.json").unlink()  # as older versions saved it
        if kind == "CrossEncoder":
            (tmp_path / kind / "modules.json").unlink()
        with pytest.raises(InputError, match=f"is a {kind}"):
            load_encoder(str(tmp_path / kind))
    assert load_encoder(Model(name=str(tmp_path / "CrossEncoder"), pooling="cls")).dimension == 32  # asked for


def test_weights_that_the_checkpoint_lacks_are_an_error_that_names_them(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "without"))
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    save_file({key: value for key, value in weights.items() if key != name}, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"1 weights are not in the checkpoint and would be random numbers, .*{name}"):
        load_encoder(str(folder))
    asked = load_encoder(Model(name=str(folder), new_weights=[name]), seed=3).encode(ITEMS, "query")
    again = load_encoder(Model(name=str(folder), new_weights=[name]), seed=3).encode(ITEMS, "query")
    np.testing.assert_array_equal(asked, again)
    half = load_encoder(Model(name=str(folder), new_weights=["*.output.dense.*"], dtype="bfloat16"), precision="bf16")
    weight = half.model[0].model.encoder.layer[1].output.dense.weight
    drawn = load_encoder(Model(name=str(folder), new_weights=["*"])).model[0].model.encoder.layer[1].output.dense.weight
    assert torch.equal(weight, drawn.bfloat16())  # the same numbers in each number format
    with pytest.raises(InputError, match=f"'\\*.attention.*' matches no missing weight of .*; it lacks '{name}'"):
        load_encoder(Model(name=str(folder), new_weights=[name, "*.attention.*"]))
    with pytest.raises(InputError, match=r"'\*' matches no missing weight of .*, which lacks none"):
        load_encoder(Model(name=str(tiny_model), new_weights=["*"]))
    save_file({f"other.{key}": value for key, value in weights.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"weights are not in the checkpoint.* as in model\.new_weights: \["):
        load_encoder(str(folder))


def test_a_checkpoint_without_a_pooler_is_complete(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "without"))
    weights = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in weights.items() if "pooler" not in key}, folder / "model.safetensors")
    assert len(load_file(folder / "model.safetensors")) < len(weights)
    np.testing.assert_array_equal(
        load_encoder(str(folder)).encode(ITEMS, "query"), load_encoder(str(tiny_model)).encode(ITEMS, "query")
    )


def test_a_passage_prompt_is_the_documents(tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "e5"))
    with_json(folder / "config_sentence_transformers.json", prompts={"query": "query: ", "passage": "passage: "})
    loading._say_once.cache_clear()
    for _ in range(2):
        encoder = load_encoder(str(folder))
    assert (encoder.prompt("query"), encoder.prompt("document")) == ("query: ", "passage: ")
    assert sum("'passage' is put before documents" in record.message for record in caplog.records) == 1
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert_equals_sentence_transformers(tmp_path / "saved")
    assert load_encoder(str(tmp_path / "saved")).prompt("document") == "passage: "
    silent = load_encoder(Model(name=str(folder), prompts=Prompts(document="")))
    assert silent.prompt("document") is None
    silent.model.save_pretrained(str(tmp_path / "silent"), create_model_card=False)
    assert load_encoder(str(tmp_path / "silent")).prompt("document") is None


def test_a_saved_truncation_is_kept_and_is_part_of_the_identity(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "cut"))
    with_json(folder / "config_sentence_transformers.json", truncate_dim=8)
    encoder, whole = load_encoder(str(folder)), load_encoder(str(tiny_model))
    assert encoder.dimension == 8
    assert_equals_sentence_transformers(folder, encoder)
    np.testing.assert_array_equal(encoder.encode(ITEMS, "query"), whole.encode(ITEMS, "query")[:, :8])
    assert encoder.identity != whole.identity
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    assert load_encoder(str(tmp_path / "saved")).dimension == 8


SETTINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    **{
        f"truncate_dim {value!r}": (
            "config_sentence_transformers.json",
            {"truncate_dim": value},
            "truncate_dim in config",
        )
        for value in (0, -3, 1.5, "x", True)
    },
    **{
        f"max_seq_length {value!r}": (
            "sentence_bert_config.json",
            {"max_seq_length": value},
            "at least 3 .* in sentence_",
        )
        for value in (-1, 0, 2, 2.5, "x", True)
    },
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_out_of_its_range_is_one_line(setting: str, tiny_model: Path, tmp_path: Path) -> None:
    file, values, message = SETTINGS[setting]
    folder = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    with_json(folder / file, **values)
    with pytest.raises(InputError, match=f"model .*: .*{message}") as raised:
        load_encoder(str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("length", [-1, 0, 4, "x"])
def test_a_cross_encoders_length_holds_a_token_of_both_texts(
    length: Any, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    tiny_models.write_cross_encoder(tmp_path, bare_checkpoint)
    dataset = load_dataset(tiny_dataset)
    special = CrossEncoderScores(str(tmp_path), dataset, "cpu")._model.tokenizer.num_special_tokens_to_add(pair=True)
    with_json(tmp_path / "tokenizer_config.json", model_max_length=length if length != 4 else special + 1)
    message = "cannot be loaded: '<'" if length == "x" else f"its maximum length is .* of at least {special + 2} "
    with pytest.raises(InputError, match=f"cross-encoder .*: {message}") as raised:
        CrossEncoderScores(str(tmp_path), dataset, "cpu")
    assert "\n" not in str(raised.value)
    with_json(tmp_path / "tokenizer_config.json", model_max_length=special + 2)
    CrossEncoderScores(str(tmp_path), dataset, "cpu")


def test_a_setting_of_null_counts_as_absent(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    with_json(folder / "config_sentence_transformers.json", model_type=None, truncate_dim=None)
    with_json(folder / "sentence_bert_config.json", max_seq_length=None)
    assert_equals_sentence_transformers(folder)


@pytest.mark.parametrize("content", ["{}", "{"])
def test_a_damaged_tokenizer_is_named_and_torchvision_is_not(content: str, tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(
        InputError, match=r"cannot be loaded: its tokenizer .*; tokenizer\.json, .* is damaged"
    ) as raised:
        load_encoder(str(folder))
    assert "torchvision" not in str(raised.value)


def decoder(folder: Path, bare_checkpoint: Path, **special: str | None) -> Path:
    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

    tokenizer = AutoTokenizer.from_pretrained(bare_checkpoint, **special)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    Qwen2Model(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_decoder_without_a_padding_token_pads_with_its_end(bare_checkpoint: Path, tmp_path: Path) -> None:
    folder = decoder(tmp_path / "decoder", bare_checkpoint, pad_token=None, eos_token="[SEP]")
    encoder = load_encoder(Model(name=str(folder), pooling="lasttoken"))
    alone = np.concatenate([encoder.encode([item], "query") for item in ITEMS])
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), alone, atol=1e-5)
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    np.testing.assert_allclose(opened(tmp_path / "saved").encode_query(TEXTS), alone, atol=1e-5)
    neither = decoder(tmp_path / "neither", bare_checkpoint, pad_token=None, eos_token=None)
    with pytest.raises(InputError, match="neither a padding nor an end-of-text token"):
        load_encoder(Model(name=str(neither), pooling="lasttoken"))


@pytest.mark.parametrize("family", ["XLMRoberta", "MPNet"])
def test_positions_behind_the_paddings_row_are_the_usable_ones(
    family: str, bare_checkpoint: Path, tmp_path: Path
) -> None:
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=100, max_position_embeddings=18, pad_token_id=1, **sizes
    )
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(bare_checkpoint, model_max_length=10**30).save_pretrained(tmp_path)
    encoder = load_encoder(Model(name=str(tmp_path), pooling="mean"))
    assert encoder.max_length == 16
    long = [Item(id="long", text="river " * 50)]
    assert np.isfinite(encoder.encode(long, "query")).all()
    assert load_encoder(Model(name=str(tmp_path), pooling="mean", max_length=16)).max_length == 16
    with pytest.raises(InputError, match="17 exceeds the 16 positions"):
        load_encoder(Model(name=str(tmp_path), pooling="mean", max_length=17))


def test_a_tokenizer_beyond_the_embedding_matrix_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = Path(shutil.copytree(tiny_model, tmp_path / "longer"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["one", "two"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=f"its tokenizer has {rows + 2} tokens, its embedding matrix {rows} rows"):
        load_encoder(str(folder))


def test_an_edited_configuration_has_other_cached_embeddings(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "edited"))
    with_json(folder / "config.json", hidden_act="relu")
    edited, plain = load_encoder(str(folder)), load_encoder(str(tiny_model))
    assert edited.fingerprint != plain.fingerprint
    plain.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    saved = load_encoder(str(tmp_path / "saved"))
    assert (saved.fingerprint, saved.identity) == (plain.fingerprint, plain.identity)


def test_a_path_out_of_the_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="out of the folder"):
        with_safetensors(folder)
    with pytest.raises(InputError, match="out of the folder"):
        load_encoder(str(folder))


def test_a_dry_run_counts_the_parameters_of_every_form_of_a_model(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    encoder = load_encoder(str(tiny_model))
    adapters.attach(encoder.model, Lora(rank=2), str(tiny_model))
    adapters.save_adapter(encoder.model, tmp_path / "adapter")
    old = pickled(Path(shutil.copytree(tiny_model, tmp_path / "old")))
    counts = []
    for number, model in enumerate((tiny_model, tmp_path / "adapter", old)):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(
            f"version: 1\nmodel: {{name: {model}}}\ndata: {{train: {tiny_dataset}}}\ntrain: {{batch_size: 4}}\n"
        )
        shown = run_cli("train", recipe, "--dry-run")
        assert shown.exit_code == 0, shown.stderr
        (line,) = [line for line in (shown.stdout + shown.stderr).splitlines() if " parameters, all trained" in line]
        counts.append(int(line.partition(" parameters")[0].rpartition(" ")[2].replace(",", "")))
    assert counts[0] == counts[1] > 10_000
    assert counts[2] == pytest.approx(counts[0], rel=0.2)  # a pickle's size is about that of its tensors
