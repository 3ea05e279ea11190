from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedtune.ship import doctor

RunCli = Callable[..., Any]


def test_doctor_says_what_is_here_and_misses_its_bar_where_something_is_wrong(
    run_cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doctor.Examination(
        versions={"torch": "2.13.0", "peft": None}, cache=Path("cache"), errors=["peft is missing"]
    )
    monkeypatch.setattr(doctor, "examine", lambda: found)
    result = run_cli("doctor")
    assert "torch\t2.13.0\npeft\tnot installed\n" in result.stdout
    assert "WRONG\tpeft is missing" in result.stdout
    assert (result.exit_code, result.stderr) == (1, "missed: 1 thing to put right, named above\n")
    assert json.loads(run_cli("doctor", "--json").stdout)["errors"] == ["peft is missing"]


def test_clean_says_what_it_freed(run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDTUNE_CACHE", str(tmp_path))
    entry = tmp_path / "embeddings" / ("0" * 32)
    entry.mkdir(parents=True)
    (entry / "embeddings.npy").write_bytes(b"x" * 1024**2)
    result = run_cli("doctor", "--clean")
    assert (result.exit_code, result.stderr) == (0, "freed 1.0 MB\n")
    assert not entry.exists()
