"""Training mines by the same stage, keeps the files, reads them back on resume, and gives batches their teacher."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from tiny_models import write_cross_encoder

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.methods import bind
from embedtune.methods.batching import BatchContext
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.scorers import EncoderScores
from embedtune.models.similarity import as_scored
from embedtune.negatives.candidates import MiningJob
from embedtune.negatives.evidence import MiningFiles, read_evidence
from embedtune.recipe import Chosen, Recipe, check_recipe
from embedtune.train import negatives as training_negatives
from embedtune.train.negatives import mined_once, read_negatives, teacher_of
from embedtune.train.plan import Plan, facts_for
from embedtune.train.run import train
from embedtune.types import Dataset, Scores


def recipe_of(model: Path, data: Path, **negatives: Any) -> Recipe:
    block = {"mining": [{"name": "dense", "depth": 8}], "sampling": {"name": "simans", "count": 2}} | negatives
    return check_recipe(
        {
            "version": 1,
            "model": {"name": str(model)},
            "data": {"train": str(data)},
            "negatives": block,
            "train": {"batch_size": 6, "max_steps": 2},
        }
    )


def job_of(recipe: Recipe, data: Dataset, encoder: Encoder, query_ids: list[str] | None = None) -> MiningJob:
    return MiningJob(dataset=data, encoder=encoder, negatives=recipe.negatives, query_ids=query_ids)


def test_a_run_keeps_its_negatives_and_resumes_with_them(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, filtering=[{"name": "guide", "margin": 0.01}], teacher=str(tiny_model))
    run = train(recipe, tmp_path / "run")
    files = MiningFiles(run.folder / "negatives" / "mined.run")
    assert sorted(path.name for path in files.run.parent.iterdir()) == ["mined.json", "mined.jsonl", "mined.run"]
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert any(event.get("dropped", 0) > 0 for event in events)  # the guide decided in the batch, too
    before = files.evidence.read_text()
    (run.folder / "summary.json").unlink()
    monkeypatch.setattr(training_negatives, "mine", lambda *a, **k: pytest.fail("mined again"))
    train(recipe, tmp_path / "run", resume=True)
    assert files.evidence.read_text() == before


def test_samplers_get_scores_and_the_positives_in_one_scale(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset)
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    files = MiningFiles(tmp_path / "mined.run")
    report = mined_once(job_of(recipe, data, encoder), files, Accelerator(cpu=True))
    assert report is not None
    found = read_negatives(recipe, files)
    scorer = EncoderScores(encoder, data)
    for query_id, ranked in found.candidates.items():
        assert ranked.scores.tolist() == pytest.approx(scorer(query_id, ranked.doc_ids).tolist(), abs=1e-6)
        assert ranked.positive_score == pytest.approx(
            float(scorer(query_id, list(data.qrels[query_id])).min()), abs=1e-6
        )
    assert all(len(drawn) == 2 for drawn in found.draw(list(found.candidates), 0).values())
    assert mined_once(job_of(recipe, data, encoder, []), files, Accelerator(cpu=True)) is None


def test_a_teacher_scores_every_pair_of_a_batch(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    files = MiningFiles(tmp_path / "mined.run")
    assert teacher_of(recipe_of(tiny_model, tiny_dataset), data, encoder, files) is None
    teach = teacher_of(recipe_of(tiny_model, tiny_dataset, teacher=str(tiny_model)), data, encoder, files)
    assert teach is not None
    scores = teach.matrix(["q1", "q2"], ["d1", "d2", "d50"])
    assert scores.shape == (2, 3)
    assert scores[1].tolist() == pytest.approx(EncoderScores(encoder, data)("q2", ["d1", "d2", "d50"]).tolist())


def test_a_cross_encoder_scores_mined_pairs_only(
    tiny_model: Path, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    write_cross_encoder(tmp_path / "cross", bare_checkpoint)
    recipe = recipe_of(tiny_model, tiny_dataset, teacher=f"cross-encoder:{tmp_path}/cross")
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    files = MiningFiles(tmp_path / "mined.run")
    with pytest.raises(InputError, match=r"scores mined candidates only; give negatives\.mining, or an encoder$"):
        teacher_of(recipe, data, encoder, files)
    mined_once(job_of(recipe, data, encoder, ["q1"]), files, Accelerator(cpu=True))
    first = next(read_evidence(files.evidence))
    teach = teacher_of(recipe, data, encoder, files)
    assert teach is not None
    scores = teach.matrix(["q1", "q2"], [first.positive_id, first.doc_id, "d1" if first.positive_id != "d1" else "d3"])
    assert scores[0, :2].tolist() == pytest.approx([first.positive_teacher, first.teacher])
    assert all(math.isnan(score) for score in scores[1].tolist())


def test_a_cross_encoder_knows_every_positive(
    tiny_model: Path, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    write_cross_encoder(tmp_path / "cross", bare_checkpoint)
    recipe = recipe_of(tiny_model, tiny_dataset, teacher=f"cross-encoder:{tmp_path}/cross")
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    files = MiningFiles(tmp_path / "mined.run")
    mined_once(job_of(recipe, data, encoder, ["q5", "q1"]), files, Accelerator(cpu=True))
    first = next(read_evidence(files.evidence))
    pairs = [(data.queries["q5"].content, data.corpus[d].content) for d in ("d5", "d35", first.doc_id)]
    expected = CrossEncoder(str(tmp_path / "cross"), device="cpu").predict(pairs)

    teach = teacher_of(recipe, data, encoder, files)
    assert teach is not None
    scores = teach.matrix(["q5"], ["d5", "d35", first.doc_id])
    assert scores[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    keep = torch.tensor([[False, False, True]])
    batch = Scores(student=torch.zeros(1, 3), positive=torch.tensor([[True, True, False]]), candidate=keep)
    batch = dataclasses.replace(batch, teacher=scores)
    loss, _ = bind("loss", "margin_mse", {})(batch, keep, torch.zeros(1, 3))  # both positives' margins
    margins = scores[0, :2] - scores[0, 2]
    assert loss.item() == pytest.approx(margins.square().mean().item(), rel=1e-5)

    lines = [json.loads(line) for line in files.evidence.read_text().splitlines()]
    older = [json.dumps({key: value for key, value in line.items() if key != "positives_teacher"}) for line in lines]
    files.evidence.write_text("\n".join(older) + "\n")
    teach = teacher_of(recipe, data, encoder, files)
    assert teach is not None
    unknown = teach.matrix(["q5"], ["d5", "d35"])[0].isnan().tolist()
    assert unknown == [doc_id != first.positive_id for doc_id in ("d5", "d35")]


def test_a_teacher_leaves_made_texts_unscored(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    losses = [Chosen(name="infonce"), Chosen(name="listwise_kl", weight=0.5)]
    recipe = recipe_of(tiny_model, tiny_dataset, filtering=[{"name": "guide", "margin": 0.01}], teacher=str(tiny_model))
    recipe = dataclasses.replace(recipe, synthesis=[Chosen(name="number")], loss=losses)
    run = train(recipe, tmp_path / "run")
    steps = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert all(step["made"] > 0 and math.isfinite(step["loss"]) for step in steps if step["event"] == "step")


@pytest.mark.parametrize(("epochs", "expected"), [(1.0, [1.0]), (2.0, [0.0, 1.0]), (2.5, [0.0, 0.5, 1.0])])
def test_batching_knows_how_far_training_is(
    tiny_model: Path, tiny_dataset: Path, epochs: float, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NGAME's clusters would never grow in a single epoch that began at 0."""
    seen: list[float] = []
    recipe, data = recipe_of(tiny_model, tiny_dataset), load_dataset(tiny_dataset, "train")
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=epochs))
    plan = Plan(recipe, data, list(data.qrels))

    def batching(pairs: Any, size: int, context: BatchContext, *, generator: torch.Generator) -> list[Any]:
        seen.append(context.progress)
        return [list(pairs)]

    monkeypatch.setattr(plan, "_batching", batching)
    for epoch in range(len(expected)):
        plan._epoch(epoch)
    assert seen == expected


@pytest.mark.parametrize("name", ["length", "clustered", "neighbours"])
def test_batching_gets_what_it_needs(tiny_model: Path, tiny_dataset: Path, name: str) -> None:
    recipe = dataclasses.replace(recipe_of(tiny_model, tiny_dataset), batching=Chosen(name=name))
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    facts = facts_for(recipe, encoder, data, list(data.qrels))
    assert facts is not None
    plan = Plan(recipe, data, list(data.qrels), facts)
    assert sum(len(batch) for batch in plan.epoch(0)) == plan.pairs
    pair = plan.epoch(0)[0][0]
    known = facts([pair])
    items = [data.queries[pair.query_id]], [data.corpus[pair.positives[0]]]
    if name == "length":
        tokens = [len(encoder.model.tokenizer(item.content)["input_ids"]) for (item,) in items]
        assert known == {"lengths": [sum(tokens)]}
    else:
        expected = as_scored(encoder.encode(items[0], "query"), "cosine")
        assert known["query_embeddings"].numpy() == pytest.approx(expected, abs=1e-5)
    if name == "neighbours":
        expected = as_scored(encoder.encode(items[1], "document"), "cosine")
        assert known["document_embeddings"].numpy() == pytest.approx(expected, abs=1e-5)
    assert facts_for(recipe_of(tiny_model, tiny_dataset), encoder, data, []) is None
