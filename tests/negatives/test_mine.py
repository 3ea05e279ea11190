"""The stage: mine, score, filter, keep evidence; what it writes, counts and refuses (methods.md B1, B17)."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mining_jobs import mine
from tiny_models import write_cross_encoder

from embedtune.data.dataset import load_dataset
from embedtune.data.trec import read_run
from embedtune.errors import InputError
from embedtune.models.encoder import Encoder, load_encoder
from embedtune.models.scorers import EncoderScores, teacher_scores
from embedtune.negatives import candidates
from embedtune.negatives import mine as mining
from embedtune.negatives.candidates import Candidate, CandidatePool, merge
from embedtune.negatives.counts import MiningReport
from embedtune.negatives.evidence import Evidence, MiningFiles, as_line, files_of, read_evidence
from embedtune.negatives.filters import applied
from embedtune.negatives.mine import decide
from embedtune.recipe import Chosen, Negatives
from embedtune.types import Dataset


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return load_encoder(str(tiny_model))


@pytest.fixture(scope="module")
def data(tiny_dataset: Path) -> Dataset:
    return load_dataset(tiny_dataset, "train")


def block(*mining: dict[str, Any], filtering: Sequence[dict[str, Any]] = (), **rest: Any) -> Negatives:
    def chosen(values: dict[str, Any]) -> Chosen:
        return Chosen(name=values["name"], options={k: v for k, v in values.items() if k != "name"})

    if isinstance(rest.get("sampling"), dict):
        rest["sampling"] = chosen(rest["sampling"])
    return Negatives(mining=[chosen(m) for m in mining], filtering=[chosen(f) for f in filtering], **rest)


DENSE = {"name": "dense", "depth": 12}


class Given:
    """A scorer whose scores stand in a table."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def __call__(self, query_id: str, doc_ids: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.array([self.scores[doc_id] for doc_id in doc_ids], dtype=np.float32)

    def queries(self, query_ids: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.ones((len(query_ids), 2), dtype=np.float32)

    documents = queries


def decided(scores: dict[str, float], *filters: Chosen, positives: Sequence[str] = ("p",)) -> list[Evidence]:
    pool = [Candidate(d, "dense", rank, s, {}) for rank, (d, s) in enumerate(scores.items(), 1) if d not in positives]
    scorer: Any = Given(scores)
    return decide(CandidatePool("q", pool, list(positives), 0), scorer, None, applied(filters), 0.0)


def kept(evidence: list[Evidence]) -> list[str]:
    return [candidate.doc_id for candidate in evidence if candidate.keep]


SCORES = {"p": 0.8, "a": 0.79, "b": 0.77, "c": 0.755, "d": 0.6}


def test_nv_retrievers_rules_by_hand() -> None:
    assert kept(decided(SCORES, Chosen(name="positive_ratio", options={"at_most": 0.95}))) == ["c", "d"]
    assert kept(decided(SCORES, Chosen(name="positive_margin", options={"margin": 0.05}))) == ["d"]
    assert kept(decided(SCORES, Chosen(name="absolute"))) == ["d"]


def test_unime_v2s_rule_by_hand(tmp_path: Path) -> None:
    (tmp_path / "judged.run").write_text("q p 0.9\nq a 0.895\nq b 0.88\n")
    scores = {"p": 0.5, "a": 0.4, "b": 0.6}
    assert kept(decided(scores, Chosen(name="judge", options={"path": str(tmp_path / "judged.run")}))) == ["b"]


def test_the_lowest_positive_decides_and_every_number_is_kept() -> None:
    found = decided(SCORES | {"r": 0.7}, Chosen(name="positive_ratio"), Chosen(name="absolute"), positives=("p", "r"))
    assert kept(found) == ["d"]
    first = found[0]
    assert (first.positive_id, first.positive_score) == ("r", pytest.approx(0.7))
    assert first.gap == pytest.approx(-0.09)
    ratio, cap = first.filters
    assert (ratio.name, ratio.keep, ratio.value, ratio.limit) == (
        "positive_ratio",
        False,
        pytest.approx(0.79),
        pytest.approx(0.665),
    )
    assert (cap.name, cap.limit) == ("absolute", pytest.approx(0.7))


def test_a_filter_that_has_learned_nothing_says_nothing() -> None:
    cluster, rrra = applied([Chosen(name="cluster"), Chosen(name="rrra")])
    assert not cluster.started
    assert not rrra.started
    cluster.decide.centroids = torch.eye(2)
    assert cluster.started
    assert decided(SCORES, Chosen(name="cluster"))[0].filters == ()


def test_sources_take_turns_and_a_document_comes_once() -> None:
    merged = merge({"dense": {"a": 0.9, "b": 0.8, "c": 0.7}, "bm25": {"b": 7.0, "d": 3.0}})
    assert [(c.doc_id, c.source, c.rank, c.mined, c.also) for c in merged] == [
        ("a", "dense", 1, 0.9, {}),
        ("b", "bm25", 1, 7.0, {"dense": 2}),
        ("d", "bm25", 2, 3.0, {}),
        ("c", "dense", 3, 0.7, {}),
    ]


def test_the_files_say_what_was_kept_and_why(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    negatives = block(DENSE, filtering=[{"name": "positive_margin", "margin": 0.01}])
    report = mine(data, encoder, negatives, tmp_path / "mined.run")
    run = read_run(tmp_path / "mined.run")
    evidence = list(read_evidence(tmp_path / "mined.jsonl"))
    assert files_of(tmp_path / "mined.jsonl") == files_of(tmp_path / "mined.run") == MiningFiles(tmp_path / "mined.run")
    assert {(e.query_id, e.doc_id) for e in evidence if e.keep} == {(q, d) for q in run for d in run[q]}
    assert report.queries == len(data.qrels)
    assert report.candidates == len(evidence) == 12 * len(data.qrels) - report.forbidden
    assert report.kept == report.written == sum(map(len, run.values()))
    assert report.dropped == {"positive_margin": report.candidates - report.kept}
    assert report.fewer == sum(len(run.get(q, {})) < 4 for q in data.qrels)
    assert report.without == sum(q not in run for q in data.qrels) == report.emptied
    scorer = EncoderScores(encoder, data)
    for candidate in evidence:
        judged = data.qrels[candidate.query_id]
        assert candidate.doc_id not in judged
        assert candidate.score == pytest.approx(float(scorer(candidate.query_id, [candidate.doc_id])[0]))
        assert candidate.positive_score == pytest.approx(float(scorer(candidate.query_id, list(judged)).min()))
        assert candidate.keep == (candidate.score < candidate.positive_score - 0.01)
    summary = json.loads((tmp_path / "mined.json").read_text())
    assert summary["report"]["kept"] == report.kept
    assert summary["data"]["folders"] == [f"{data.folder.resolve()}:train"]


def test_mining_in_blocks_changes_nothing(
    data: Dataset, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    negatives = block(DENSE, {"name": "random", "depth": 5}, {"name": "bm25", "depth": 5})
    mine(data, encoder, negatives, tmp_path / "whole.run")
    monkeypatch.setattr(candidates, "BLOCK", 3)
    mine(data, encoder, negatives, tmp_path / "blocks.run")
    whole, blocks = (list(read_evidence(tmp_path / f"{name}.jsonl")) for name in ("whole", "blocks"))
    assert [dataclasses.replace(e, mined=0.0) for e in whole] == [dataclasses.replace(e, mined=0.0) for e in blocks]
    assert [e.mined for e in whole] == pytest.approx([e.mined for e in blocks], abs=1e-6)  # sums in another order
    assert {q: list(r) for q, r in read_run(tmp_path / "whole.run").items()} == {
        q: list(r) for q, r in read_run(tmp_path / "blocks.run").items()
    }


def test_a_second_mining_encodes_nothing(
    data: Dataset, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "cache"))
    forwards = []
    real = Encoder.forward

    def counted(self: Encoder, *arguments: Any) -> Any:
        forwards.append(arguments)
        return real(self, *arguments)

    monkeypatch.setattr(Encoder, "forward", counted)
    negatives = block(DENSE, filtering=[{"name": "guide"}], teacher=str(tiny_model))
    mine(data, load_encoder(str(tiny_model)), negatives, tmp_path / "one.run")
    assert forwards
    forwards.clear()
    mine(data, load_encoder(str(tiny_model)), negatives, tmp_path / "two.run")
    assert not forwards
    assert (tmp_path / "one.run").read_text() == (tmp_path / "two.run").read_text()


def test_only_what_is_needed_is_encoded(
    data: Dataset, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "given.run").write_text("q1 d40 2.0\nq1 d41 1.0\n")
    negatives = block({"name": "run", "path": str(tmp_path / "given.run")})
    mine(data, load_encoder(str(tiny_model)), negatives, tmp_path / "mined.run", query_ids=["q1"])
    stored = [np.load(path).shape[0] for path in (tmp_path / "cache").rglob("embeddings.npy")]
    assert sorted(stored) == [3, len(data.queries)]  # d40, d41 and the positive
    assert list(read_run(tmp_path / "mined.run")["q1"].values()) == [2.0, 1.0]


@settings(max_examples=15)
@given(st.data())
def test_positives_copies_and_the_query_itself_are_never_candidates(
    tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, data: st.DataObject
) -> None:
    uncached, folder = Encoder(encoder.model, "tiny", encoder.precision, cached=False), tmp_path_factory.mktemp("made")
    texts = st.sampled_from(["the old river", "The  OLD river", "a new engine", "music", "what bread", "winter 7"])
    corpus = data.draw(st.lists(texts, min_size=4, max_size=9))
    queries = data.draw(st.lists(texts, min_size=1, max_size=4))
    (folder / "qrels").mkdir()
    for name, items in (("corpus", corpus), ("queries", queries)):
        rows = [json.dumps({"_id": f"{name[0]}{n}", "text": text}) + "\n" for n, text in enumerate(items)]
        (folder / f"{name}.jsonl").write_text("".join(rows))
    documents = st.sets(st.integers(0, len(corpus) - 1), min_size=1, max_size=3)
    judged = {f"q{n}": data.draw(documents) for n in range(len(queries))}
    rows = [f"{q}\tc{n}\t1\n" for q, numbers in judged.items() for n in numbers]
    (folder / "qrels" / "train.tsv").write_text("".join(rows))
    dataset = load_dataset(folder, "train")
    try:
        mine(dataset, uncached, block(DENSE), folder / "mined.run")
    except InputError as error:
        if "found no candidate" not in str(error):
            raise
        return
    normal = {f"c{n}": " ".join(text.lower().split()) for n, text in enumerate(corpus)}
    for candidate in read_evidence(folder / "mined.jsonl"):
        query = " ".join(queries[int(candidate.query_id[1:])].lower().split())
        same = [q for n, q in enumerate(judged) if " ".join(queries[n].lower().split()) == query]
        forbidden = {normal[f"c{n}"] for q in same for n in judged[q]} | {query}
        assert normal[candidate.doc_id] not in forbidden


def test_a_teacher_decides_and_orders(data: Dataset, encoder: Encoder, tiny_model: Path, tmp_path: Path) -> None:
    negatives = block({"name": "random", "depth": 9}, filtering=[{"name": "guide"}], teacher=str(tiny_model))
    mine(data, encoder, negatives, tmp_path / "mined.run")
    evidence = list(read_evidence(tmp_path / "mined.jsonl"))
    assert all(e.teacher == pytest.approx(e.score, abs=1e-6) for e in evidence)  # the same model
    assert all(e.keep == (e.reference <= e.positive_reference) for e in evidence)
    for query_id, ranked in read_run(tmp_path / "mined.run").items():
        order = [e.doc_id for e in evidence if e.query_id == query_id and e.keep]
        assert list(ranked) == order
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)


def test_a_cross_encoder_as_teacher(data: Dataset, encoder: Encoder, bare_checkpoint: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    folder = write_cross_encoder(tmp_path / "cross", bare_checkpoint)
    negatives = block({"name": "random", "depth": 3}, teacher=f"cross-encoder:{folder}")
    mine(data, encoder, negatives, tmp_path / "mined.run", query_ids=["q1", "q2"])
    evidence = list(read_evidence(tmp_path / "mined.jsonl"))
    pairs = [(data.queries[e.query_id].content, data.corpus[e.doc_id].content) for e in evidence]
    expected = CrossEncoder(str(folder), device="cpu").predict(pairs)
    assert [e.teacher for e in evidence] == pytest.approx(expected.tolist(), abs=1e-5)
    several = write_cross_encoder(tmp_path / "several", bare_checkpoint, labels=3)
    with pytest.raises(InputError, match=r"gives 3 numbers a pair, expected one$"):
        mine(data, encoder, block(DENSE, teacher=f"cross-encoder:{several}"), tmp_path / "x.run")
    with pytest.raises(InputError, match=r"^model .*nowhere: no such folder$"):
        mine(data, encoder, block(DENSE, teacher=f"cross-encoder:{tmp_path}/nowhere"), tmp_path / "x.run")


def test_a_model_without_a_head_for_pairs_is_no_cross_encoder(
    data: Dataset, encoder: Encoder, tiny_model: Path
) -> None:
    with pytest.raises(InputError, match=r"tiny: is a BertModel, which scores no pairs; name a cross-encoder$"):
        teacher_scores(f"cross-encoder:{tiny_model}", encoder, data)


def test_what_is_drawn_is_written(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    negatives = block(DENSE, sampling={"name": "window", "first": 3, "last": 4, "count": 2})
    report = mine(data, encoder, negatives, tmp_path / "mined.run", draw=True)
    evidence = list(read_evidence(tmp_path / "mined.jsonl"))
    for query_id, ranked in read_run(tmp_path / "mined.run").items():
        assert list(ranked) == [e.doc_id for e in evidence if e.query_id == query_id][2:4]
    assert report.written == 2 * len(data.qrels)


def test_a_run_with_the_name_of_its_evidence_is_refused(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    for name in ("mined.jsonl", "mined.json"):
        with pytest.raises(InputError, match=rf"{name}: is the run's name; .* end it in \.run$"):
            mine(data, encoder, block(DENSE), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_where_a_file_is_written_is_refused_at_once(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    arguments = ["mine", f"{tiny_dataset}:train", "--model", tiny_model, "--range-max", "5", "--overwrite", "--output"]
    for name in ("mined.run", "mined.jsonl", "mined.json"):
        folder = tmp_path / name
        folder.mkdir()
        done = run_cli(*arguments, tmp_path / "mined.run")
        assert (done.exit_code, done.stderr) == (
            2,
            f"error: {folder}: expected a file to write, found a folder; choose another --output\n",
        )
        assert list(tmp_path.iterdir()) == [folder]
        folder.rmdir()


def test_an_output_that_is_no_earlier_result_is_never_replaced(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    for name in ("mined.run", "mined.jsonl", "mined.json"):
        (tmp_path / name).write_text('{"_id": "d1", "text": "a corpus of a user"}\n')
        with pytest.raises(InputError, match=rf"{name}: exists already and was not written by `embedtune mine`"):
            mine(data, encoder, block(DENSE), tmp_path / "mined.run")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


def test_a_source_with_a_blank_in_its_name_gives_a_run_that_can_be_read(
    data: Dataset, encoder: Encoder, tiny_model: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "my model")
    mine(data, encoder, block({"name": "dense", "depth": 3, "model": str(other)}), tmp_path / "mined.run")
    assert all(len(found) == 3 for found in read_run(tmp_path / "mined.run").values())


def test_a_sampler_is_asked_before_anything_is_mined(
    data: Dataset, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "retrieve", lambda *a, **k: pytest.fail("mined"))
    with pytest.raises(InputError, match=r"^sampling\.window: expected 1 <= first <= last"):
        mine(data, encoder, block(DENSE, sampling={"name": "window", "first": 0}), tmp_path / "mined.run")


def test_fewer_than_asked_is_said_and_not_padded(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "given.run").write_text("q1 d40 2.0\nq1 d41 1.0\nq2 d2 1.0\n")
    negatives = block({"name": "run", "path": str(tmp_path / "given.run")})
    report = mine(data, encoder, negatives, tmp_path / "mined.run", query_ids=["q1", "q2", "q4"])
    assert {q: list(found) for q, found in read_run(tmp_path / "mined.run").items()} == {"q1": ["d40", "d41"]}
    assert (report.queries, report.fewer, report.without, report.emptied, report.forbidden) == (3, 3, 2, 0, 1)
    assert report.sentences() == [
        "2 of 2 candidates kept for 3 queries",
        "3 queries have fewer than the 4 negatives that are asked for",
        "2 queries have no negative (no candidate: 2), the first is q2",
    ]


def test_what_leaves_nothing_is_refused_and_nothing_is_written(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    out = tmp_path / "out" / "mined.run"
    low = {"name": "absolute", "below": -2.0}
    with pytest.raises(InputError, match=r"^negatives\.filtering: all \d+ candidates are dropped \(absolute \d+"):
        mine(data, encoder, block(DENSE, filtering=[low]), out)
    contradiction = [{"name": "mean_std", "deviations": 0.0, "drop": side} for side in ("above", "below")]
    pair = (
        "mean_std and mean_std-2 keep no candidate in common for 20 of 20 queries, though each filter alone keeps some"
    )
    with pytest.raises(InputError, match=rf"\(mean_std \d+, mean_std-2 \d+\).*contradict each other: {pair}$"):
        mine(data, encoder, block(DENSE, filtering=contradiction), out)
    (tmp_path / "given.run").write_text("q1 d1 2.0\n")
    with pytest.raises(InputError, match=r"^negatives\.mining: run found no candidate for any query of "):
        mine(data, encoder, block({"name": "run", "path": str(tmp_path / "given.run")}), out)
    (tmp_path / "given.run").write_text("q1 d40 2.0\n")
    given_run = {"name": "run", "path": str(tmp_path / "given.run")}
    with pytest.raises(InputError, match=r"^negatives\.empty: 19 of 20 queries have no negative, the first is 'q2'"):
        mine(data, encoder, block(given_run, empty="refuse"), out)
    assert not list(out.parent.iterdir())


def test_a_model_that_gives_nan_is_refused(
    data: Dataset, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "cache"))
    broken = load_encoder(str(tiny_model), cached=False)
    with torch.no_grad():
        next(broken.model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="is not finite: the model is broken"):
        mine(data, broken, block(DENSE), tmp_path / "mined.run")
    with pytest.raises(InputError, match=r"its score of document 'd\d+' for query 'q1' is nan: the model is broken"):
        mine(data, broken, block({"name": "random"}), tmp_path / "mined.run")


def test_two_filters_that_contradict_each_other_are_named() -> None:
    above, below, cap = (
        Chosen(name="mean_std", options={"deviations": 0.0}),
        Chosen(name="mean_std", options={"deviations": 0.0, "drop": "below"}),
        Chosen(name="absolute", options={"below": 0.75}),
    )
    report = MiningReport(asked=1)
    for scores, filters in (
        ({"p": 0.9, "a": 0.8, "b": 0.2}, (above, below, cap)),  # kept by each: b; a; b
        ({"p": 0.9, "a": 0.7, "b": 0.2}, (above, below, cap)),  # b; a; a and b
        ({"p": 0.9, "a": 0.8, "b": 0.2}, (cap,)),  # b is left
        ({"p": 0.9, "a": 0.8}, (above, cap)),  # a; none: one filter alone empties it
        ({"p": 0.9}, (above, cap)),
    ):
        report.add("q", decided(scores, *filters), forbidden=0, written=0)
    assert report.at_odds == {"mean_std and mean_std-2": 2, "mean_std-2 and absolute": 1}
    assert report.sentences()[-1] == (
        "mean_std and mean_std-2 keep no candidate in common for 2 of 5 queries, mean_std-2 and absolute for 1, though "
        "each filter alone keeps some"
    )
    assert MiningReport.of(json.loads(json.dumps(vars(report)))) == report


def test_every_positives_score_by_the_teacher_is_kept_once(
    data: Dataset, encoder: Encoder, bare_checkpoint: Path, tmp_path: Path
) -> None:
    negatives = block(DENSE, teacher=f"cross-encoder:{write_cross_encoder(tmp_path / 'cross', bare_checkpoint)}")
    mine(data, encoder, negatives, tmp_path / "mined.run", query_ids=["q5", "q1"])
    found = list(read_evidence(tmp_path / "mined.jsonl"))
    assert [(e.query_id, list(e.positives_teacher)) for e in found if e.positives_teacher] == [("q5", ["d35", "d5"])]
    first = found[0]
    scorer = teacher_scores(str(negatives.teacher), encoder, data)
    assert list(first.positives_teacher.values()) == scorer("q5", ["d35", "d5"]).tolist()
    assert first.positive_teacher == min(first.positives_teacher.values()) == first.positives_teacher[first.positive_id]


def test_evidence_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other\.run: no evidence \(other\.jsonl\) beside it"):
        files_of(tmp_path / "other.run")
    (tmp_path / "other.jsonl").write_text('{"query_id": "q1"}\n')
    with pytest.raises(InputError, match=r"other\.jsonl:1: not evidence of `embedtune mine`"):
        list(read_evidence(files_of(tmp_path / "other.run").evidence))
    line = json.loads(as_line(evidence_of("q", "d")))
    for key, wrong, problem in (
        ("score", "1", "score: Input should be a valid number"),
        ("score", float("nan"), "score: Input should be a finite number"),
        ("score", None, "score: Input should be a valid number"),
        ("source", [], "source: Input should be a valid string"),
        ("keep", "no", "keep: Input should be a valid boolean"),
        ("positives_teacher", 3, "positives_teacher: Input should be an object"),
        ("positives_teacher", {"p": "x"}, "positives_teacher: p: Input should be a valid number"),
        ("filters", [{"name": "absolute"}], "filters: 0: keep: Field required"),
        ("extra", 1, "extra: Unexpected keyword argument"),
    ):
        (tmp_path / "other.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line | {key: wrong}) + "\n")
        with pytest.raises(
            InputError, match=rf"other\.jsonl:2: not evidence of `embedtune mine` \({re.escape(problem)}\)$"
        ):
            list(read_evidence(tmp_path / "other.jsonl"))


def evidence_of(query_id: str, doc_id: str) -> Evidence:
    return Evidence(
        query_id=query_id, doc_id=doc_id, source="s", rank=1, mined=1, score=1, positive_id="p", positive_score=2,
        keep=True,
    )  # fmt: skip


def test_evidence_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text(
        '{"query_id": "q1", "doc_id": "d1", "source": "dense", "rank": 1, "mined": 0.5, "score": 0.5, "positive_id": '
        '"p", "positive_score": 1, "keep": false, "filters": [{"name": "judge", "keep": false, "value": null, "limit": '
        "null}]}\n"
    )
    (found,) = read_evidence(tmp_path / "old.jsonl")
    assert (found.gap, found.keep, found.filters[0].keep, found.also) == (0.5, False, False, {})


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_miner_whose_scores_are_not_finite_is_refused(
    score: float, data: Dataset, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_runs", lambda *a: {"mine": {"q1": {"d40": 1.0, "d41": score}}})
    with pytest.raises(InputError, match=rf"^mining: mine scores document 'd41' of query 'q1' {score}, which is not"):
        mine(data, encoder, block(DENSE), tmp_path / "mined.run", query_ids=["q1"])
    assert not list(tmp_path.iterdir())


def test_options_that_follow_a_schedule_start_at_their_start(data: Dataset, encoder: Encoder, tmp_path: Path) -> None:
    moving = {"name": "positive_margin", "margin": {"from": 0.01, "to": 0.5}}
    mine(data, encoder, block(DENSE, filtering=[moving]), tmp_path / "moving.run")
    mine(data, encoder, block(DENSE, filtering=[{"name": "positive_margin", "margin": 0.01}]), tmp_path / "fixed.run")
    assert (tmp_path / "moving.jsonl").read_text() == (tmp_path / "fixed.jsonl").read_text()
    assert dataclasses.asdict(next(read_evidence(tmp_path / "moving.jsonl")))["filters"][0]["limit"] is not None
