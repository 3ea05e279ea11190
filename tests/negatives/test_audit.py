"""The audit: from evidence alone, and equal to what a fresh filter run says."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mining_jobs import mine

from embedtune.data.dataset import load_dataset
from embedtune.data.trec import read_qrels, read_run
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.negatives.audit import audit, dataset_of, decided, parse_threshold, relabel
from embedtune.negatives.evidence import Evidence, FilterVerdict, MiningFiles, as_line, files_of
from embedtune.recipe import Chosen, Negatives

MARGIN = Chosen(name="positive_margin", options={"margin": 0.02})


@pytest.fixture(scope="module")
def mined(tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    encoder, data = load_encoder(str(tiny_model)), load_dataset(tiny_dataset, "train")
    folder = tmp_path_factory.mktemp("mined")

    def make(name: str, *filters: Chosen, teacher: str | None = None) -> Path:
        mining = [Chosen(name="dense", options={"depth": 15})]
        mine(data, encoder, Negatives(mining=mining, filtering=list(filters), teacher=teacher), folder / f"{name}.run")
        return folder / f"{name}.run"

    return make


CUTS = [
    "positive_ratio=0.98",
    "positive_margin=0.05",
    "absolute=0.93",
    "mean_std=1.0",
    "whisker=0.5",
    "{name: mean_std, deviations: 0.5, drop: below}",
]


@pytest.mark.parametrize("cut", CUTS)
def test_another_cut_from_evidence_equals_a_fresh_filter_run(mined: Callable[..., Path], cut: str) -> None:
    before, chosen = mined("plain"), parse_threshold(cut)
    fresh = read_run(mined("fresh", chosen))
    again = {query_id: {c.doc_id for c in found if c.keep} for query_id, found in decided(files_of(before), chosen)}
    assert {q: found for q, found in again.items() if found} == {q: set(found) for q, found in fresh.items()}
    assert any(found for found in again.values())


def test_another_cut_takes_the_place_of_the_filter_of_that_name(mined: Callable[..., Path], tiny_model: Path) -> None:
    path = mined("with-teacher", MARGIN, Chosen(name="guide"), teacher=str(tiny_model))
    found = audit(path, threshold=parse_threshold("positive_margin=0.0"), suspects=0)
    assert (found.by_teacher, audit(mined("plain")).by_teacher) == (True, False)
    assert [f.name for f in found.filters] == ["guide", "positive_margin"]
    assert sum(q.kept for q in found.queries) > sum(q.kept for q in audit(path).queries)


def evidence(query_id: str, doc_id: str, score: float, *verdicts: FilterVerdict) -> Evidence:
    return Evidence(
        query_id=query_id, doc_id=doc_id, source="dense", rank=1, mined=score, score=score, positive_id="p",
        positive_score=0.8, keep=all(v.keep for v in verdicts), filters=verdicts,
    )  # fmt: skip


def write(path: Path, *candidates: Evidence) -> Path:
    path.with_suffix(".jsonl").write_text("".join(map(as_line, candidates)))
    return path


def test_counts_suspects_and_gaps_by_hand(tmp_path: Path) -> None:
    cap = FilterVerdict(name="absolute", keep=False, value=0.9, limit=0.85)
    margin, fine = (
        FilterVerdict(name="m", keep=False, value=0.9, limit=0.75),
        FilterVerdict(name="m", keep=True, limit=0.75),
    )
    path = write(
        tmp_path / "a.run",
        evidence("q1", "a", 0.9, cap, margin),
        evidence("q1", "b", 0.79, FilterVerdict(name="absolute", keep=True, limit=0.85), margin),
        evidence("q1", "c", 0.7, FilterVerdict(name="absolute", keep=True, limit=0.85), fine),
        evidence("q2", "d", 0.5),
        evidence("q2", "e", 0.74),
    )
    found = audit(path, suspects=2)
    assert [(q.query_id, q.candidates, q.kept, dict(q.dropped)) for q in found.queries] == [
        ("q1", 3, 1, {"absolute": 1, "m": 2}),
        ("q2", 2, 2, {}),
    ]
    assert [(f.name, f.candidates, f.dropped, f.alone, f.lowest_limit) for f in found.filters] == [
        ("absolute", 3, 1, 0, 0.85),
        ("m", 3, 2, 1, 0.75),
    ]
    # The mean of q1's candidates is 0.797, of q2's 0.62.
    assert [(s.candidate.doc_id, round(s.lead, 3)) for s in found.suspects] == [("e", 0.12), ("c", -0.097)]
    assert [s.candidate.doc_id for s in found.caught] == ["a"]  # b was dropped as well, but a leads: one for each query
    assert [vars(source) for source in found.sources] == [{"name": "dense", "candidates": 5, "kept": 3, "shared": 0}]
    assert [sum(row[place] for row in found.scores) for place in (2, 3, 4)] == [2, 3, 2]  # positives, kept, dropped
    assert (found.scores[0][0], found.scores[-1][1]) == (0.5, 0.9)
    assert sum(kept for _, _, kept, _ in found.gaps) == 3
    assert sum(dropped for *_, dropped in found.gaps) == 2
    assert found.gaps[0][0] == pytest.approx(-0.1)
    assert found.gaps[-1][1] == pytest.approx(0.3)
    assert found.warnings == []


def test_a_low_positive_does_not_make_its_querys_candidates_suspects(tmp_path: Path) -> None:
    low = [dataclasses.replace(evidence("q1", f"low{n}", 0.3 + n / 100), positive_score=0.31) for n in range(8)]
    others = [evidence("q2", f"other{n}", 0.2 + n / 100) for n in range(8)]
    outstanding = evidence("q2", "outstanding", 0.7)  # 0.1 below its positive, and far above the others
    found = audit(write(tmp_path / "a.run", *low, *others, outstanding), suspects=1)
    assert [s.candidate.doc_id for s in found.suspects] == ["outstanding"]


@pytest.mark.parametrize(
    ("cut", "warning"),
    [
        (
            "absolute=0.1",
            r"^absolute: drops every candidate \(limits 0\.1 to 0\.1\); its number is for scores of another scale$",
        ),
        (
            "absolute=7",
            r"^absolute: drops nothing, because its limit \(limits 7 to 7\) lies above every positive's score; lower",
        ),
        ("positive_ratio=3.0", r"^positive_ratio: drops nothing, because its limit \(limits 2\.4"),
        ("positive_ratio=0.99", r"^positive_ratio: drops nothing \(limits 0\.792"),
    ],
)
def test_a_scale_that_makes_a_limit_meaningless_is_said(tmp_path: Path, cut: str, warning: str) -> None:
    path = write(tmp_path / "a.run", evidence("q1", "a", 0.7), evidence("q2", "b", 0.6))
    (said,) = audit(path, threshold=parse_threshold(cut)).warnings
    assert re.search(warning, said), said


@pytest.mark.parametrize(
    ("cut", "warned"),
    [
        ("absolute=0.5", True),
        ("absolute=1.5", False),
        ("positive_margin=0.05", True),
        ("positive_margin=2.5", False),
        ("positive_margin=0.0", False),  # below the positive, on whatever scale
        ("positive_ratio=0.8", False),  # asks for a share, on whatever scale
        ("mean_std=0.0", False),
    ],
)
def test_a_limit_for_cosines_on_a_cross_encoders_scale_is_said(tmp_path: Path, cut: str, warned: bool) -> None:
    columns = [("q1", "a", 5.0, 4.0), ("q1", "b", -6.5, 4.0), ("q2", "c", 9.25, 9.0), ("q2", "d", 0.25, 9.0)]
    found = [
        dataclasses.replace(evidence(query_id, doc_id, 0.1), teacher=score, positive_teacher=positive)
        for query_id, doc_id, score, positive in columns
    ]
    path = write(tmp_path / "a.run", *found)
    name = cut.partition("=")[0]
    expected = [
        f"{name}: its number fits cosines, but the candidates' scores lie from -6.5 to 9.25; give a number in their "
        "units, or use positive_ratio"
    ]
    assert audit(path, threshold=parse_threshold(cut)).warnings == (expected if warned else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("positive_rato=0.9", r"^unknown filtering method 'positive_rato': did you mean 'positive_ratio'\?$"),
        ("absolute=high", r"^--threshold absolute\.below: expected a number, got 'high'$"),
        ("0.9", r"^--threshold 0\.9: expected FILTER=NUMBER, as in positive_ratio=0\.9$"),
    ],
)
def test_a_wrong_threshold_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_threshold(text)


def test_a_threshold_of_a_filter_of_ones_own(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    path = write(tmp_path / "a.run", evidence("q1", "a", 0.7), evidence("q1", "b", 0.2))
    assert run_cli("methods", "new", "filtering", "near", "--output", tmp_path / "own").exit_code == 0
    command = ["audit", path, "--suspects", "0", "--json"]
    tried = run_cli(*command, "--threshold", "near=0.2", "--methods", tmp_path / "own")
    assert [(one["name"], one["dropped"]) for one in json.loads(tried.stdout)["filters"]] == [("near", 1)]
    assert run_cli(*command, "--methods", tmp_path / "own").stderr == (
        "error: --methods has no effect without --threshold\n"
    )
    assert "unknown filtering method 'near'" in run_cli(*command, "--threshold", "near=0.2").stderr


def test_a_filter_that_needs_more_than_evidence_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.run", evidence("q1", "a", 0.7))
    with pytest.raises(InputError, match=r"^filtering\.guide: needs a teacher's scores"):
        audit(path, threshold=parse_threshold("guide=0.1"))
    with pytest.raises(InputError, match=r"^--threshold cluster: learns while training, so it has no fixed threshold$"):
        parse_threshold("cluster=3")
    with pytest.raises(InputError, match=r"empty\.run: the evidence is empty$"):
        audit(write(tmp_path / "empty.run"))


def test_relabelling_writes_new_judgements_and_never_in_place(tmp_path: Path, tiny_dataset: Path) -> None:
    path = write(
        tmp_path / "a.run", evidence("q1", "d40", 0.83), evidence("q1", "d41", 0.81), evidence("q2", "d42", 0.7)
    )
    data = load_dataset(tiny_dataset, "train")
    assert relabel(path, data, tmp_path / "same.tsv", above=9.0) == 0  # a judge that says no everywhere (C1)
    assert read_qrels(tmp_path / "same.tsv") == data.qrels
    assert relabel(path, data, tmp_path / "new.tsv", above=0.02) == 1
    found = read_qrels(tmp_path / "new.tsv")
    assert found.pop("q1") == data.qrels["q1"] | {"d40": 1}
    assert found == {q: judged for q, judged in data.qrels.items() if q != "q1"}
    with pytest.raises(InputError, match=r"new\.tsv: exists already; choose another --relabel"):
        relabel(path, data, tmp_path / "new.tsv", above=0.02)
    with pytest.raises(InputError, match=r"query 'q0' is not in .*, split train$"):
        relabel(write(tmp_path / "b.run", evidence("q0", "d1", 0.9)), data, tmp_path / "newer.tsv", above=0.0)


def test_a_judge_confirms_what_is_relabelled(tmp_path: Path, tiny_dataset: Path) -> None:
    found = [evidence("q1", "d40", 0.83), evidence("q1", "d41", 0.81), evidence("q1", "d43", 0.9)]
    path, data = write(tmp_path / "a.run", *found), load_dataset(tiny_dataset, "train")
    positive = next(doc_id for doc_id, grade in data.qrels["q1"].items() if grade > 0)
    judged = {positive: 0.6, "d40": 0.1, "d41": 0.7}  # nothing of d43
    (tmp_path / "judge.run").write_text("".join(f"q1 Q0 {d} 1 {score} judge\n" for d, score in judged.items()))
    assert relabel(path, data, tmp_path / "new.tsv", above=0.05, judge=tmp_path / "judge.run") == 1
    assert read_qrels(tmp_path / "new.tsv")["q1"] == data.qrels["q1"] | {"d41": 1}


def test_the_data_is_known_from_the_summary(mined: Callable[..., Path], tiny_dataset: Path, tmp_path: Path) -> None:
    files = MiningFiles(mined("plain"))
    assert dataset_of(files).folder.samefile(tiny_dataset)
    assert dataset_of(files).split == "train"
    with pytest.raises(InputError, match=r"a\.run: no a\.json beside it names the mined dataset; give --data DIR$"):
        dataset_of(MiningFiles(tmp_path / "a.run"))


def test_the_verbs(tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    out = tmp_path / "mined.run"
    flags = ["--num-negatives", 2, "--relative-margin", 0.02, "--range-min", 1, "--range-max", 20]
    flags += ["--absolute-margin", 0.01, "--max-score", 0.99]
    done = run_cli("mine", f"{tiny_dataset}:train", "--model", tiny_model, "--output", out, *map(str, flags))
    assert done.exit_code == 0, done.stderr
    table = dict(line.split("\t") for line in done.stdout.splitlines())
    assert list(table) == ["mined", "queries", "candidates", "dropped by positive_ratio", "dropped by positive_margin",
                           "dropped by absolute", "kept", "written", "queries with fewer than 2",
                           "queries without any"]  # fmt: skip
    assert table["queries"] == "20"
    run = read_run(out)
    assert all(len(found) <= 2 for found in run.values())
    for query_id, found in decided(files_of(out)):
        left = [c.doc_id for c in found if c.keep]
        assert list(run.get(query_id, {})) == left[1:3]
        for c in found:
            below = min(c.positive_score * 0.98, c.positive_score - 0.01, 0.99)
            assert c.keep == (c.score < below)

    shown = run_cli("audit", out, "--suspects", 2, "--per-query")
    assert shown.exit_code == 0, shown.stderr
    assert "positive text" in shown.stdout
    titles = [line for line in shown.stdout.splitlines() if line.startswith("# ")]
    assert [title.split(":")[0] for title in titles] == [
        "# Queries",
        "# Filters",
        "# Likeliest false negatives among the kept",
        "# Likeliest false negatives among the dropped, one for each query",
        "# Candidates by their distance below the lowest positive (its score minus theirs)",
    ]
    assert not re.search(r"\d{12}", shown.stdout)
    assert "dropped by" in shown.stdout
    assert shown.stdout.count("suspect text") == 2  # among the kept, and the likeliest among the dropped
    again = run_cli("mine", f"{tiny_dataset}:train", "--model", tiny_model, "--output", out)
    assert (again.exit_code, again.stderr) == (
        2,
        f"error: {out}: exists already; choose another --output, or replace it with --overwrite\n",
    )
    tried = json.loads(run_cli("audit", out, "--threshold", "positive_ratio=0.97", "--json").stdout)
    assert [s["name"] for s in tried["sources"]] == ["dense"]
    assert sum(row["kept"] + row["dropped"] for row in tried["scores"]) == tried["sources"][0]["candidates"]
    assert sum(q["kept"] for q in tried["queries"]) < int(table["kept"])
    wrong = run_cli("audit", out, "--relabel", tmp_path / "x.tsv")
    message = "error: --relabel needs --above MARGIN, or --decisions FILE that people saved\n"
    assert (wrong.exit_code, wrong.stderr) == (2, message)
    assert run_cli("audit", out, "--relabel", tmp_path / "x.tsv", "--above", "-0.001").exit_code == 0
    assert (tmp_path / "x.tsv").exists()

    (tmp_path / "r.yaml").write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}, validation: 0.2}}\n"
        "negatives: {mining: [{name: random, depth: 4}]}\n"
    )
    done = run_cli(
        "mine", tmp_path / "r.yaml", "--output", tmp_path / "r.run", "--set", "negatives.empty=refuse", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["queries"] == 16
