"""Made negatives and Matryoshka in training: columns that no corpus has, and losses on prefixes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import write_dataset
from PIL import Image
from safetensors.torch import load_file

from embedtune import methods
from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.errors import InputError
from embedtune.recipe import Recipe, check_recipe
from embedtune.train.objective import Objective, loss_of
from embedtune.train.preflight import refuse_without_texts
from embedtune.train.run import train
from embedtune.train.step import EncodedBatch, lay_out, made_documents
from embedtune.types import Item, Pair


def recipe_of(model: Path, data: Path, **parts: object) -> Recipe:
    settings = {"batch_size": 8, "epochs": 2, "learning_rate": 1e-3}
    return check_recipe(
        {"version": 1, "model": {"name": str(model)}, "data": {"train": str(data)}, "train": settings, **parts}
    )


def test_made_texts_are_negatives_of_all_but_those_they_read_like(tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "train")
    pairs = [Pair(query_id="q1", positives=("d1",)), Pair(query_id="q2", positives=("d2",))]
    fresh, copy = Item(id="made:a", text="something else"), Item(id="made:b", text=dataset.corpus["d2"].content)
    batch = lay_out(pairs, {}, Relevance(dataset), {"q1": [fresh, copy]})
    assert batch.doc_ids == ("d1", "d2", "made:a", "made:b")
    assert batch.made == (fresh, copy)
    assert batch.candidate.tolist() == [[False, True, True, True], [True, False, True, False]]
    assert batch.own_negatives.tolist() == [[False, False, True, True], [False] * 4]
    assert batch.positive_ids == (frozenset({"d1"}), frozenset({"d2"}))


def test_rules_change_the_first_positive(tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "train")

    def shout(text: str, *, generator: torch.Generator) -> str | None:
        return text.upper() + "!" if "1" in text else None

    pairs = [Pair(query_id="q1", positives=("d1",)), Pair(query_id="q2", positives=("d2",))]
    made = made_documents([("shout", shout)], pairs, dataset, torch.Generator())
    assert list(made) == ["q1"]
    assert made["q1"][0].text == dataset.corpus["d1"].content.upper() + "!"
    assert made["q1"][0].id.startswith("made:shout:d1:")


def test_training_with_rules_a_queue_and_mixtures_resumes_exactly(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    makers = [{"name": "negation"}, {"name": "memory_queue", "size": 16}, {"name": "mochi", "type1": 2, "type2": 2}]
    recipe = recipe_of(tiny_model, tiny_dataset, synthesis=makers)
    whole = train(recipe, tmp_path / "whole")
    events = [json.loads(line) for line in (whole.folder / "log.jsonl").read_text().splitlines()]
    first, second = [event for event in events if event["event"] == "step"][:2]
    assert first["documents"] == 16  # every positive and its negation
    assert first["made"] == 8 + 8 * 4  # negations and mixtures; the queue is still empty
    assert second["made"] == 8 + 8 + 8 * 4

    for path in sorted((whole.folder / "checkpoints").iterdir())[1:]:
        path.rename(tmp_path / path.name)  # as if it had been killed after its first checkpoint
    (whole.folder / "summary.json").unlink()
    expected = load_file(whole.model / "model.safetensors")
    resumed = load_file(train(recipe, whole.folder, resume=True).model / "model.safetensors")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_matryoshka_is_the_mean_over_prefixes(tiny_model: Path, tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "train")
    pairs = [Pair(query_id=q, positives=(d,)) for q, d in (("q1", "d1"), ("q2", "d2"), ("q4", "d4"))]
    batch = lay_out(pairs, {}, Relevance(dataset))
    queries, documents = torch.randn(3, 32), torch.randn(3, 32)

    def loss(dimensions: list[int], width: int = 32) -> float:
        objective = Objective.of(recipe_of(tiny_model, tiny_dataset, matryoshka=dimensions))
        encoded = EncodedBatch(batch, queries[:, :width], documents[:, :width], "cosine", 0.0)
        value, _ = loss_of(objective, encoded, torch.Generator())
        return float(value)

    assert loss([32]) == pytest.approx(loss([]), abs=1e-6)  # the full dimension alone is the base loss
    assert loss([16, 8]) == pytest.approx((loss([]) + loss([], 16) + loss([], 8)) / 3, abs=1e-6)
    with pytest.raises(InputError, match="64 dimensions are more than the model's 32"):
        loss([64])


def test_matryoshka_with_a_state_of_one_dimension_is_refused(tiny_model: Path, tiny_dataset: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, matryoshka=[16], synthesis={"name": "memory_queue"})
    by_loss = recipe_of(tiny_model, tiny_dataset, matryoshka=[16], loss={"name": "ahnpl"}, synthesis="number")
    for refused in (recipe, by_loss):
        with pytest.raises(InputError, match="matryoshka: not with a method that keeps state between steps"):
            Objective.of(refused)


def test_a_made_text_keeps_the_documents_image(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines()
    lines[1] = json.dumps({"_id": "d1", "title": "one", "text": "a hot day", "image": "d1.png"})
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    dataset = load_dataset(tmp_path, "train")
    opposite = methods.bind("synthesis", "opposite", {})
    pairs = [Pair(query_id="q1", positives=("d1",))]
    (item,) = made_documents([("opposite", opposite)], pairs, dataset, torch.Generator())["q1"]
    assert item.content in ("one a cold day", "one a hot night")
    assert item.image == tmp_path / "d1.png"
    assert item.made


def test_rules_for_texts_need_documents_with_texts(tiny_model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "d.png")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "image": "d.png"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "a red dog and a blue cat"}\n')
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    recipe = recipe_of(tiny_model, tmp_path, synthesis=[{"name": "word_swap"}])
    message = rf"synthesis.word_swap: makes negatives from .* data.train: reversed:{tmp_path}$"
    with pytest.raises(InputError, match=message):
        train(recipe, tmp_path / "run")
    refuse_without_texts(recipe, load_dataset(f"reversed:{tmp_path}", "train"))


def test_scores_know_who_made_a_column_and_which_query_is_made(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data")
    lines = (data / "queries.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"made": True})
    (data / "queries.jsonl").write_text("\n".join(lines) + "\n")
    dataset = load_dataset(data, "train")
    pairs = [Pair(query_id=q, positives=(d,)) for q, d in (("q1", "d1"), ("q2", "d2"))]
    made = {"q2": [Item(id="made:negation:d2:ab:c", text="no such thing")]}
    batch = lay_out(pairs, {}, Relevance(dataset), made)
    scores = EncodedBatch(batch, torch.randn(2, 32), torch.randn(3, 32), "cosine", 0.0).scores()
    assert scores.made_by == ("", "", "negation")
    assert scores.made is not None
    assert scores.made.tolist() == [False, False, True]
    assert scores.made_queries is not None
    assert scores.made_queries.tolist() == [True, False]


def test_losses_on_own_negatives_train_and_resume_exactly(tiny_model: Path, tmp_path: Path) -> None:
    """AHNPL's thresholds, NCU's matrix and TripletCLIP's turn are in the checkpoint."""
    data = write_dataset(tmp_path / "data")
    losses = [
        {"name": "tripletclip", "temperature": 0.1, "mode": "alternate"},
        {"name": "ahnpl", "weight": 0.2, "temperature": 0.1},
        {"name": "fsc_clip", "weight": 0.5, "temperature": 0.1},
        {"name": "ncu", "weight": 0.1, "temperature": 0.1},
    ]
    made = [{"name": "negation"}, {"name": "number"}]
    recipe = recipe_of(tiny_model, data, synthesis=made, loss=losses)
    whole = train(recipe, tmp_path / "whole")
    steps = [json.loads(line) for line in (whole.folder / "log.jsonl").read_text().splitlines()]
    steps = [event for event in steps if event["event"] == "step"]
    assert steps[-1]["ahnpl"] > 0
    assert steps[-1]["fsc_clip"] > 0
    checkpoints = sorted((whole.folder / "checkpoints").iterdir())
    state = load_file(checkpoints[0] / "objective.safetensors")
    assert {"loss-1.threshold_negation", "loss-1.threshold_number", "loss-3.opposite"} <= set(state)
    for path in checkpoints[1:]:
        path.rename(tmp_path / path.name)  # as if it had been killed after its first checkpoint
    (whole.folder / "summary.json").unlink()
    expected = load_file(whole.model / "model.safetensors")
    resumed = load_file(train(recipe, whole.folder, resume=True).model / "model.safetensors")
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_generated_queries_with_their_hard_documents(tiny_model: Path, tmp_path: Path) -> None:
    """TripletCLIP's data: each query and each generated one has its document, and the other's as its hard negative."""
    words = ["river", "engine", "music", "garden"]
    queries = [{"_id": f"q{n}", "text": f"old {word}"} for n, word in enumerate(words)]
    queries += [{"_id": f"g{n}", "text": f"new {word}", "made": True} for n, word in enumerate(words)]
    corpus = [{"_id": f"{kind}{n}", "text": f"the {age} {word} is {n}"}
              for n, word in enumerate(words) for kind, age in (("t", "old"), ("h", "new"))]  # fmt: skip
    (tmp_path / "qrels").mkdir()
    for name, lines in (("queries", queries), ("corpus", corpus)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = "".join(f"q{n}\tt{n}\t1\ng{n}\th{n}\t1\n" for n in range(4))
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    run = tmp_path / "given.run"
    run.write_text("".join(f"q{n} Q0 h{n} 1 1 given\ng{n} Q0 t{n} 1 1 given\n" for n in range(4)))
    recipe = recipe_of(
        tiny_model,
        tmp_path,
        negatives={"mining": {"name": "run", "path": str(run)}, "sampling": {"name": "top", "count": 1}},
        loss={"name": "tripletclip", "temperature": 0.1},
    )
    log = train(recipe, tmp_path / "run").folder / "log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["documents"] for event in events if event["event"] == "step"] == [8, 8]
    mined = tmp_path / "run" / "negatives" / "mined.jsonl"
    evidence = [json.loads(line) for line in mined.read_text().splitlines()]
    assert {(e["query_id"], e["doc_id"]) for e in evidence} == {(f"{q}{n}", f"{d}{n}") for n in range(4)
                                                                for q, d in (("q", "h"), ("g", "t"))}  # fmt: skip
