"""Who is a negative of whom: by id and by text, for every batch; plans, schedules and draws that depend on the seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune.data.dataset import load_dataset
from embedtune.data.relevance import Relevance
from embedtune.errors import InputError
from embedtune.recipe import Recipe, Validation, check_recipe
from embedtune.train.negatives import MinedNegatives, Ranked
from embedtune.train.plan import Plan, Position, learning_rate, pairs_of_epoch
from embedtune.train.step import lay_out
from embedtune.train.validation import held_out
from embedtune.types import Dataset, Pair


def dataset_of(
    folder: Path, corpus: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]
) -> Dataset:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        lines = [json.dumps({"_id": item_id, "text": text}) for item_id, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    rows = [f"{q}\t{d}\t{grade}" for q, judged in qrels.items() for d, grade in judged.items()]
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n")
    return load_dataset(folder, "train")


def test_a_judged_positive_and_its_copies_are_never_negatives(tmp_path: Path) -> None:
    data = dataset_of(
        tmp_path,
        {"a": "Alpha", "a2": "alpha ", "b": "beta", "c": "gamma", "q": "which one", "g": "delta"},
        {"1": "which one", "2": "Which  ONE", "3": "another"},
        {"1": {"a": 1, "g": 0}, "2": {"b": 2}, "3": {"c": 1, "b": 1}},
    )
    pairs = [
        Pair(query_id="1", positives=("a",)),
        Pair(query_id="2", positives=("b",)),
        Pair(query_id="3", positives=("c",)),
    ]
    batch = lay_out(pairs, {"1": ["q", "a2", "g"], "3": ["a"]}, Relevance(data))
    assert batch.doc_ids == ("a", "b", "c", "q", "a2", "g")  # each document once, however often it occurs
    assert batch.positive.tolist() == [
        [True, False, False, False, False, False],
        [False, True, False, False, False, False],
        [False, True, True, False, False, False],  # b is judged for query 3, though it came with query 2
    ]
    assert batch.candidate.tolist() == [
        # a: its positive; b: positive of the same text; q: the query's own text; a2: a's text; g is judged 0
        [False, False, True, False, False, True],
        [False, False, True, False, False, True],
        [True, False, False, True, True, True],
    ]
    assert batch.own_negatives.tolist() == [
        [False, False, False, False, False, True],
        [False] * 6,
        [True, False, False, False, False, False],
    ]


@settings(max_examples=30)
@given(st.data())
def test_no_batch_ever_holds_a_positive_as_a_candidate(tiny_dataset: Path, data: st.DataObject) -> None:
    dataset = load_dataset(tiny_dataset, "train")
    queries = data.draw(st.lists(st.sampled_from(sorted(dataset.qrels)), min_size=1, max_size=8))
    documents = st.lists(st.sampled_from(list(dataset.corpus.ids)), max_size=5)
    pairs = [Pair(query_id=q, positives=(next(iter(dataset.qrels[q])),)) for q in queries]
    batch = lay_out(pairs, {q: data.draw(documents) for q in queries}, Relevance(dataset))
    assert len(set(batch.doc_ids)) == len(batch.doc_ids)
    for row, query_id in enumerate(batch.query_ids):
        for column, doc_id in enumerate(batch.doc_ids):
            judged = dataset.qrels[query_id].get(doc_id, 0) > 0
            assert bool(batch.positive[row, column]) == judged
            assert not (judged and batch.candidate[row, column])
    assert not (batch.own_negatives & ~batch.candidate).any()


def recipe_of(folder: Path, **parts: dict[str, object]) -> Recipe:
    return check_recipe({"version": 1, "model": {"name": "x"}, "data": {"train": str(folder)}, **parts})


def test_pairs_of_an_epoch(tmp_path: Path) -> None:
    qrels = {"1": {"a": 1, "b": 1, "c": 0}, "2": {"c": 2}, "3": {"a": 0}}
    data = dataset_of(tmp_path, {"a": "x", "b": "y", "c": "z"}, {"1": "i", "2": "j", "3": "k"}, qrels)
    everything = ["1", "2", "3"]
    each = pairs_of_epoch(data, everything, "each", 0, 0)
    assert [(t.query_id, t.positives) for t in each] == [("1", ("a",)), ("1", ("b",)), ("2", ("c",))]
    together = pairs_of_epoch(data, everything, "all", 0, 0)
    assert [(t.query_id, t.positives) for t in together] == [("1", ("a", "b")), ("2", ("c",))]
    drawn = {pairs_of_epoch(data, everything, 1, 0, epoch)[0].positives for epoch in range(20)}
    assert drawn == {("a",), ("b",)}  # afresh every epoch
    assert pairs_of_epoch(data, everything, 1, 0, 5) == pairs_of_epoch(data, everything, 1, 0, 5)


def test_a_plan_walks_through_every_pair_of_every_epoch(tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "train")
    plan = Plan(recipe_of(tiny_dataset, train={"batch_size": 8, "epochs": 2}), dataset, list(dataset.qrels))
    place, seen = Position(0, 0), []
    while place.epoch < 2:
        seen += plan.batch(place)
        place = plan.after(place)
    once = pairs_of_epoch(dataset, list(dataset.qrels), "each", 0, 0)
    assert sorted((t.query_id, t.positives) for t in seen) == sorted(2 * [(t.query_id, t.positives) for t in once])
    assert plan.steps == 2 * plan.batches_per_epoch
    assert plan.epoch(0) != plan.epoch(1)  # shuffled anew


def test_a_batch_larger_than_the_data_is_refused(tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "train")
    with pytest.raises(
        InputError, match=r"train\.batch_size: 500 is more than the 24 pairs of an epoch; choose at most 24"
    ):
        Plan(recipe_of(tiny_dataset, train={"batch_size": 500}), dataset, list(dataset.qrels))


def test_negatives_are_drawn_by_the_recipes_sampler(tiny_dataset: Path) -> None:
    recipe = recipe_of(tiny_dataset, negatives={"mining": "dense", "sampling": {"name": "top", "count": 2}})
    negatives = MinedNegatives(recipe, {"1": Ranked(["a", "b", "c"], torch.tensor([3.0, 2.0, 1.0]))})
    assert negatives.draw(["1", "2"], 0) == {"1": ["a", "b"]}


def test_held_out_queries_share_no_positive_with_the_others(tiny_dataset: Path) -> None:
    dataset = load_dataset(tiny_dataset, "train")
    kept, validation = held_out(dataset, Validation(share=0.3, documents=20), 0)
    assert validation is not None
    assert len(validation.qrels) == 6
    assert not set(kept) & set(validation.qrels)
    assert len(validation.corpus) == 20
    assert all(doc_id in validation.corpus for judged in validation.qrels.values() for doc_id in judged)
    assert held_out(dataset, Validation(share=0.3, documents=20), 0)[0] == kept
    assert held_out(dataset, None, 0) == (list(dataset.qrels), None)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.0, 0.5] + [1.0] * 8),
        ("cosine", [0.0, 0.5, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]),
    ],
)
def test_learning_rate(schedule: str, expected: list[float]) -> None:
    for warmup in (2, 0.2):
        rates = [learning_rate(s, steps=10, peak=1.0, warmup=warmup, schedule=schedule) for s in range(10)]  # type: ignore[arg-type]
        assert rates == pytest.approx(expected, abs=1e-4)
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=10)
    for step in range(10):
        assert theirs.get_last_lr()[0] == pytest.approx(rates[step], abs=1e-9)
        optimizer.step()
        theirs.step()
