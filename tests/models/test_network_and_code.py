"""Loading asks nobody: no network that was not named, no question on stdin, no code without the flag."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refusing_network
import tiny_models
import torch
from safetensors.torch import load_file

from embedtune.errors import InputError
from embedtune.models import adapters
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Lora, Model
from embedtune.types import Item

CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel

(Path(__file__).parent / "ran").touch()


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertModel):
    config_class = OwnConfig
"""
ITEMS = [Item(id="a", text="the old river"), Item(id="b", text="winter")]


def command(
    *arguments: object, environment: dict[str, str], stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        check=False,
    )


@pytest.fixture
def with_card(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose card names a base model on the hub."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "models" / "with-card"))
    (folder / "README.md").write_text("---\nbase_model: google-bert/bert-base-uncased\n---\n\n# A model\n")
    return folder


def test_verbs_connect_to_nothing_for_a_model_in_a_folder(
    with_card: Path, bare_checkpoint: Path, tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(with_card))
    adapters.attach(encoder.model, Lora(rank=2), str(with_card))
    adapters.save_adapter(encoder.model, tmp_path / "adapter")
    teacher = tiny_models.write_cross_encoder(tmp_path / "teacher", bare_checkpoint)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"version: 1\nmodel: {{name: models/with-card}}\ndata: {{train: {tiny_dataset}}}\n"
        f"negatives: {{mining: [{{name: dense, depth: 5}}], teacher: 'cross-encoder:{teacher}'}}\n"
        f"train: {{max_steps: 1, batch_size: 4}}\nevaluate: {{in_domain: [{tiny_dataset}]}}\n"
    )
    lines = [
        ["train", recipe, "--output", tmp_path / "run"],
        ["mine", recipe, "--output", tmp_path / "mined.run"],
        ["encode", tiny_dataset, "--model", with_card, "--output", tmp_path / "encoded"],
        ["eval", with_card, "--data", tiny_dataset, "--output", tmp_path / "evaluated"],
        ["index", tiny_dataset, "--model", with_card, "--output", tmp_path / "index"],
        ["search", tmp_path / "index", "the old river"],
        ["merge", with_card, with_card, "--alpha", "0.5", "--output", tmp_path / "merged"],
        ["export", tmp_path / "adapter", "--output", tmp_path / "exported"],
    ]
    notes = tmp_path / "notes"
    # a relative path may have the form of a name on the hub
    lines = [["models/with-card" if part == with_card else part for part in line] for line in lines]
    arguments = [argument for line in lines for argument in ["--", *line]][1:]
    environment = {"HF_HOME": str(tmp_path / "hub"), "EMBEDTUNE_CACHE": str(tmp_path / "cache")}
    monkeypatch.chdir(tmp_path)
    done = command(refusing_network.__file__, notes, *arguments, environment=environment)
    assert done.returncode == 0, done.stderr
    assert not notes.exists(), notes.read_text()


def test_a_name_on_the_hub_is_one_line_without_a_network(tmp_path: Path, tiny_dataset: Path) -> None:
    environment = {"HF_HOME": str(tmp_path / "hub")}
    line = ["encode", tiny_dataset, "--model", "no-one/nothing", "--output", tmp_path / "encoded"]
    done = command(refusing_network.__file__, tmp_path / "notes", *line, environment=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "model no-one/nothing: not a folder here, and cannot be loaded from the hub" in done.stderr
    assert (tmp_path / "notes").exists()  # it was tried


def test_a_model_in_the_hubs_cache_is_read_as_a_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, revision = tmp_path / "models--someone--something", "0" * 40
    shutil.copytree(tiny_model, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    expected = load_encoder(str(tiny_model)).encode(ITEMS, "query")
    np.testing.assert_array_equal(load_encoder("someone/something").encode(ITEMS, "query"), expected)
    np.testing.assert_array_equal(load_encoder(f"someone/something@{revision}").encode(ITEMS, "query"), expected)


def test_of_a_hub_model_the_weights_of_each_module_are_downloaded_in_one_form(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its root has both forms of weights, its Dense the old one."""
    from huggingface_hub.utils import filter_repo_objects
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.insert(2, Dense(32, 8))
    model.save_pretrained(str(tmp_path / "hub"))
    dense = load_file(tmp_path / "hub/2_Dense/model.safetensors")
    torch.save(dense, tmp_path / "hub/2_Dense/pytorch_model.bin")
    (tmp_path / "hub/2_Dense/model.safetensors").unlink()
    for name in ("pytorch_model.bin", "onnx/model.onnx", "checkpoint-5/model.safetensors"):
        (tmp_path / "hub" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "hub" / name).write_text("not to be read")
    names = [str(file.relative_to(tmp_path / "hub")) for file in (tmp_path / "hub").rglob("*") if file.is_file()]
    asked = []

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"]))
        patterns = {key: options.get(key) for key in ("allow_patterns", "ignore_patterns")}
        for name in filter_repo_objects(names, **patterns):
            target = tmp_path / "snapshot" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tmp_path / "hub" / name, target)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    encoder = load_encoder("something@v2")
    assert asked == [("sentence-transformers/something", "v2")] * 2
    downloaded = {str(file.relative_to(tmp_path / "snapshot")) for file in (tmp_path / "snapshot").rglob("*.*")}
    assert downloaded & {"pytorch_model.bin", "onnx/model.onnx", "checkpoint-5/model.safetensors"} == set()
    assert "2_Dense/pytorch_model.bin" in downloaded
    np.testing.assert_allclose(encoder.encode(ITEMS, "query"), model.encode_query([i.text for i in ITEMS]), atol=1e-6)


def with_code(source: Path, folder: Path) -> Path:
    """A model whose folder brings the class of its transformer; that code leaves a file where it runs."""
    shutil.copytree(source, folder)
    (folder / "own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": code}))
    return folder


LOAD = """
import json, os, sys
from pathlib import Path
from embedtune.errors import InputError
from embedtune.models.encoder import load_encoder
from embedtune.recipe import Model
for trust in (False, True):
    for name, pooling in ((sys.argv[1], "mean"), (sys.argv[2], None)):
        try:
            load_encoder(Model(name=name, pooling=pooling, trust_remote_code=trust))
            outcome = "loaded"
        except InputError as error:
            outcome = str(error)
        print(json.dumps([trust, outcome, len(list(Path(os.environ["HF_HOME"]).rglob("ran")))]))
"""


def test_a_models_own_code_runs_by_the_flag_alone(tiny_model: Path, bare_checkpoint: Path, tmp_path: Path) -> None:
    bare = with_code(bare_checkpoint, tmp_path / "bare")
    whole = with_code(tiny_model, tmp_path / "whole")
    done = command("-c", LOAD, bare, whole, environment={"HF_HOME": str(tmp_path / "hub")}, stdin="y\n" * 9)
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    refusal = "has code of its own; run it with --trust-remote-code, or model.trust_remote_code in a recipe"
    assert outcomes[:2] == [[False, f"model {folder}: {refusal}", 0] for folder in (bare, whole)]
    assert [outcome[:2] for outcome in outcomes[2:]] == [[True, "loaded"]] * 2
    assert outcomes[3][2] == 2


def test_a_module_class_of_the_folder_runs_by_the_flag_alone(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    (folder / "own.py").write_text("raise RuntimeError('it ran')")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "own.Normalize"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError) as raised:
        load_encoder(Model(name=str(folder)))
    assert "it ran" not in str(raised.value)
    assert "\n" not in str(raised.value)
