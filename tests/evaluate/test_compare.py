"""Comparisons of made evaluations, by hand; runs and mteb's results; what is refused; the verb and its bar."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import write_dataset

from embedtune.data.dataset import load_dataset
from embedtune.errors import InputError
from embedtune.evaluate.compare import Compared, compare, parse_bar
from embedtune.evaluate.results import write
from embedtune.evaluate.retrieval import evaluate_run

Values = dict[str, float]
BEFORE = {"q0": 0.5, "q3": 0.5, "q6": 0.0, "q9": 1.0}
AFTER = {"q0": 0.6, "q3": 0.7, "q6": 0.3, "q9": 0.6}


def write_evaluation(
    root: Path, *, label: str = "tiny", data: str = "da7a", folder: str = "", **tables: Values
) -> Path:
    """An evaluation as `embedtune eval` writes it. nDCG10={...} stands for nDCG@10."""
    values = {name.replace("10", "@10"): table for name, table in tables.items()}
    place = root / label
    place.mkdir(parents=True)
    query_ids = list(next(iter(values.values())))
    found = {
        "dataset": label,
        "split": "test",
        "model": str(root),
        "folder": folder,
        "fingerprints": {"data": data, "model": "f00d"},
        "queries": len(query_ids),
        "measures": {name: sum(table.values()) / len(table) for name, table in values.items()},
        "protocol": {},
    }
    (place / "measures.json").write_text(json.dumps(found))
    lines = [
        json.dumps({"query_id": query_id, "measures": {name: table[query_id] for name, table in values.items()}})
        for query_id in query_ids
    ]
    (place / "per-query.jsonl").write_text("\n".join(lines) + "\n")
    return root


def write_run_folder(root: Path, seed: int, values: Values, **settings: Any) -> Path:
    write_evaluation(root / "evaluation", nDCG10=values)
    (root / "recipe.yaml").write_text(yaml.safe_dump({"version": 1, "train": {"seed": seed, **settings}}))
    return root


def shifted(by: float) -> Values:
    return {query_id: value + by for query_id, value in BEFORE.items()}


def only(found: Compared) -> Any:
    (comparison,) = found.comparisons
    return comparison


def test_two_evaluations_by_hand(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE)
    tuned = write_evaluation(tmp_path / "tuned", nDCG10=AFTER)
    found = only(compare(base, [tuned], changes=2))
    assert (found.dataset, found.measure, found.run, found.queries) == ("tiny", "nDCG@10", str(tuned), 4)
    assert (found.baseline, found.value, found.difference) == pytest.approx((0.5, 0.55, 0.05))
    assert (found.wins, found.ties, found.losses) == (3, 0, 1)
    # Differences .1, .2, .3, -.4, their sum .2: of 16 signings of (1, 2, 3, 4) only two sum to 0.
    assert found.p == found.holm == 14 / 16
    assert found.low < 0.05 < found.high
    assert [change.query_id for change in found.gained] == ["q6", "q3"]
    assert [(change.query_id, change.text) for change in found.lost] == [("q9", None)]
    assert only(compare(base / "tiny", [tuned / "tiny"])).p == 14 / 16  # one dataset's folder does as well


def test_holm_is_over_all_comparisons_shown(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE, RR10=BEFORE)
    better = write_evaluation(tmp_path / "better", nDCG10=shifted(0.1), RR10=AFTER)
    other = write_evaluation(tmp_path / "other", nDCG10=shifted(-0.1), RR10=BEFORE)
    found = compare(base, [better, other]).comparisons
    assert [comparison.p for comparison in found] == [0.125, 14 / 16, 0.125, 1.0]
    assert [comparison.holm for comparison in found] == [0.5, 1.0, 0.5, 1.0]
    chosen = compare(base, [better], measures="RR@10").comparisons
    assert [(comparison.measure, comparison.holm) for comparison in chosen] == [("RR@10", 14 / 16)]


def test_texts_come_from_the_dataset_named(tmp_path: Path, tiny_dataset: Path) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE, folder=str(tiny_dataset))
    tuned = write_evaluation(tmp_path / "tuned", nDCG10=AFTER, folder=str(tiny_dataset))
    found = only(compare(base, [tuned]))
    assert found.lost[0].text == load_dataset(tiny_dataset).queries["q9"].text
    gone = write_evaluation(tmp_path / "gone", nDCG10=BEFORE, folder=str(tmp_path / "nowhere"))
    assert compare(gone, [write_evaluation(tmp_path / "also", nDCG10=AFTER)]).notes == [
        "tiny: queries are shown by id only: the dataset's folder is not there any more"
    ]


def test_seeds_of_one_recipe_are_one_row(tmp_path: Path) -> None:
    for seed, by in enumerate((0.1, 0.2, 0.3)):
        write_run_folder(tmp_path / f"plain-{seed}", seed, BEFORE, epochs=1)
        write_run_folder(tmp_path / f"hard-{seed}", seed, shifted(by), epochs=2)
    paths = [tmp_path / f"{name}-{seed}" for name in ("plain", "hard") for seed in range(3)]
    found = only(compare(paths[0], paths[1:]))
    assert found.run == f"{tmp_path / 'hard'} (3 seeds)"
    assert found.difference == pytest.approx(0.2)
    assert found.p == 0.125  # four queries, each .2 better on average
    assert found.seeds.means == pytest.approx({0: 0.6, 1: 0.7, 2: 0.8})
    assert found.seeds.deviation == pytest.approx(0.1)
    assert found.seeds.p == 0.25  # three gains of three seeds: 2 / 2^3
    # t = .2 / (.1 / sqrt 3) = 3.464 with 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    assert found.seeds.t_p == found.seeds.holm == pytest.approx(1 - 12**0.5 / 14**0.5)


def test_a_baseline_without_seeds_is_a_constant_and_a_single_run_is_not(tmp_path: Path) -> None:
    runs = [write_run_folder(tmp_path / f"run-{seed}", seed, shifted(by)) for seed, by in ((0, 0.1), (1, 0.3))]
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE)
    assert only(compare(base, runs)).seeds.difference == pytest.approx(0.2)
    single = write_run_folder(tmp_path / "single", 0, BEFORE, epochs=9)
    found = compare(single, runs)
    assert only(found).seeds.difference is None
    assert found.notes[-1].endswith("share fewer than two seeds: seeds are not tested")


def test_the_same_seed_twice_is_a_repeated_run(tmp_path: Path) -> None:
    first, again = (write_run_folder(tmp_path / name, 0, BEFORE) for name in ("first", "again"))
    found = compare(first, [again])
    assert only(found).p == 1.0
    assert found.notes[-1] == f"tiny: {again} and {first} are identical: every query has the same values"
    with pytest.raises(InputError, match="the runs differ in their seed alone; there is no other recipe to compare"):
        compare(first, [write_run_folder(tmp_path / "second", 1, BEFORE)])


def test_other_data_is_refused(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE)
    other = write_evaluation(tmp_path / "other", nDCG10=AFTER, data="beef")
    with pytest.raises(InputError, match=r"tiny: .*base/tiny and .*other/tiny were evaluated on different data"):
        compare(base, [other])


def run_of(dataset: Path, scores: Callable[[str], dict[str, float]]) -> dict[str, dict[str, float]]:
    return {query_id: scores(query_id) for query_id in load_dataset(dataset).qrels}


def write_trec(path: Path, run: dict[str, dict[str, float]]) -> Path:
    path.write_text("".join(f"{q} Q0 {d} 1 {s!r} made\n" for q, scores in run.items() for d, s in scores.items()))
    return path


def test_fewer_queries_of_the_same_data_are_compared_on_those(tmp_path: Path, tiny_dataset: Path) -> None:
    fewer = tmp_path / "fewer" / "tiny"
    shutil.copytree(tiny_dataset, fewer)
    lines = (fewer / "qrels" / "test.tsv").read_text().splitlines()
    (fewer / "qrels" / "test.tsv").write_text("\n".join(line for line in lines if not line.startswith("q0\t")) + "\n")
    run = run_of(tiny_dataset, lambda q: {f"d{q[1:]}": 1.0})
    evaluate_run(run, load_dataset(tiny_dataset), measures="RR@10", output=tmp_path / "a")
    without = {query_id: scores for query_id, scores in run.items() if query_id != "q0"}
    evaluate_run(without, load_dataset(fewer), measures="RR@10", output=tmp_path / "b")
    found = compare(tmp_path / "a", [tmp_path / "b"])
    assert only(found).queries == 9
    assert "DIFFERENT QUERIES: " in found.notes[0]
    assert "has 10, " in found.notes[0]
    assert found.notes[0].endswith("has 9; compared on the 9 that all have")
    with pytest.raises(InputError, match=r"the runs cover different queries .* all share 9\): --strict"):
        compare(tmp_path / "a", [tmp_path / "b"], strict=True)
    (fewer / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td3\t1\n")  # changed since
    with pytest.raises(InputError, match="were evaluated on different data"):
        compare(tmp_path / "a", [tmp_path / "b"])


def test_trec_runs_are_measured_by_the_data(tmp_path: Path, tiny_dataset: Path) -> None:
    right = run_of(tiny_dataset, lambda q: {f"d{q[1:]}": 1.0})
    half = write_trec(tmp_path / "half.run", {q: {"d59": 1.0} if q in ("q0", "q3") else s for q, s in right.items()})
    perfect = write_trec(tmp_path / "perfect.run", right)
    found = only(compare(half, [perfect], measures="RR@10", data=[str(tiny_dataset)]))
    assert (found.baseline, found.value, found.wins, found.ties, found.p) == (0.8, 1.0, 2, 8, 0.5)
    short = write_trec(tmp_path / "short.run", {q: s for q, s in right.items() if q != "q0"})
    notes = compare(short, [perfect], measures="RR@10", data=[str(tiny_dataset)]).notes
    assert "compared on the 9 that all have" in notes[0]
    evaluate_run(half, load_dataset(tiny_dataset), measures="R@10", output=tmp_path / "folder")
    again = only(compare(tmp_path / "folder", [perfect], measures="RR@10", data=[str(tiny_dataset)]))
    assert again.baseline == 0.8  # from its run.trec, by a measure that it was not evaluated by
    with pytest.raises(InputError, match=r"half\.run: a run is measured by one dataset, .*; none is named"):
        compare(half, [perfect])
    with pytest.raises(InputError, match=r"folder: unknown dataset 'tiny-train': did you mean 'tiny'\?"):
        compare(tmp_path / "folder", [perfect], data=[f"{tiny_dataset}:train"])


def test_shuffled_ties_are_no_significant_difference(tmp_path: Path, tiny_dataset: Path) -> None:
    """The same model twice, its equal scores in another order: each query moves, and on average nothing does."""
    doc_ids = sorted(load_dataset(tiny_dataset).corpus.ids)

    def tied(shuffle: int) -> Callable[[str], dict[str, float]]:
        # Every document has the same score but for an order of its own among the ties.
        return lambda q: {d: 1.0 + (((n + int(q[1:])) * shuffle) % 61) / 1e4 for n, d in enumerate(doc_ids)}

    runs = [write_trec(tmp_path / f"{shuffle}.run", run_of(tiny_dataset, tied(shuffle))) for shuffle in (7, 23)]
    found = compare(runs[0], runs[1:], measures="RR nDCG@10 R@10", data=[str(tiny_dataset)])
    assert all(comparison.holm > 0.05 for comparison in found.comparisons if comparison.holm is not None)
    assert any(comparison.wins or comparison.losses for comparison in found.comparisons)


def write_mteb(path: Path, value: float) -> Path:
    scores = {"hf_subset": "default", "main_score": value, "ndcg_at_10": value, "nauc_ndcg_at_10_max": 0.1}
    found = {"task_name": "Tiny", "mteb_version": "2.1.0", "scores": {"test": [scores]}}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def test_mteb_results_hold_means_only(tmp_path: Path, tiny_dataset: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "model_meta.json").write_text('{"name": "one"}')
    write_mteb(tmp_path / "one" / "Tiny.json", 0.5)
    other = write_mteb(tmp_path / "two" / "Tiny.json", 0.75)
    found = compare(tmp_path / "one", [other])
    assert [(c.measure, c.difference, c.p, c.holm) for c in found.comparisons] == [
        ("main_score", 0.25, None, None),
        ("nDCG@10", 0.25, None, None),
    ]
    assert "holds means only, so no test is possible; means are compared" in found.notes[0]
    mixed = compare(write_evaluation(tmp_path / "ours", nDCG10=BEFORE), [other])  # Tiny is tiny
    assert only(mixed).difference == 0.25
    with pytest.raises(InputError, match="hold means only; there is no run to measure by --data"):
        compare(other, [tmp_path / "one"], data=[str(tiny_dataset)])


def test_mteb_tasks_that_are_no_retrieval_have_their_main_score(tmp_path: Path) -> None:
    paths = []
    for name, value in (("one", 0.5), ("two", 0.75)):
        place = tmp_path / name / "results" / f"local__{name}" / "rev"  # mteb's own layout
        place.mkdir(parents=True)
        (place / "model_meta.json").write_text(json.dumps({"name": name}))
        scores = [{"hf_subset": "de", "main_score": value, "spearman": value, "pearson": float("nan")}]
        (place / "STS.json").write_text(json.dumps({"task_name": "STS", "scores": {"validation": scores}}))
        paths.append(tmp_path / name)
    found = only(compare(paths[0], paths[1:], measures="main_score"))
    assert (found.dataset, found.measure, found.difference) == ("STS-de-validation", "main_score", 0.25)
    assert parse_bar("main_score < baseline").measure == "main_score"
    shutil.copytree(paths[1] / "results" / "local__two", paths[0] / "results" / "local__two")
    with pytest.raises(InputError, match=r"results of 2 models or revisions \(results/local__one/rev, .*name one's"):
        compare(paths[0], paths[1:])


def test_the_main_score_of_retrieval_tasks_is_there_with_its_mean(tmp_path: Path) -> None:
    tasks = {"News21": ("p_mrr", [0.1, 0.3]), "CoIR": ("ndcg_at_10", [0.5, 0.6])}  # News21's main score is no nDCG
    for run in (0, 1):
        for task, (kind, values) in tasks.items():
            scores = {"hf_subset": "default", "main_score": values[run], kind: values[run], "ndcg_at_10": 0.5}
            path = tmp_path / str(run) / f"{task}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"task_name": task, "scores": {"test": [scores]}}))
    compared = compare(tmp_path / "0", [tmp_path / "1"], measures="main_score")
    assert {c.dataset: round(c.difference, 6) for c in compared.comparisons} == {"News21": 0.2, "CoIR": 0.1}
    (across,) = compared.across
    assert (across.measure, across.datasets) == ("main_score", 2)
    assert (across.baseline, across.value, across.mean) == pytest.approx((0.3, 0.45, 0.15))


def test_runs_with_and_without_their_queries_as_documents_are_told_apart(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "claims")
    found = evaluate_run({"q0": {"d0": 1.0}}, load_dataset(folder), output=tmp_path / "kept")
    write(dataclasses.replace(found, protocol={"ignore_identical_ids": True}), tmp_path / "removed")
    notes = compare(tmp_path / "kept", [tmp_path / "removed"]).notes
    assert any("DIFFERENT SETTINGS: ignore_identical_ids is False and True" in note for note in notes)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "per-query.jsonl").unlink(), r"older version of embedtune \(per-query.jsonl is missing\)"),
        (lambda f: _edit(f, fingerprints=None), r"older version of embedtune \('fingerprints' is missing\)"),
        (lambda f: _edit(f, fingerprints={}), r"older version of embedtune \(the data's fingerprint is missing\)"),
        (lambda f: _edit(f, queries=5), r"per-query.jsonl: 4 queries, but measures.json says 5; evaluate again"),
        (lambda f: _nan(f), r"per-query.jsonl:1: nDCG@10 must be a finite number, got nan; evaluate again"),
        (lambda f: (f / "measures.json").write_text("{"), r"measures.json:1: not valid JSON"),
    ],
)
def test_broken_evaluations_are_refused(harm: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE)
    other = write_evaluation(tmp_path / "other", nDCG10=AFTER)
    harm(other / "tiny")
    with pytest.raises(InputError, match=message):
        compare(base, [other])


def _edit(folder: Path, **values: Any) -> None:
    found = json.loads((folder / "measures.json").read_text()) | values
    kept = {key: value for key, value in found.items() if value is not None}
    (folder / "measures.json").write_text(json.dumps(kept))


def _nan(folder: Path) -> None:
    path = folder / "per-query.jsonl"
    path.write_text(path.read_text().replace("0.6", "NaN", 1))


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no evaluation here; expected <dataset>/measures\.json"):
        compare(base, [tmp_path / "empty"])
    (tmp_path / "empty" / "recipe.yaml").write_text("train: {seed: 0}\n")
    with pytest.raises(InputError, match="this run has no evaluation: it was stopped before its end"):
        compare(base, [tmp_path / "empty"])
    with pytest.raises(InputError, match="nowhere: no such file or folder; expected an evaluation or run folder"):
        compare(base, [tmp_path / "nowhere"])
    foreign = write_evaluation(tmp_path / "foreign", label="other", nDCG10=BEFORE)
    with pytest.raises(InputError, match="share no dataset: it has tiny; they have other"):
        compare(base, [foreign])
    with pytest.raises(
        InputError, match=r"R@10 was not measured; it has nDCG@10 \(--data DIR measures its run again\)"
    ):
        compare(base, [base], measures="R@10")


def test_several_datasets_are_summed_up_and_not_pooled(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    for label, by in (("near", 0.1), ("far", -0.3), ("farther", -0.1)):
        write_evaluation(base, label=label, nDCG10=BEFORE)
        write_evaluation(other, label=label, nDCG10=shifted(by))
    (found,) = compare(base, [other]).across
    assert (found.datasets, found.lower, found.worst_dataset) == (3, 2, "far")
    assert (found.mean, found.worst) == pytest.approx((-0.1, -0.3))
    assert [comparison.negative_flips for comparison in compare(base, [other]).comparisons] == [0.5, 0.5, 0.0]


def test_a_dataset_that_one_lacks_is_left_out_and_said(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    for root, labels in ((base, ("tiny", "far")), (other, ("tiny",))):
        for label in labels:
            write_evaluation(root, label=label, nDCG10=BEFORE)
    found = compare(base, [other])
    assert found.notes[0] == f"far: left out for {other}: it was not evaluated on it"
    assert only(found).dataset == "tiny"


@pytest.mark.parametrize(
    ("text", "measure", "offset"),
    [
        ("nDCG@10 < baseline - 0.01", "nDCG@10", -0.01),
        ("R@100<baseline", "R@100", 0.0),
        ("RR < baseline+.5", "RR", 0.5),
    ],
)
def test_bars(text: str, measure: str, offset: float) -> None:
    bar = parse_bar(text)
    assert (bar.measure, bar.offset) == (measure, offset)


@pytest.mark.parametrize(
    "text", ["", "nDCG@10", "nDCG@10 > baseline", "nDCG@10 < 0.5", "nDCG@10 < baseline - x", "a b"]
)
def test_bad_bars_are_answered_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"expected MEASURE < baseline - NUMBER, as in 'nDCG@10 < baseline - 0.01'"):
        parse_bar(text)


def test_the_verb(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    base = write_evaluation(tmp_path / "base", nDCG10=BEFORE)
    worse = write_evaluation(tmp_path / "worse", nDCG10=shifted(-0.02))
    done = run_cli("compare", base, worse)
    assert done.exit_code == 0, done.stderr
    table, changes = done.stdout.split("\n\n")
    assert table.splitlines()[1].split("\t")[:6] == ["dataset", "measure", "run", "queries", "baseline", "value"]
    assert len(changes.splitlines()) == 6
    missed = run_cli("compare", base, worse, "--fail-if", "nDCG@10 < baseline - 0.01", "--json")
    assert missed.exit_code == 1
    assert missed.stderr.splitlines()[-1] == (
        f"missed: tiny: nDCG@10 of {worse} is 0.4800, below 0.4900 (the baseline's 0.5000 - 0.01)"
    )
    assert json.loads(missed.stdout)["comparisons"][0]["losses"] == 4
    assert run_cli("compare", base, worse, "--fail-if", "nDCG@10 < baseline - 0.02").exit_code == 0
    unknown = run_cli("compare", base, worse, "--fail-if", "nDCG@5 < baseline")
    assert unknown.exit_code == 2
    assert "on tiny, unknown measure 'nDCG@5': did you mean 'nDCG@10'?" in unknown.stderr


def test_verbs_without_a_model_import_no_torch(tmp_path: Path, tiny_dataset: Path) -> None:
    base = str(write_evaluation(tmp_path / "base", nDCG10=BEFORE))
    run = str(write_trec(tmp_path / "a.run", {"q0": {"d0": 1.0}}))
    data = str(tiny_dataset)
    for arguments, code in (
        (["compare", base, base], 0),
        (["eval", "--run", run, "--data", data], 0),
        (["eval", "m/m", "--data", data, "--measures", "x"], 2),
    ):
        program = (
            "import sys; from embedtune_cli.app import run; "
            f"assert run({arguments!r}) == {code}; assert 'torch' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_results_that_were_retrieved_in_another_way_are_said_to_differ(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    for tokens in (4, 64):
        options = ["--max-length", tokens, "--output", tmp_path / str(tokens)]
        assert run_cli("eval", tiny_model, "--data", tiny_dataset, *options).exit_code == 0
    compared = run_cli("compare", tmp_path / "4", tmp_path / "64")
    assert compared.exit_code == 0
    assert "tiny: DIFFERENT SETTINGS: max_length is 4 and 64, which changes the values by itself" in compared.stderr


def test_its_tables_fit_a_terminal_of_80_columns(
    tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    after = {query_id: min(1.0, value + 0.25) for query_id, value in BEFORE.items()}
    one, two = (write_evaluation(tmp_path / name, nDCG10=v) for name, v in (("one", BEFORE), ("two", after)))
    shown = re.sub("\x1b\\[[0-9;]*m", "", run_cli("compare", one, two).stdout)  # without colours
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"tiny +nDCG@10 +4 +\.\d{3} +[.1]\d* +\+\.\d{3}\u00a0\[\S+,\u00a0\+\.\d{3}\] +\.\d{3}", shown)
