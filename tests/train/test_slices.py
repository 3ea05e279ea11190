"""No matrix of scores exceeds a bound: larger batches are taken some queries at a time, with the same result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from embedtune import methods
from embedtune.errors import InputError
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import sizes
from embedtune.train.objective import Objective, loss_in_slices, loss_of, observed, slices_of
from embedtune.train.preflight import preflight
from embedtune.train.run import train
from embedtune.train.step import Batch, EncodedBatch
from embedtune.types import Scores

QUERIES, DOCUMENTS, WIDTH = 40, 90, 8
ALONE = [(f, n) for f in ("filtering", "weighting", "loss") for n in methods.names(f) if methods.by_query(f, n, {})]


def batch_of(queries: int = QUERIES, documents: int = DOCUMENTS) -> Batch:
    """Every query has a positive of its own, every fourth a second one; the last columns are their mined negatives."""
    positive = torch.eye(queries, documents, dtype=torch.bool)
    positive[::4, -1] = True
    own = torch.zeros_like(positive)
    own[torch.arange(queries), documents - 1 - torch.arange(queries)] = True
    return Batch(
        query_ids=tuple(f"q{row}" for row in range(queries)),
        doc_ids=tuple(f"d{column}" for column in range(documents)),
        positive=positive,
        candidate=~positive,
        own_negatives=own & ~positive,
        positive_ids=tuple(frozenset[str]() for _ in range(queries)),
        made=(),
        made_queries=torch.zeros(queries, dtype=torch.bool),
    )


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, list | tuple) else (made,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes():
                self.elements = max(self.elements, tensor.numel())
        return made


def test_slices_are_of_whole_queries_within_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(6, 9)  # positive pairs: 2 of queries 0 and 4, 1 of the others
    for largest, expected in (
        (80, [range(6)]),  # 8 pairs x 10 columns
        (79, [range(5), range(5, 6)]),
        (30, [range(2), range(2, 4), range(4, 6)]),
        (20, [range(1), range(1, 3), range(3, 4), range(4, 5), range(5, 6)]),
        (1, [range(row, row + 1) for row in range(6)]),  # a query is the least
    ):
        monkeypatch.setattr(sizes, "LARGEST_MATRIX", largest)
        assert slices_of(batch.positive) == expected


class Random:
    """A teacher with a score for every pair."""

    scores = 0.5 * torch.rand(QUERIES, DOCUMENTS, generator=torch.Generator().manual_seed(2))

    def matrix(self, query_ids: tuple[str, ...], doc_ids: tuple[str, ...]) -> torch.Tensor:
        return torch.stack([self.scores[int(query_id[1:])] for query_id in query_ids])


@pytest.mark.parametrize(("family", "name"), ALONE)
def test_the_largest_matrix_is_bounded(family: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "judged.run").write_text("q0 d1 0.5\n")
    needed = {"judge": {"path": str(tmp_path / "judged.run")}}
    method = methods.bind(family, name, needed.get(name, {}))
    infonce = methods.bind("loss", "infonce", {"temperature": 0.1})
    filters, weightings = [[method] * (family == kind) for kind in ("filtering", "weighting")]
    losses = [("infonce", 1.0, infonce)] + [(name, 0.5, method)] * (family == "loss")
    objective = Objective(filters, [], [], weightings, losses, teacher=Random(), dimensions=[4])
    batch, generator = batch_of(), torch.Generator().manual_seed(0)
    embeddings = [torch.randn(rows, WIDTH, generator=generator) for rows in (QUERIES, DOCUMENTS)]
    monkeypatch.setattr(sizes, "LARGEST_MATRIX", 1000)  # more than the embeddings' 720 elements
    slices, found = slices_of(batch.positive), []
    assert len(slices) == 5
    for sliced in (False, True):
        leaves = [rows.clone().requires_grad_() for rows in embeddings]
        given = objective, EncodedBatch(batch, *leaves, "cosine", 0.0), torch.Generator()
        with Largest() as largest:
            if sliced:
                loss_in_slices(*given, slices, lambda part: part.backward())
            else:
                loss_of(*given)[0].backward()
        found.append((largest.elements, [leaf.grad for leaf in leaves]))
    (whole, gradients), (bounded, same) = found
    assert bounded <= 1000 < QUERIES * DOCUMENTS <= whole
    torch.testing.assert_close(same, gradients, atol=2e-6, rtol=1e-5)


def test_slices_without_any_negative_are_refused_as_the_whole_is() -> None:
    batch = batch_of(4, 6)
    nothing = Batch(**{**batch.__dict__, "candidate": torch.zeros_like(batch.candidate)})
    objective = Objective([], [], [], [], [("infonce", 1.0, methods.bind("loss", "infonce", {}))])
    encoded = EncodedBatch(nothing, torch.randn(4, WIDTH), torch.randn(6, WIDTH), "cosine", 0.0)
    with pytest.raises(InputError, match="no query of this batch of 4 has a negative left"):
        loss_in_slices(objective, encoded, torch.Generator(), [range(2), range(2, 4)], lambda part: None)


def test_an_observer_sees_each_query_once() -> None:
    batch = batch_of(5, 6)
    batch = Batch(**{**batch.__dict__, "query_ids": ("a", "b", "a", "c", "b")})
    seen: list[tuple[str, ...]] = []

    def observe(scores: Scores) -> dict[str, float]:
        assert scores.student.shape == (len(scores.query_ids), 6)
        seen.append(scores.query_ids)
        return {"seen": float(len(scores.query_ids))}

    slices = [range(2), range(2, 4), range(4, 5)]
    encoded = EncodedBatch(batch, torch.randn(5, WIDTH), torch.randn(6, WIDTH), "cosine", 0.0)
    said = observed(observe, encoded, slices)
    assert (said, seen) == ({"seen": 3.0}, [("a", "b"), ("c",), ()])


def recipe_of(model: Path | str, data: Path | str, **changes: Any) -> Recipe:
    settings = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "chunk_size": 4}
    values = {
        "version": 1,
        "model": {"name": str(model)},
        "data": {"train": str(data)},
        "negatives": {
            "mining": {"name": "dense", "depth": 20},
            "filtering": {"name": "positive_ratio", "at_most": 0.99},
            "sampling": {"name": "top", "count": 2},
            "replace": {"every": 1, "fallen": 1.0, "start": 2},
        },
        "synthesis": ["negation"],
        "weighting": [{"name": "hcl"}],
        "loss": [{"name": "infonce", "learn_temperature": True}, {"name": "variance", "weight": 3}],
        "matryoshka": [16],
        "train": settings,
    }
    return check_recipe(values | changes)


def steps_of(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "step"]


def test_a_bounded_run_is_the_unbounded_one(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset)
    whole = train(recipe, tmp_path / "whole")
    calls = []
    monkeypatch.setattr(sizes, "LARGEST_MATRIX", 100)
    monkeypatch.setattr("embedtune.train.step.loss_in_slices", lambda *args: calls.append(1) or loss_in_slices(*args))
    sliced = train(recipe, tmp_path / "sliced")
    assert len(calls) == whole.steps
    unlike = {"event", "seconds", "pairs_per_second"}
    for one, other in zip(steps_of(whole.folder), steps_of(sliced.folder), strict=True):
        assert {"made", "dropped", "replaced", "variance", "temperature"} <= one.keys() == other.keys()
        for name in one.keys() - unlike:
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    expected, found = (load_file(run.model / "model.safetensors") for run in (whole, sliced))
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=2e-5, rtol=0)


def test_what_compares_queries_is_not_sliced(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"name": "infonce", "directions": ["query_document", "document_query"]}
    recipe = recipe_of(tiny_model, tiny_dataset, loss=both, weighting=[])
    whole = train(recipe, tmp_path / "whole")
    monkeypatch.setattr(sizes, "LARGEST_MATRIX", 100)
    bounded = train(recipe, tmp_path / "bounded")
    expected, found = (load_file(run.model / "model.safetensors") for run in (whole, bounded))
    assert all(torch.equal(found[name], values) for name, values in expected.items())


def test_what_compares_queries_is_known_by_its_options() -> None:
    def asked(**changes: Any) -> list[str]:
        return sizes.comparing(recipe_of("m", "d", **changes))

    assert asked() == []
    both = {"name": "infonce", "directions": ["query_document", "document_query"]}
    assert asked(loss=both) == ["loss.infonce (which with directions: ['query_document'] does not)"]
    views = [{"name": "debiased", "two_views": True}, "orthogonal"]
    expected = ["loss.debiased (which with two_views: False does not)", "loss.orthogonal"]
    assert asked(loss=views, matryoshka=[]) == expected
    filters = [{"name": "whisker", "over": "batch"}, {"name": "whisker"}, {"name": "cluster"}]
    assert asked(negatives={"filtering": filters}, matryoshka=[]) == [
        "filtering.whisker (which with over: row does not)",
        "filtering.cluster",
    ]
    queue = ["number", "memory_queue"]
    assert asked(synthesis=queue, weighting=["rrra_weight"], matryoshka=[]) == [
        "synthesis.memory_queue",
        "weighting.rrra_weight",
    ]


def test_the_preflight_says_how_scores_are_taken(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset)  # 8 queries with a positive, 2 mined and a made document each
    assert "scores" not in preflight(recipe, tmp_path)
    monkeypatch.setattr(sizes, "LARGEST_MATRIX", 100)
    lines = preflight(recipe, tmp_path)
    assert lines["scores"] == "of about 3 queries at a time, so that no matrix of them exceeds 0 MiB"
    recipe = recipe_of(tiny_model, tiny_dataset, loss={"name": "orthogonal"})
    assert preflight(recipe, tmp_path)["scores"] == (
        "one matrix of about 8 x 32 (0 MiB, and the objective holds several), not bounded: "
        "loss.orthogonal compares queries with each other"
    )
