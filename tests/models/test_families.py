"""Every family of models in its hub folder's layout: the same embeddings as sentence-transformers' own, before and
after training, with prompts, pooling and truncation kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
from pictures import draw
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny_models import QWEN

from embedtune.data.images import open_image
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Model, check_recipe
from embedtune.train.run import TrainedRun, train
from embedtune.types import Item

TEXTS = [
    "a red circle on the left",
    "the blue bar",
    "ring",
    "find a green square on the top of the black triangle " * 3,
]
ITEMS = [Item(id=str(n), text=text) for n, text in enumerate(TEXTS)]
BARE = {"llama"}
WITHOUT_LAYERS = {"static", "model2vec"}
CUT = {"bert": 20}  # truncate_dim
READ_PICTURES = ["clip", "siglip", "qwen2_vl", "qwen3_vl"]
COLOURS, SHAPES = ["red", "green", "blue", "yellow"], ["circle", "square", "triangle", "bar"]


def block(folder: Path, family: str, **keys: Any) -> dict[str, Any]:
    return {"name": str(folder), **({"pooling": "lasttoken"} if family in {*BARE, *QWEN} else {}), **keys}


def peer_of(folder: Path, family: str) -> SentenceTransformer:
    peer = SentenceTransformer(str(folder), device="cpu")
    if family == "siglip":  # as the model was trained; sentence-transformers pads to the longest text of a batch
        peer[0].processing_kwargs = {"text": {"padding": "max_length"}}
    if family in BARE:
        peer.tokenizer.pad_token = "<e>"
    if family in {*BARE, *QWEN}:  # a bare checkpoint, which sentence-transformers pools by the mean
        peer[1] = Pooling(peer[0].get_embedding_dimension(), "lasttoken")
    return peer


@pytest.mark.parametrize("family", tiny_families.WRITERS)
def test_a_familys_embeddings_are_sentence_transformers_own(family: str, tmp_path: Path) -> None:
    folder = tiny_families.write_family(tmp_path / family, family)
    encoder, peer = load_encoder(Model(**block(folder, family))), peer_of(folder, family)
    queries, documents = encoder.encode(ITEMS, "query"), encoder.encode(ITEMS, "document")
    np.testing.assert_allclose(queries, peer.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(documents, peer.encode_document(TEXTS), atol=1e-6)
    prompted = peer.prompts.get("query") != peer.prompts.get("document")
    assert (np.abs(queries - documents).max() > 1e-3) == prompted
    assert len({tuple(row) for row in queries.round(3).tolist()}) == len(TEXTS)  # something to compare


def write_pairs(folder: Path) -> Path:
    """Eight queries and their documents, which share words with no other."""
    rows = [
        (f"{c} {s}", f"the {s} of {c} on the left") for c, s in zip(COLOURS * 2, SHAPES + SHAPES[::-1], strict=True)
    ]
    (folder / "qrels").mkdir(parents=True)
    for name, column in (("queries", 0), ("corpus", 1)):
        lines = [json.dumps({"_id": f"{name[0]}{n}", "text": row[column]}) for n, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    judged = [f"q{n}\tc{n}\t1" for n in range(len(rows))]
    (folder / "qrels" / "train.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n")
    return folder


def trained(model: dict[str, Any], data: Path, output: Path, **options: Any) -> TrainedRun:
    recipe = {
        "version": 1,
        "model": model,
        "data": {"train": str(data)},
        "train": {"epochs": 8, "batch_size": 8, "learning_rate": 5e-3, "precision": "fp32", **options},
        "evaluate": {"bm25": False},
    }
    return train(check_recipe(recipe), output)


def losses_of(run: TrainedRun) -> list[float]:
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("family", tiny_families.WRITERS)
def test_a_family_learns_and_is_saved_whole(family: str, how: str, tmp_path: Path) -> None:
    folder, data = tiny_families.write_family(tmp_path / family, family), write_pairs(tmp_path / "data")
    model = block(folder, family, **({"lora": {"rank": 4}} if how == "lora" else {}))
    if how == "lora" and family in WITHOUT_LAYERS:
        with pytest.raises(
            InputError, match=r"model\.lora: this model has no layers that LoRA could adapt; remove the key"
        ):
            trained(model, data, tmp_path / "run")
        return
    rate = {"learning_rate": 0.1} if family in WITHOUT_LAYERS else {}
    run = trained(model, data, tmp_path / "run", **rate)
    losses = losses_of(run)
    assert losses[-1] < 0.8 * losses[0]
    peer, saved, base = (
        SentenceTransformer(str(run.model), device="cpu"),
        load_encoder(str(run.model)),
        peer_of(folder, family),
    )
    for role, encode in (("query", peer.encode_query), ("document", peer.encode_document)):
        np.testing.assert_allclose(encode(TEXTS), saved.encode(ITEMS, role), atol=1e-6)  # type: ignore[arg-type]
    assert np.abs(peer.encode_query(TEXTS) - base.encode_query(TEXTS)).max() > 1e-3
    kinds = [type(module).__name__ for module in peer]
    assert kinds == [type(module).__name__ for module in base]
    assert {key: text for key, text in peer.prompts.items() if text} == {k: t for k, t in base.prompts.items() if t}
    assert (peer.truncate_dim, saved.dimension) == (base.truncate_dim, CUT.get(family, base.get_embedding_dimension()))
    if family not in WITHOUT_LAYERS:
        assert peer[1].get_config_dict() == base[1].get_config_dict()
        assert peer.max_seq_length == load_encoder(Model(**model)).max_length
        assert peer.dtype == base.dtype


@pytest.fixture
def picture_model(request: pytest.FixtureRequest) -> Any:
    """The folder of a tiny model that reads pictures, by family. Without torchvision Qwen-VL's have no videos."""

    def folder(family: str) -> Path:
        models: dict[str, Path] = request.getfixturevalue("vlm_models" if family in QWEN else "image_models")
        return models[family]

    return folder


@pytest.mark.parametrize("family", READ_PICTURES)
def test_a_familys_embeddings_of_pictures_are_sentence_transformers_own(
    family: str, picture_model: Any, tmp_path: Path
) -> None:
    folder = picture_model(family)
    encoder, peer = load_encoder(Model(**block(folder, family))), peer_of(folder, family)
    sizes = [(32, 32), (60, 30), (30, 80)]
    for n, size in enumerate(sizes):
        draw(COLOURS[n], SHAPES[n], "left").resize(size).save(tmp_path / f"{n}.png")
    pictures = [Item(id=str(n), image=tmp_path / f"{n}.png") for n in range(len(sizes))]
    opened = [open_image(tmp_path / f"{n}.png") for n in range(len(sizes))]
    tolerance = {"rtol": 1e-5, "atol": 1e-6 * np.abs(encoder.encode(pictures, "document")).max()}
    np.testing.assert_allclose(encoder.encode(pictures, "document"), peer.encode_document(opened), **tolerance)
    np.testing.assert_allclose(encoder.encode(ITEMS[:3], "query"), peer.encode_query(TEXTS[:3]), **tolerance)


@pytest.mark.parametrize("how", ["full", "lora"])
@pytest.mark.parametrize("family", READ_PICTURES)
def test_a_family_of_pictures_learns_and_is_saved_whole(
    family: str, how: str, picture_model: Any, pictures: Path, tmp_path: Path
) -> None:
    model = block(picture_model(family), family, **({"lora": {"rank": 4}} if how == "lora" else {}))
    run = trained(model, pictures, tmp_path / "run", epochs=4, learning_rate=5e-3)
    losses = losses_of(run)
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])
    peer, saved = SentenceTransformer(str(run.model), device="cpu"), load_encoder(str(run.model))
    np.testing.assert_allclose(peer.encode_query(TEXTS[:3]), saved.encode(ITEMS[:3], "query"), atol=1e-5)
    assert [type(module).__name__ for module in peer] == [type(m).__name__ for m in load_encoder(Model(**model)).model]
