"""Encoding: the model's own result, whatever the order, the batch and the padding side; cached by content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.models import store
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.prepared import Prepared, chunks_by_length, collated, separated
from embedtune.models.similarity import as_scored, scored
from embedtune.recipe import Model, Prompts
from embedtune.search.embeddings import encode_dataset
from embedtune.search.storage import Storage
from embedtune.types import Item, Role

TEXTS = [
    "the old river",
    "what is the new engine 5",
    "music",
    "the large castle is dark 12 and the winter is early late",
]
ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(TEXTS)]


def test_encodes_as_sentence_transformers_does(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    expected = encoder.model.encode_document(TEXTS)
    np.testing.assert_allclose(encoder.encode(ITEMS, "document"), expected, atol=1e-6)


def test_a_title_is_read_before_the_text(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    titled = encoder.encode([Item(id="a", title="old", text="river")], "document")
    np.testing.assert_allclose(titled, encoder.encode([Item(id="b", text="old river")], "document"), atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_a_bare_checkpoint_pools_the_same_alone_and_in_a_batch(
    bare_checkpoint: Path, tmp_path: Path, pooling: str, side: str
) -> None:
    folder = shutil.copytree(bare_checkpoint, tmp_path / "bare")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": side}))
    encoder = load_encoder(Model(name=str(folder), pooling=pooling))  # type: ignore[arg-type]
    together = encoder.encode(ITEMS, "document")
    alone = np.concatenate([encoder.encode([item], "document") for item in ITEMS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    states = encoder.model[0].model(**encoder.model.tokenizer(TEXTS[2], return_tensors="pt")).last_hidden_state[0]
    by_hand = {"mean": states.mean(0), "cls": states[0], "lasttoken": states[-1]}[pooling]
    np.testing.assert_allclose(alone[2], by_hand.detach().numpy(), atol=1e-5)


def test_last_token_of_a_causal_model_under_left_padding(bare_checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

    tokenizer = AutoTokenizer.from_pretrained(bare_checkpoint, padding_side="left")
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(tokenizer) + 1, num_key_value_heads=2, max_position_embeddings=64, **sizes)
    Qwen2Model(config).save_pretrained(tmp_path)
    encoder = load_encoder(Model(name=str(tmp_path), pooling="lasttoken"))
    alone = np.concatenate([encoder.encode([item], "query") for item in ITEMS])
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), encoder.model.encode_query(TEXTS), atol=1e-4)


def test_prompts_are_the_recipes_or_the_models_own(tiny_model: Path) -> None:
    prompted = load_encoder(Model(name=str(tiny_model), prompts=Prompts(query="what is ")))
    plain = load_encoder(str(tiny_model))
    by_hand = plain.encode([Item(id="x", text="what is the old river")], "query")
    np.testing.assert_allclose(prompted.encode([ITEMS[0]], "query"), by_hand, atol=1e-6)
    np.testing.assert_allclose(prompted.encode(ITEMS, "document"), plain.encode(ITEMS, "document"), atol=1e-6)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_chunks_hold_every_row_once_within_their_bound(lengths: list[int], tokens: int) -> None:
    chunks = chunks_by_length(lengths, tokens)
    assert sorted(row for chunk in chunks for row in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        widest = max(lengths[row] for row in chunk)
        assert len(chunk) == 1 or widest * len(chunk) <= tokens
    flat = [lengths[row] for chunk in chunks for row in chunk]
    assert flat == sorted(flat, reverse=True)


def test_a_zero_vector_stays_zero() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(as_scored(rows, "cosine"), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(as_scored(rows, "dot"), rows)
    np.testing.assert_allclose(scored(torch.from_numpy(rows), "cosine").numpy(), as_scored(rows, "cosine"))


class Counting(Encoder):
    """Counts forward passes."""

    forwards = 0

    def forward(self, *args: object, **kwargs: object) -> torch.Tensor:
        self.forwards += 1
        return super().forward(*args, **kwargs)  # type: ignore[arg-type]


def counting(model: Path) -> Counting:
    loaded = load_encoder(str(model))
    return Counting(loaded.model, loaded.name, loaded.precision)


def test_a_corpus_is_encoded_once_for_the_same_weights(tiny_model: Path, tiny_dataset: Path) -> None:
    corpus = load_dataset(tiny_dataset).corpus
    first, again = counting(tiny_model), counting(tiny_model)
    rows = first.encode(corpus, "document")
    np.testing.assert_array_equal(again.encode(corpus, "document"), rows)
    assert again.forwards == 0
    with torch.no_grad():
        next(again.model.parameters()).add_(0.1)
    assert again.fingerprint != first.fingerprint
    assert not np.allclose(again.encode(corpus, "document"), rows)
    assert again.forwards > 0


def test_the_fingerprint_knows_prompts_length_and_precision(tiny_model: Path) -> None:
    models = [
        Model(name=str(tiny_model)),
        Model(name=str(tiny_model), max_length=16),
        Model(name=str(tiny_model), prompts=Prompts(document="the ")),
    ]
    prints = [load_encoder(model).fingerprint for model in models]
    prints.append(load_encoder(models[0], precision="bf16").fingerprint)
    assert len(set(prints)) == 4
    assert load_encoder(models[0]).fingerprint == prints[0]


def test_a_cache_that_does_not_match_is_refused(tiny_model: Path, tiny_dataset: Path) -> None:
    encoder, corpus = load_encoder(str(tiny_model)), load_dataset(tiny_dataset).corpus
    encoder.encode(corpus, "query")
    key = store.Key(encoder=encoder.fingerprint, role="query", items=corpus.fingerprint, count=len(corpus))
    manifest = json.loads((key.folder / "manifest.json").read_text())
    (key.folder / "manifest.json").write_text(json.dumps({**manifest, "encoder": "another"}))
    with pytest.raises(InputError, match="embedding cache of something else"):
        encoder.encode(corpus, "query")
    (key.folder / "embeddings.npy").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged embedding cache"):
        encoder.encode(corpus, "query")
    shutil.rmtree(key.folder)


def test_a_killed_encoding_goes_on_where_it_was(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, whole = load_dataset(tiny_dataset).corpus, load_encoder(str(tiny_model), cached=False)
    expected = whole.encode(corpus, "document")
    monkeypatch.setattr("embedtune.models.prepared.BLOCK", 16)
    encoder = load_encoder(Model(name=str(tiny_model), prompts=Prompts(document="")))
    prepare, blocks = encoder.prepare, []

    def killed_in_the_third(items: Sequence[Item], role: Role) -> list[Prepared]:
        blocks.append(len(items))
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return prepare(items, role)

    monkeypatch.setattr(encoder, "prepare", killed_in_the_third)
    key = store.Key(encoder=encoder.fingerprint, role="document", items=corpus.fingerprint, count=len(corpus))
    shutil.rmtree(key.folder, ignore_errors=True)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(corpus, "document")
    assert not key.folder.exists()  # nothing that is not whole
    found = encoder.encode(corpus, "document")
    assert sum(blocks[3:]) == len(corpus) - 32
    np.testing.assert_allclose(found, expected, atol=1e-6)  # other blocks, other padding
    assert sorted(path.name for path in key.folder.iterdir()) == ["embeddings.npy", "manifest.json"]
    assert not list(key.folder.parent.glob(f".{key.folder.name}*"))


def test_encode_dataset_writes_arrays_ids_and_a_manifest(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    encoder, dataset = load_encoder(str(tiny_model)), load_dataset(tiny_dataset)
    manifest = encode_dataset(encoder, dataset, tmp_path / "out", storage=Storage(quantize="float16"))
    rows = np.load(tmp_path / "out" / "corpus.npy", mmap_mode="r")
    assert rows.dtype == np.float16
    np.testing.assert_allclose(rows, encoder.encode(dataset.corpus, "document"), atol=1e-3)
    assert (tmp_path / "out" / "corpus.ids").read_text().splitlines() == list(dataset.corpus.ids)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    with pytest.raises(InputError, match="exists already"):
        encode_dataset(encoder, dataset, tmp_path / "out")


def test_what_is_the_same_for_all_tokens_is_held_once() -> None:
    features = {
        "input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
        "token_type_ids": torch.tensor([[0, 0, 0], [0, 1, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    items = separated(features, count=2, width=None)
    assert items is not None
    held = [[item.padded[name].untyped_storage().nbytes() for name in sorted(item.padded)] for item in items]
    assert held == [[3 * 8, 8], [2 * 8, 2 * 8]]  # of int64
    again = collated(items, pad=0)
    for name, values in features.items():
        assert again[name].dtype == values.dtype
        assert torch.equal(again[name], values)


def test_tokens_are_kept_by_a_fingerprint_of_the_text(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model), cached=False)
    keys = [encoder.preparer.key(Item(id=name, text=text), "document") for name, text in zip("abc", "xxy", strict=True)]
    assert keys[0] == keys[1] != keys[2]
    long = "the old river " * 100
    assert long not in repr(encoder.preparer.key(Item(id="d", text=long), "document"))


def test_a_text_of_a_million_characters_is_truncated(tiny_model: Path) -> None:
    encoder = load_encoder(str(tiny_model))
    long = Item(id="long", text="river engine " * 77_000)
    assert len(long.text) > 1_000_000
    assert encoder.prepare([long], "document")[0].length == encoder.max_length
