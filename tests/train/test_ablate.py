"""Grids: what is refused before anything runs, convergence by hand, and a whole small ablation, stopped and resumed."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from embedtune.errors import InputError, Interrupted
from embedtune.report.ablation import convergence
from embedtune.report.learning import Curve, read_curve
from embedtune.train import ablate as module
from embedtune.train.ablate import How, ablate, load_grid, plan
from embedtune.train.preflight import preflight

GRID = "base: {train.max_steps: 4}\ncells:\n  plain: {}\n  fast: {train.learning_rate: 3e-3}\n"


def curve(*values: float) -> Curve:
    steps = list(range(10, 10 * len(values) + 1, 10))
    return Curve(measure="nDCG@10", steps=steps, seconds=[step / 2 for step in steps], values=list(values))


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, tiny_dataset: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", tiny_model, tiny_dataset)


def write_recipe(path: Path, tiny_model: Path, tiny_dataset: Path) -> Path:
    path.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\n"
        f"data: {{train: {tiny_dataset}, validation: 0.25}}\n"
        "train: {batch_size: 4, learning_rate: 1e-4, validate_every: 2}\n"
        f"evaluate: {{in_domain: [{tiny_dataset}], out_of_domain: ['{tiny_dataset}:train'], measures: [nDCG@10]}}\n"
    )
    return path


def grid_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return path


def test_area_and_arrival_by_hand() -> None:
    found = curve(0.2, 0.4, 0.8)
    # Trapezoids of height .3 and .6, each 10 steps wide, over 20 steps.
    assert found.area == pytest.approx(0.45)
    assert curve(0.7).area == 0.7
    assert found.reaches(0.4) == (20, 10.0)
    assert found.reaches(0.81) is None


def test_the_target_is_95_percent_of_the_best_gain_of_any_cell_with_that_seed() -> None:
    slow, quick = (
        {0: curve(0.5, 0.7, 0.96), 1: curve(0.5, 0.6, 0.7)},
        {0: curve(0.5, 0.98, 1.0), 1: curve(0.5, 0.9, 0.8)},
    )
    first, second = convergence({"slow": slow, "quick": quick})
    # Seed 0: .5 + .95 of .5 = .975. Seed 1: .5 + .95 of .4 = .88. `slow` comes to neither.
    assert (first.steps, first.seconds, first.reached, first.seeds) == (None, None, 0, 2)
    assert (second.steps, second.seconds, second.reached) == (20, 10.0, 2)
    assert (first.best, second.best) == pytest.approx((0.83, 0.95))


def test_steps_to_the_gain_are_counted_from_the_untouched_model() -> None:
    first, second = convergence({"a": {0: curve(0.8, 0.82, 0.9)}, "b": {0: curve(0.8, 0.895, 0.895)}})
    assert (first.steps, second.steps) == (30, 20)  # .8 + .95 of .1 = .895; 95% of .9 would be reached before any step


def test_where_no_cell_gains_none_reaches_the_gain() -> None:
    first, second = convergence({"a": {0: curve(0.8, 0.7, 0.75)}, "b": {0: curve(0.8, 0.8, 0.6)}})
    assert (first.steps, first.reached, second.steps, second.reached) == (None, 0, None, 0)


def test_a_log_is_read_as_a_curve(tmp_path: Path) -> None:
    of_step = {"event": "step", "loss": 1.0, "learning_rate": 0.1, "pairs_per_second": 2.0}
    events: list[dict[str, Any]] = [
        {**of_step, "step": 1, "seconds": 0.5},
        {**of_step, "step": 2, "seconds": 0.25},
        {"event": "validation", "step": 2, "measure": "RR", "value": 0.5, "best": True},
        {"event": "checkpoint", "step": 2},
        {**of_step, "step": 3, "seconds": 1.0},
        {"event": "validation", "step": 3, "measure": "RR", "value": 0.25, "best": False},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    expected = Curve(measure="RR", steps=[2, 3], seconds=[0.75, 1.75], values=[0.5, 0.25])
    assert read_curve(tmp_path) == expected
    with pytest.raises(InputError, match=r"log\.jsonl: no validation in it; set data\.validation"):
        read_curve(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plain: {}\n", r"expected a mapping with `cells`, as in \{base: "),
        ("cells: {a: {}, b: {}}\nbaes: {}\n", "unknown key 'baes': did you mean 'base'?"),
        ("cells: {a: {}}\n", "a grid needs two cells at least; the others are compared with the first"),
        ("cells: {a: [], b: 3}\n", "cell 'b': expected changes as key: value, as in train.epochs: 2, got 3"),
        ("cells: {a: {}, b: {train.seed: 1}}\n", "cell 'b' sets train.seed; --seeds says how many seeds"),
        ("cells: {a: {}, a/b: {}}\n", "cell 'a/b': its name becomes a folder; use letters, digits and"),
        ("cells: {a: {}, a: {}}\n", "key 'a' is given twice"),
    ],
)
def test_bad_grids_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_grid(grid_of(tmp_path, text))
    assert message.replace("\\", "") in str(caught.value)


def test_every_wrong_cell_is_reported_before_anything_runs(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
base: {train.max_steps: 4}
cells:
  plain: {}
  typo: {train.lerning_rate: 1}
  unmeasured: {evaluate.in_domain: [], evaluate.out_of_domain: []}
  blind: {data.validation: null, train.validate_every: null}
  absent: {data.train: nowhere/at-all}
  same: {train.max_steps: 4}
"""
    with pytest.raises(InputError) as caught:
        ablate(recipe, grid_of(tmp_path, text), tmp_path / "out")
    said = str(caught.value)
    assert "cell 'typo': " in said
    assert "did you mean 'learning_rate'?" in said
    assert "cell 'unmeasured': evaluate.in_domain, evaluate.out_of_domain: name a dataset" in said
    assert "cell 'blind': convergence is read from the validation curve: set data.validation (as 0.1)" in said
    assert "cell 'absent': nowhere/at-all: no such file or folder" in said
    assert "cell 'same': is the same recipe as cell 'plain'" in said
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="ablate runs in one process; start it without torchrun"):
        ablate(recipe, grid_of(tmp_path, GRID), tmp_path / "out")


def test_changes_are_those_of_set(recipe: Path, tmp_path: Path) -> None:
    text = "cells:\n  plain: {}\n  other: {weighting: [{name: hardness, alpha: 5}], model.prompts.query: 'é: '}\n"
    runs = plan(recipe, load_grid(grid_of(tmp_path, text)), tmp_path / "out", 2)
    assert [(run.cell, run.seed, run.recipe.train.seed) for run in runs] == [
        ("plain", 0, 0), ("plain", 1, 1), ("other", 0, 0), ("other", 1, 1)
    ]  # fmt: skip
    assert runs[3].folder == tmp_path / "out" / "other" / "seed-1"
    assert runs[3].recipe.weighting[0].options == {"alpha": 5}
    assert runs[3].recipe.model.prompts.query == "é: "


def test_a_folder_of_methods_that_the_command_names_is_known_to_every_cell(
    recipe: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    folder = tmp_path / "elsewhere"
    assert run_cli("methods", "new", "weighting", "nearness", "--output", folder).exit_code == 0
    grid = grid_of(tmp_path, "cells:\n  plain: {}\n  own: {weighting: [{name: nearness, strength: 2}]}\n")
    command = ["ablate", recipe, "--grid", grid, "--output", tmp_path / "out", "--dry-run"]
    assert "unknown weighting method 'nearness'" in run_cli(*command).stderr
    assert run_cli(*command, "--methods", folder).exit_code == 0
    runs = plan(recipe, load_grid(grid), tmp_path / "out", 2, methods=[folder])
    assert {run.cell: run.recipe.methods for run in runs} == {"plain": [str(folder)], "own": [str(folder)]}
    assert runs[3].recipe.weighting[0].options == {"strength": 2}


def test_a_whole_ablation_stopped_and_resumed(recipe: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    grid, output = grid_of(tmp_path, GRID), tmp_path / "out"
    begun: list[str] = []

    def stop_in_the_second_run(event: dict[str, Any]) -> None:
        if event["event"] == "phase" and event["name"].startswith("cell "):
            begun.append(event["name"])
        if event["event"] == "step" and event["step"] == 3 and len(begun) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(
        Interrupted, match=r"1 of 4 runs are finished, the state of the others is saved; the same command"
    ):
        ablate(recipe, grid, output, How(seeds=2), on_event=stop_in_the_second_run)
    assert begun == ["cell plain, seed 0 (1 of 4)", "cell plain, seed 1 (2 of 4)"]
    finished = (output / "plain" / "seed-0" / "summary.json").stat().st_mtime_ns

    found = ablate(recipe, grid, output, How(seeds=2))
    assert (output / "plain" / "seed-0" / "summary.json").stat().st_mtime_ns == finished
    log = [json.loads(line) for line in (output / "plain" / "seed-1" / "log.jsonl").read_text().splitlines()]
    assert [event["step"] for event in log if event["event"] == "step"] == [1, 2, 3, 4]
    assert [curve.steps for by_seed in found.curves.values() for curve in by_seed.values()] == [[0, 2, 4]] * 4
    rows = {(final.cell, final.domain): final for final in found.final}
    assert list(rows) == [(cell, domain) for domain in ("in", "out") for cell in ("(base model)", "plain", "fast")]
    plain, fast = rows["plain", "in"], rows["fast", "in"]
    summaries = [json.loads((output / "fast" / f"seed-{n}" / "summary.json").read_text()) for n in (0, 1)]
    by_seed = {n: summary["tuned"]["tiny"]["nDCG@10"] for n, summary in enumerate(summaries)}
    assert fast.by_seed == by_seed
    assert fast.mean == pytest.approx(sum(by_seed.values()) / 2)
    assert plain.against_first is None
    assert fast.against_first is not None
    assert fast.against_first.difference == pytest.approx(fast.mean - plain.mean)
    assert fast.against_first.queries == 10
    assert fast.against_first.seeds is not None
    assert rows["(base model)", "in"].mean == pytest.approx(summaries[0]["base"]["tiny"]["nDCG@10"])

    before = (output / "curves.svg").read_bytes()
    assert b"validation nDCG@10" in before
    assert ElementTree.fromstring(before).tag == "{http://www.w3.org/2000/svg}svg"
    report = (output / "report.md").read_text()
    assert '| fast | {"train.max_steps": 4, "train.learning_rate": 0.003} |' in report
    assert "![Learning curves. The mean over seeds" in report
    assert "](curves.svg)" in report
    again = run_cli("ablate", recipe, "--grid", grid, "--seeds", 2, "--output", output)
    assert again.exit_code == 0, again.stderr
    assert (output / "curves.svg").read_bytes() == before
    _, how_fast, final_table = again.stdout.split("\n\n")
    assert how_fast.splitlines()[1].split("\t")[1] == "best validation nDCG@10"
    assert len(final_table.splitlines()) == 8
    as_json = run_cli("ablate", recipe, "--grid", grid, "--seeds", 2, "--output", output, "--json")
    assert json.loads(as_json.stdout) == json.loads((output / "report.json").read_text())
    changed = run_cli("ablate", recipe, "--grid", grid_of(tmp_path, GRID.replace("4", "5")), "--output", output)
    assert changed.exit_code == 2
    assert "holds a run of another recipe; rename the cell, or remove that folder" in changed.stderr


def test_without_matplotlib_the_plot_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedtune.report import markdown
    from embedtune.report.ablation import Ablation, write_report

    monkeypatch.setattr(markdown, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name))
    empty = Ablation(recipe="r.yaml", cells={"plain": {}}, seeds=[0], measure="nDCG@10", primary="nDCG@10",
                     convergence=[], final=[],
                     curves={"plain": {0: curve(0.5)}}, notes=[])  # fmt: skip
    noted = write_report(empty, tmp_path)
    assert noted.notes == [
        "report.html and the plots are left out: they need matplotlib; try: pip install 'embedtune[plots]', and the "
        "same command again"
    ]
    assert "the plots are left out" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "curves.svg").exists()


@pytest.fixture(scope="module")
def finished(
    tiny_model: Path, tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """A small ablation's folder, and the events of its runs."""
    folder, events = tmp_path_factory.mktemp("ablation"), []  # type: ignore[var-annotated]
    recipe = write_recipe(folder / "recipe.yaml", tiny_model, tiny_dataset)
    ablate(recipe, grid_of(folder, GRID), folder / "out", How(seeds=2), on_event=events.append)
    return folder / "out", events


def test_finished_runs_keep_one_model_a_cell_and_no_checkpoint(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    output, _ = finished
    assert [path.relative_to(output).parts[:2] for path in sorted(output.glob("*/*/model"))] == [
        ("fast", "seed-0"),
        ("plain", "seed-0"),
    ]
    assert not list(output.rglob("checkpoints"))


def test_the_untouched_model_is_evaluated_once_and_stored_once(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    output, events = finished
    phases = [event["name"] for event in events if event["event"] == "phase"]
    assert phases.count("evaluate the base model on tiny") == 1
    assert phases.count("evaluate the tuned model on tiny") == 4
    runs = sorted(output.glob("*/seed-*"))
    for name in ("evaluation-base/tiny/run.trec", "evaluation-bm25/tiny/run.trec"):
        assert len({(run / name).stat().st_ino for run in runs}) == 1
    assert len({(run / "evaluation/tiny/run.trec").stat().st_ino for run in runs}) == 4


def test_seeds_hold_out_the_same_queries(recipe: Path, tmp_path: Path) -> None:
    from embedtune.data.dataset import load_dataset
    from embedtune.recipe import load_recipe
    from embedtune.train.validation import held_out

    grid = load_grid(grid_of(tmp_path, GRID))
    runs = [run.recipe for run in plan(recipe, grid, tmp_path / "out", 3)]
    assert {run.train.seed for run in runs} == {0, 1, 2}
    data = load_dataset(runs[0].data.train, "train")  # type: ignore[arg-type]
    assert len({tuple(held_out(data, run.data.validation, run.train.seed)[0]) for run in runs}) == 1
    own = load_recipe(recipe, ["data.validation={share: 0.25, seed: 5}"])
    other = load_recipe(recipe, ["data.validation={share: 0.25}"])
    assert held_out(data, own.data.validation, 1)[0] == held_out(data, other.data.validation, 5)[0]


def test_tables_and_figures_for_a_paper(finished: tuple[Path, list[dict[str, Any]]]) -> None:
    output, _ = finished
    report = json.loads((output / "report.json").read_text())
    with (output / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == [final["mean"] for final in report["final"]]
    latex = (output / "report.tex").read_text().splitlines()
    assert latex[2:5] == [r"\begin{tabular}{lrr}", r"\toprule", r"cell & tiny & tiny-train \\"]
    means = {(final["cell"], final["dataset"]): f"{final['mean']:.4f}" for final in report["final"]}
    best = max(mean for (_, dataset), mean in means.items() if dataset == "tiny")
    line = next(line for line in latex if line.startswith("plain & "))
    expected = means["plain", "tiny"]
    assert line.startswith(rf"plain & \textbf{{{expected}}}" if expected == best else f"plain & {expected}")
    page = (output / "report.html").read_text()
    assert "Difference to plain" in page
    assert "<script" not in page
    for name in ("curves", "differences"):
        assert (output / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert (output / f"{name}.svg").exists()


def test_names_in_latex_are_escaped() -> None:
    from embedtune.report.ablation import _latex

    assert _latex("my_run 50% & $x^2$ {a}~#\\") == (
        r"my\_run 50\% \& \$x\textasciicircum{}2\$ \{a\}\textasciitilde{}\#\textbackslash{}"
    )


def test_several_workers_train_the_same_weights(
    recipe: Path, tmp_path: Path, finished: tuple[Path, list[dict[str, Any]]]
) -> None:
    output, _ = finished
    ablate(recipe, grid_of(tmp_path, GRID), tmp_path / "parallel", How(seeds=2, workers=2, keep=True))
    for name in ("plain/seed-0/model/model.safetensors", "fast/seed-0/model/model.safetensors"):
        assert (tmp_path / "parallel" / name).read_bytes() == (output / name).read_bytes()
    assert len(list((tmp_path / "parallel").rglob("model.safetensors"))) == 4
    assert list((tmp_path / "parallel").rglob("checkpoints"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setpgrp"), reason="signals of POSIX")
def test_several_workers_stop_at_a_signal_save_and_go_on(recipe: Path, tmp_path: Path) -> None:
    import subprocess
    import sys
    import time

    grid, output = grid_of(tmp_path, GRID.replace("4", "400")), tmp_path / "out"
    command = [sys.executable, "-m", "embedtune_cli", "ablate", str(recipe), "--grid", str(grid), "--seeds", "1"]
    command += ["--output", str(output), "--workers", "2"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    logs = [output / name / "seed-0" / "log.jsonl" for name in ("plain", "fast")]
    while not all(log.exists() and '"step"' in log.read_text() for log in logs):
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    message = running.communicate(timeout=300)[1]
    assert running.returncode == 130, message
    assert "0 of 2 runs are finished, the state of the others is saved; the same command continues from here" in message
    assert all(list((log.parent / "checkpoints").glob("step-*")) for log in logs)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert all((log.parent / "summary.json").exists() for log in logs)


def test_a_primary_measure_alone_is_corrected_and_must_be_measured(
    recipe: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, output = grid_of(tmp_path, GRID), tmp_path / "out"
    flags = ["--grid", grid, "--seeds", 1, "--output", output, "--measures", "nDCG@10 R@5"]
    wrong = run_cli("ablate", recipe, *flags, "--primary", "P@3")
    assert wrong.exit_code == 2
    assert wrong.stderr == "error: --primary P@3: is not measured; the runs measure nDCG@10, R@5\n"
    looked: list[Path] = []
    monkeypatch.setattr(module, "preflight", lambda recipe, folder: looked.append(folder) or preflight(recipe, folder))
    planned = run_cli("ablate", recipe, *flags, "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert [folder.parent.name for folder in looked] == ["plain", "fast"]  # once a cell
    assert "2 runs, 0 of them finished; nothing was trained" in planned.stderr
    assert not output.exists()
    done = run_cli("ablate", recipe, *flags, "--primary", "recall@5", "--json")
    assert done.exit_code == 0, done.stderr
    tested = [final for final in json.loads(done.stdout)["final"] if final["against_first"]]
    assert {final["measure"]: final["against_first"]["holm"] is not None for final in tested} == {
        "nDCG@10": False,
        "R@5": True,
    }
