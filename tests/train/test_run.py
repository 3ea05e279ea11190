"""A whole run on a tiny model: what it writes, what it refuses, how it stops and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from embedtune.errors import InputError, Interrupted
from embedtune.models import adapters
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Recipe, check_recipe
from embedtune.train import checkpoint
from embedtune.train.run import TrainedRun, train
from embedtune.types import Item

ITEMS = [Item(id=str(i), text=text) for i, text in enumerate(["the old river", "bread is new 3", "winter"])]


def recipe_of(model: Path, folder_: Path, /, *, adapter: bool = True, **parts: Any) -> Recipe:
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "checkpoint_every": 2, **parts.pop("train", {})}
    block = {"name": str(model), "dropout": "model", **({"lora": {"rank": 4, "dropout": 0.1}} if adapter else {})}
    return check_recipe(
        {
            "version": 1,
            "model": block,
            "data": {"train": str(folder_), **parts.pop("data", {})},
            "train": settings,
            "evaluate": {"measures": ["nDCG@10"], **parts.pop("evaluate", {})},
            **parts,
        }
    )


def weights_of(run: TrainedRun | Path) -> dict[str, torch.Tensor]:
    return load_file((run if isinstance(run, Path) else run.folder) / "model" / "model.safetensors")


def assert_same_weights(found: TrainedRun | Path, expected: TrainedRun | Path) -> None:
    one, other = weights_of(found), weights_of(expected)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def steps_logged(run: Path) -> list[int]:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [event["step"] for event in events if event["event"] == "step"]


def test_a_run_folder_is_complete_and_self_contained(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    recipe = recipe_of(tiny_model, tiny_dataset, evaluate={"in_domain": [str(tiny_dataset)]})
    run = train(recipe, tmp_path / "run")
    names = {path.name for path in run.folder.iterdir() if not path.name.startswith(".")}
    assert names == {
        "recipe.yaml", "environment.json", "log.jsonl", "checkpoints", "model", "adapter", "evaluation",
        "evaluation-base", "evaluation-bm25", "summary.json",
    }  # fmt: skip
    losses = [json.loads(line).get("loss") for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert min(loss for loss in losses[2:] if loss is not None) < 0.7 * losses[0]  # it learns
    measured = json.loads((run.folder / "evaluation" / "tiny" / "measures.json").read_text())
    assert measured["measures"] == run.tuned["tiny"]
    saved = SentenceTransformer(str(run.model), device="cpu")
    ours = load_encoder(str(run.model)).encode(ITEMS, "query")
    np.testing.assert_allclose(saved.encode_query([item.text for item in ITEMS]), ours, atol=1e-6)
    with adapters.quiet():
        adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_model), str(run.folder / "adapter"))
    merged = weights_of(run)["encoder.layer.0.attention.self.query.weight"]
    unmerged = adapted.merge_and_unload().encoder.layer[0].attention.self.query.weight
    torch.testing.assert_close(merged, unmerged, atol=1e-6, rtol=0)
    assert not list(run.folder.rglob("*.bin")) + list(run.folder.rglob("*.pt"))  # nothing is pickled
    assert train(recipe, run.folder, resume=True).already_finished


def test_the_same_recipe_gives_the_same_weights(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, adapter=False, train={"max_steps": 3})
    first = train(recipe, tmp_path / "first")
    again = train(check_recipe(yaml.safe_load((first.folder / "recipe.yaml").read_text())), tmp_path / "again")
    assert_same_weights(again, first)
    other = train(
        recipe_of(tiny_model, tiny_dataset, adapter=False, train={"max_steps": 3, "seed": 1}), tmp_path / "other"
    )
    assert not torch.equal(*(weights_of(run)["encoder.layer.0.output.dense.weight"] for run in (first, other)))


def test_stopping_saves_and_resuming_ends_in_the_same_weights(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, train={"accumulate": 2, "epochs": 4})
    whole = train(recipe, tmp_path / "whole")

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(
        Interrupted,
        match=r"stopped at step 3 of \d+; the state is saved, go on with: embedtune train .*yaml --output",
    ):
        train(recipe, tmp_path / "stopped", on_event=interrupt)
    resumed = train(recipe, tmp_path / "stopped", resume=True)
    assert_same_weights(resumed, whole)
    assert steps_logged(resumed.folder) == list(range(1, whole.steps + 1))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, adapter=False, train={"epochs": 3})
    whole = train(recipe, tmp_path / "run")
    found = list(checkpoint.latest(whole.folder / "checkpoints"))
    assert len(found) == 2  # the last two are kept
    expected = weights_of(whole)
    (whole.folder / "summary.json").unlink()
    weights = found[0] / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    said: list[str] = []
    train(recipe, whole.folder, resume=True, on_event=lambda e: said.append(e.get("text", "")))
    assert any("is damaged" in text and "using the one before it" in text for text in said)
    assert steps_logged(whole.folder) == list(range(1, whole.steps + 1))  # no step is logged twice
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(whole).items())


def test_a_damaged_best_checkpoint_is_one_line(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    harmful = {"learning_rate": 0.5, "validate_every": 1, "max_steps": 3, "warmup": 0}
    recipe = recipe_of(tiny_model, tiny_dataset, adapter=False, data={"validation": 0.3}, train=harmful)
    run = train(recipe, tmp_path / "run")
    assert run.best_step == 0
    (run.folder / "summary.json").unlink()
    (run.folder / "checkpoints" / "step-000000" / "weights.safetensors").write_bytes(b"oops")
    with pytest.raises(InputError, match=r"the best checkpoint is damaged \(step-000000/weights.*start a new run$"):
        train(recipe, run.folder, resume=True)


def test_resuming_nothing_starts_afresh(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    run = train(recipe_of(tiny_model, tiny_dataset, train={"max_steps": 1}), tmp_path / "new", resume=True)
    assert run.steps == 1


def test_what_is_refused(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_model, tiny_dataset, train={"max_steps": 1})
    run = train(recipe, tmp_path / "run")
    with pytest.raises(InputError, match="exists already; go on with --resume, start again with --overwrite"):
        train(recipe, run.folder)
    changed = recipe_of(tiny_model, tiny_dataset, train={"max_steps": 1, "batch_size": 4})
    with pytest.raises(InputError, match=r"--resume with a changed recipe \(train\.batch_size: 8 -> 4\)"):
        train(changed, run.folder, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match="exists already and is no earlier result of this command"):
        train(recipe, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert train(recipe, run.folder, overwrite=True).steps == 1


def test_resuming_on_changed_data_is_refused(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    import shutil

    data = shutil.copytree(tiny_dataset, tmp_path / "data")
    recipe = recipe_of(tiny_model, data, train={"max_steps": 1})
    run = train(recipe, tmp_path / "run")
    (run.folder / "summary.json").unlink()
    with (data / "qrels" / "train.tsv").open("a") as file:
        file.write("q1\td40\t1\n")
    with pytest.raises(InputError, match="training data changed since the run was started"):
        train(recipe, run.folder, resume=True)


def test_two_runs_do_not_share_a_folder(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    from embedtune.files import locked

    with (
        locked(tmp_path / "run"),
        pytest.raises(InputError, match=rf"another run is writing here \(process {os.getpid()}\)"),
    ):
        train(recipe_of(tiny_model, tiny_dataset), tmp_path / "run")


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(
        tiny_model, tiny_dataset, adapter=False, train={"learning_rate": 1e30, "clip": None, "warmup": 0.0}
    )
    with pytest.raises(InputError, match=r"step \d+: the (loss|gradient) is (nan|inf)"):
        train(recipe, tmp_path / "run")


def test_validation_chooses_the_best_checkpoint_and_stops_early(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(
        tiny_model,
        tiny_dataset,
        adapter=False,
        data={"validation": {"share": 0.3, "documents": 40}},
        train={"epochs": 30, "batch_size": 4, "validate_every": 2, "early_stopping": {"patience": 2}},
    )
    run = train(recipe, tmp_path / "run")
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    validations = [event for event in events if event["event"] == "validation"]
    best = [event for event in validations if event["best"]][-1]
    assert best["value"] == max(event["value"] for event in validations)
    assert run.best_step == best["step"]
    assert run.steps == validations[-1]["step"] < 100  # early
    assert [event["best"] for event in validations[-2:]] == [False, False]
    expected = weights_of(run)
    (run.folder / "summary.json").unlink()  # as if killed while it was evaluated
    assert train(recipe, run.folder, resume=True).steps == run.steps
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(run).items())
    kept = checkpoint.load(run.folder / "checkpoints" / f"step-{run.best_step:06d}")[0]["weights"]
    torch.testing.assert_close(
        weights_of(run)["encoder.layer.0.output.dense.weight"],
        kept["0.model.encoder.layer.0.output.dense.weight"],
        atol=0,
        rtol=0,
    )


def test_given_negatives_are_trained_on(tiny_model: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    candidates = tmp_path / "given.run"
    queries = [line.split("\t")[0] for line in (tiny_dataset / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    rows = [f"{q} Q0 d{50 + i} {i + 1} {9 - i} given" for q in dict.fromkeys(queries) for i in range(3)]
    candidates.write_text("\n".join(rows) + "\n")
    negatives = {"mining": {"name": "run", "path": str(candidates)}, "sampling": {"name": "top", "count": 2}}
    run = train(recipe_of(tiny_model, tiny_dataset, negatives=negatives, train={"max_steps": 2}), tmp_path / "run")
    first = json.loads((run.folder / "log.jsonl").read_text().splitlines()[0])
    assert first["documents"] == 8 + 2  # the batch's positives, and d50 and d51 once although all queries have them
    bad = tmp_path / "bad.run"
    bad.write_text("q1 Q0 nowhere 1 1.0 x\n")
    with pytest.raises(InputError, match="1 unknown document ids, first 'nowhere'"):
        train(
            recipe_of(tiny_model, tiny_dataset, negatives={"mining": {"name": "run", "path": str(bad)}}), tmp_path / "b"
        )


def test_gradient_checkpointing_changes_nothing_but_memory(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    runs = []
    for wanted in (False, True):
        # fp32: in bf16 attention on a CPU is rounded otherwise, as it goes backward by torch's own kernel then
        recipe = recipe_of(tiny_model, tiny_dataset, train={"max_steps": 2, "precision": "fp32"})
        model = {**vars(recipe.model), "gradient_checkpointing": wanted, "dropout": "off"}
        runs.append(train(Recipe(**{**vars(recipe), "model": type(recipe.model)(**model)}), tmp_path / str(wanted)))
    for name, tensor in weights_of(runs[0]).items():
        torch.testing.assert_close(weights_of(runs[1])[name], tensor, atol=1e-6, rtol=0)


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    import resource

    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump({"version": 1, "model": {"name": str(tiny_model)}, "data": {"train": str(tiny_dataset)},
                        "train": {"batch_size": 8, "checkpoint_every": 1}})
    )  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        result = run_cli("train", tmp_path / "r.yaml", "--output", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 2
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []  # nothing half-written
    assert run_cli("train", tmp_path / "r.yaml", "--output", tmp_path / "run", "--resume").exit_code == 0


def test_several_processes_that_would_train_alone_are_refused(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="each would train alone"):
        train(recipe_of(tiny_model, tiny_dataset), tmp_path / "run")


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".step-000002.0a1b2c3d").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / ".step-000002.0a1b2c3d" / "a.safetensors")
    (tmp_path / "step-000001").mkdir()
    checkpoint.clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_the_command_line_says_what_it_does(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}}}\ntrain: {{batch_size: 8}}\n"
    )
    dry = run_cli("train", path, "--dry-run", "--output", tmp_path / "out")
    assert dry.exit_code == 0
    assert yaml.safe_load(dry.stdout)["train"]["batch_size"] == 8
    assert "20 queries with 24 positives, 60 documents" in dry.stderr
    assert not (tmp_path / "out").exists()
    done = run_cli("train", path, "--output", tmp_path / "out", "--set", f"evaluate.in_domain=[{tiny_dataset}]")
    assert done.exit_code == 0, done.stderr
    title, header, first, *_ = done.stdout.splitlines()
    assert title == "# Outcome"
    columns = ["dataset", "domain", "measure", "queries", "bm25", "untouched", "tuned", "difference", "low", "high"]
    assert header.split("\t") == [*columns, "p_holm", "verdict"]  # nothing is guarded, and no column is empty
    assert first.split("\t")[:4] == ["tiny", "in domain", "nDCG@10", "10"]
    assert "step 3/3" in done.stderr
    again = run_cli("train", path, "--output", tmp_path / "out")
    assert again.exit_code == 2
    assert again.stderr.strip().splitlines()[-1].startswith("error: ")


def test_a_read_only_output_is_one_line(
    tiny_model: Path, tiny_dataset: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    place = tmp_path / "read-only"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a read-only folder needs root")
    path = tmp_path / "r.yaml"
    path.write_text(
        f"version: 1\nmodel: {{name: {tiny_model}}}\ndata: {{train: {tiny_dataset}}}\ntrain: {{batch_size: 8}}\n"
    )
    try:
        result = run_cli("train", path, "--output", place / "run")
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"error: {place / 'run'}: cannot be written (Read-only file system); choose another --output"
    )
