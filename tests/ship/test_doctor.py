from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from embedtune.ship import doctor


def test_it_names_what_is_here() -> None:
    found = doctor.examine()
    assert found.errors == []
    assert found.versions["torch"] == version("torch")
    assert found.devices[-1].startswith("cpu")
    assert found.precision in ("fp32", "bf16", "fp16")


def test_a_version_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    here = doctor._version_of
    versions = {"sentence-transformers": "5.1.0", "peft": None}
    monkeypatch.setattr(doctor, "_version_of", lambda name: versions.get(name, here(name)))
    found = doctor.Examination(versions={})
    doctor._examine_packages(found)
    wanted = "'sentence-transformers<7,>=6.2'"
    assert f"sentence-transformers 5.1.0 does not fit {wanted.strip(chr(39))}: pip install {wanted}" in found.errors
    assert any(error.startswith("peft is not installed: pip install 'peft") for error in found.errors)


def test_a_torchvision_that_cannot_be_imported_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(doctor, "import_module", broken)
    found = doctor.Examination(versions={"torch": "2.13.0", "torchvision": "0.28.0"})
    doctor._examine_vision(found)
    assert found.warnings == [
        "torchvision 0.28.0 cannot be imported beside torch 2.13.0 (operator torchvision::nms does not exist): "
        "install the build made for this torch, or uninstall it"
    ]


def test_a_cache_that_is_no_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path / "file" / "cache"))
    found = doctor.Examination(versions={})
    doctor._examine_cache(found)
    assert found.errors == [f"{tmp_path}/file/cache: cannot be written; set EMBEDTUNE_CACHE to a folder that can"]


def test_clean_removes_only_what_embedtune_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    ours = [tmp_path / "embeddings" / ("a" * 32), tmp_path / "models" / f".{'b' * 32}.xyz"]
    theirs = [tmp_path / "embeddings" / "notes", tmp_path / "photos" / "2024"]
    for folder in (*ours, *theirs):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 100)
    assert doctor.clean() == 200
    assert [folder.exists() for folder in (*ours, *theirs)] == [False, False, True, True]
