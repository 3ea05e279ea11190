"""`embedtune doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from embedtune_cli import doctor

RunCli = Callable[..., Any]


def test_it_lists_versions_devices_and_the_precision() -> None:
    examination = doctor.examine()
    assert examination.errors == []
    assert examination.versions["torch"] == version("torch")
    assert examination.devices[-1].startswith("cpu")
    assert examination.precision in ("fp32", "bf16", "fp16")


def test_a_version_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    here = doctor._version_of
    versions = {"sentence-transformers": "5.1.0", "peft": None}
    monkeypatch.setattr(doctor, "_version_of", lambda name: versions.get(name, here(name)))
    examination = doctor.Examination(versions={}, cache=Path())
    doctor.examine_packages(examination)
    wanted = "'sentence-transformers<7,>=6.2'"
    assert f"sentence-transformers 5.1.0 is outside {wanted.strip(chr(39))}: pip install {wanted}" in examination.errors
    assert any(error.startswith("peft is not installed: pip install 'peft") for error in examination.errors)


def test_a_torchvision_that_cannot_be_imported_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(doctor, "import_module", broken)
    examination = doctor.Examination(versions={"torch": "2.13.0", "torchvision": "0.28.0"}, cache=Path())
    doctor.examine_vision(examination)
    assert examination.warnings == [
        "torchvision 0.28.0 cannot be imported beside torch 2.13.0 (operator torchvision::nms does not exist): "
        "install the build made for this torch, or uninstall it"
    ]


def test_a_cache_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    examination = doctor.Examination(versions={}, cache=tmp_path / "file" / "cache")
    doctor.examine_cache(examination)
    assert examination.errors == [f"{tmp_path}/file/cache: cannot be written; set EMBEDTUNE_CACHE to a folder that can"]


def test_clean_removes_only_what_embedtune_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    ours = [tmp_path / "embeddings" / ("a" * 32), tmp_path / "models" / f".{'b' * 32}.xyz"]
    theirs = [tmp_path / "embeddings" / "notes", tmp_path / "photos" / "2024"]
    for folder in (*ours, *theirs):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 100)
    assert doctor.clean_cache() == 200
    assert [folder.exists() for folder in (*ours, *theirs)] == [False, False, True, True]


def test_the_verb_prints_the_examination_and_exits_1_on_an_error(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    examination = doctor.Examination(
        versions={"torch": "2.13.0", "peft": None}, cache=Path("cache"), errors=["peft is missing"]
    )
    monkeypatch.setattr(doctor, "examine", lambda: examination)
    result = run_cli("doctor")
    assert "torch\t2.13.0\npeft\tnot installed\n" in result.stdout
    assert "ERROR\tpeft is missing" in result.stdout
    assert (result.exit_code, result.stderr) == (1, "missed: 1 error to fix, listed above\n")
    assert json.loads(run_cli("doctor", "--json").stdout)["errors"] == ["peft is missing"]


def test_clean_prints_the_bytes_freed(run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    entry = tmp_path / "embeddings" / ("0" * 32)
    entry.mkdir(parents=True)
    (entry / "embeddings.npy").write_bytes(b"x" * 1024**2)
    result = run_cli("doctor", "--clean")
    assert (result.exit_code, result.stderr) == (0, "freed 1.0 MB\n")
    assert not entry.exists()
