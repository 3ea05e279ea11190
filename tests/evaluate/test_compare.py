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
from embedtune.evaluate.compare import Compared, compare, misses, parse_bar
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
    with pytest.raises(InputError, match=r"half\.run: a run's file is measured by judgements; name them with --data"):
        compare(half, [perfect])
    with pytest.raises(InputError, match=r"folder: unknown dataset 'tiny-train': did you mean 'tiny'\?"):
        compare(tmp_path / "folder", [perfect], data=[f"{tiny_dataset}:train"])


@pytest.fixture
def two_datasets(tmp_path: Path) -> list[Path]:
    """Two datasets of the same documents. The second one's queries have ids of their own."""
    first, second = write_dataset(tmp_path / "first"), write_dataset(tmp_path / "second")
    for file in (second / "queries.jsonl", second / "qrels" / "test.tsv", second / "qrels" / "train.tsv"):
        file.write_text(re.sub(r'(?m)(^|")q(?=[0-9])', r"\1s", file.read_text()))
    return [first, second]


def write_runs(folder: Path, datasets: list[Path], *, right: str, suffix: str = ".run") -> Path:
    """A folder with a run of each dataset: the relevant document first on the dataset `right`, another elsewhere."""
    folder.mkdir()
    for dataset in datasets:
        judged = load_dataset(dataset).qrels
        run = {q: {next(iter(positives)) if dataset.name == right else "d59": 1.0} for q, positives in judged.items()}
        write_trec(folder / f"{dataset.name}{suffix}", run)
    return folder


def test_a_folder_holds_a_run_for_each_dataset(tmp_path: Path, two_datasets: list[Path]) -> None:
    data = [str(path) for path in two_datasets]
    one = write_runs(tmp_path / "one", two_datasets, right="first")
    two = write_runs(tmp_path / "two", two_datasets, right="second", suffix=".trec")
    compared = compare(one, [two], measures="RR@10", data=data)
    assert [(c.dataset, c.baseline, c.value) for c in compared.comparisons] == [("first", 1, 0), ("second", 0, 1)]
    assert compared.across[0].datasets == 2
    (two / "First_predictions.json").write_text("{}")
    with pytest.raises(InputError, match=r"two: several runs of first: First_predictions\.json, first\.trec; keep one"):
        compare(one, [two], data=data)
    (one / "second.run").unlink()
    with pytest.raises(InputError, match=r"one: no run of second; expected second\.run beside the others"):
        compare(one, [two], data=data)


def test_one_run_of_several_datasets_is_divided_by_its_queries(
    tmp_path: Path, two_datasets: list[Path], run_cli: Callable[..., Any]
) -> None:
    flags = [flag for path in two_datasets for flag in ("--data", path)]
    files = []
    for right in ("first", "second"):
        folder = write_runs(tmp_path / right[0], two_datasets, right=right)
        files.append(tmp_path / f"{right}.run")
        files[-1].write_text("".join(path.read_text() for path in sorted(folder.iterdir())))
    done = run_cli("compare", *files, *flags, "--measures", "RR@10", "--fail-if", "first: RR@10 < 0.5", "--json")
    rows = json.loads(done.stdout)["comparisons"]
    assert [(row["dataset"], row["queries"], row["baseline"], row["value"]) for row in rows] == [
        ("first", 10, 1, 0), ("second", 10, 0, 1)
    ]  # fmt: skip
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == f"missed: first: RR@10 of {files[1]} is 0.0000, below 0.5000"
    shared = [str(two_datasets[0]), str(write_dataset(tmp_path / "third"))]
    with pytest.raises(
        InputError, match=r"query 'q0' is judged in first and in third, .* each: first\.run, third\.run"
    ):
        compare(files[0], files[1:], data=shared)
    files[1].write_text(files[1].read_text() + "x9 Q0 d1 1 1.0 made\n")
    with pytest.raises(InputError, match=r"second\.run: query 'x9' is in none of first, second"):
        compare(files[0], files[1:], data=[str(path) for path in two_datasets])


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
    ("text", "where", "measure", "number", "of_baseline"),
    [
        ("nDCG@10 < baseline - 0.01", None, "nDCG@10", -0.01, True),
        ("R@100<baseline", None, "R@100", 0.0, True),
        ("RR < baseline+.5", None, "RR", 0.5, True),
        ("nDCG@10 < 0.6", None, "nDCG@10", 0.6, False),
        ("in_domain: nDCG@10 < baseline + 2e-2", "in_domain", "nDCG@10", 0.02, True),
        (" my set:v2 :ndcg@10<1 ", "my set:v2", "nDCG@10", 1.0, False),
    ],
)
def test_bars(text: str, where: str | None, measure: str, number: float, of_baseline: bool) -> None:
    bar = parse_bar(text)
    assert (bar.where, bar.measure, bar.number, bar.of_baseline) == (where, measure, number, of_baseline)


@pytest.mark.parametrize(
    "text",
    ["", "nDCG@10", "nDCG@10 > baseline", "nDCG@10 < baseline - x", "a b", ": nDCG@10 < 0.6", "a: nDCG@10", "RR < 0,5"],
)
def test_bad_bars_are_answered_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"expected MEASURE < NUMBER or .*, as in 'nDCG@10 < baseline - 0.01', 'scif"):
        parse_bar(text)


@pytest.mark.parametrize("bound", ["60", "baseline - 2", "baseline - 1", "baseline + 1e400"])
def test_bars_in_percent_points_are_refused(bound: str) -> None:
    with pytest.raises(InputError, match=r"is too large: measures are from 0 to 1, as in 0\.01"):
        parse_bar(f"nDCG@10 < {bound}")


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A model's results, and a finished run: .1 better in domain (near), .1 worse out of domain (far, farther)."""
    base, run = tmp_path / "base", tmp_path / "run"
    for label, by in (("near", 0.1), ("far", -0.1), ("farther", -0.1)):
        write_evaluation(base, label=label, nDCG10=BEFORE)
        write_evaluation(run / "evaluation", label=label, nDCG10=shifted(by))
    evaluate = {"in_domain": ["data/near"], "out_of_domain": ["data/far", "data/farther"]}
    (run / "recipe.yaml").write_text(yaml.safe_dump({"version": 1, "train": {"seed": 0}, "evaluate": evaluate}))
    (run / "summary.json").write_text(json.dumps({"tuned": {"near": {}, "far": {}, "farther": {}}}))
    return base, run


@pytest.mark.parametrize(
    ("bar", "missed"),
    [
        ("in_domain: nDCG@10 < baseline + 0.05", []),
        ("in_domain: nDCG@10 < baseline + 0.2", ["near: 0.6000, below 0.7000 (the baseline's 0.5000 + 0.2)"]),
        ("near: nDCG@10 < baseline", []),
        ("NEAR: nDCG@10 < 0.61", ["near: 0.6000, below 0.6100"]),
        ("far: nDCG@10 < 0.4000003", ["far: 0.4000000, below 0.4000003"]),
        ("out_of_domain: nDCG@10 < 0.4", []),
        ("out-of-domain: nDCG@10 < 0.5", ["far: 0.4000, below 0.5000", "farther: 0.4000, below 0.5000"]),
        ("nDCG@10 < 0.5", ["far: 0.4000, below 0.5000", "farther: 0.4000, below 0.5000"]),
    ],
)
def test_a_bar_holds_for_its_dataset_or_group(bar: str, missed: list[str], two_runs: tuple[Path, Path]) -> None:
    base, run = two_runs
    said = misses(parse_bar(bar), compare(base, [run]))
    assert [line.replace(f"nDCG@10 of {run} is ", "") for line in said] == missed


def test_a_group_is_that_of_the_run_or_else_of_the_baseline(two_runs: tuple[Path, Path]) -> None:
    base, run = two_runs
    bar = parse_bar("in_domain: nDCG@10 < 0.55")
    assert misses(bar, compare(run, [base])) == [f"near: nDCG@10 of {base} is 0.5000, below 0.5500"]
    assert misses(bar, compare(base, [run / "evaluation"])) == []
    with pytest.raises(
        InputError, match=r"a recipe says what is in_domain, and neither .*name a dataset instead \(far, "
    ):
        misses(bar, compare(base, [base]))


@pytest.mark.parametrize(
    ("bar", "message"),
    [
        ("fra: nDCG@10 < 0.6", "run was not compared on fra, but on far, farther"),
        ("far: nDCG@5 < 0.6", "on far, unknown measure 'nDCG@5': did you mean 'nDCG@10'?"),
        ("in_domain: nDCG@10 < 0.6", "run was not compared on near, but on far, farther"),  # the baseline lacks it
    ],
)
def test_a_bar_that_would_pass_unseen_is_refused(bar: str, message: str, two_runs: tuple[Path, Path]) -> None:
    base, run = two_runs
    shutil.rmtree(base / "near")
    with pytest.raises(InputError) as caught:
        misses(parse_bar(bar), compare(base, [run]))
    assert message in str(caught.value)


def test_a_group_without_a_dataset_is_refused(two_runs: tuple[Path, Path]) -> None:
    base, run = two_runs
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["evaluate"] = {"in_domain": ["data/near", "data/far", "data/farther"], "out_of_domain": []}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(InputError, match=r"the recipe of .*run names no dataset in evaluate\.out_of_domain"):
        misses(parse_bar("out_of_domain: nDCG@10 < 0.6"), compare(base, [run]))


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
