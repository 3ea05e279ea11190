"""`pytest tests/gpu`: the checks of a machine with a GPU, each a test; `check.py` also measures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("check.py")
HAS_GPU = shutil.which("nvidia-smi") is not None


@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
@pytest.mark.parametrize(
    "name",
    [
        "embeddings", "attention", "flash_attention", "four_bit", "search", "training", "resuming",
        "memory_that_runs_out", "waiting",
    ],
)  # fmt: skip
def test_on_the_gpu(name: str) -> None:
    seen = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}  # other tests hide it
    command = [sys.executable, str(CHECK), "--checks-only", "--only", name]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=seen)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    if "skipped" in run.stdout:
        pytest.skip(run.stdout.strip().splitlines()[-1])


def test_the_checks_run_to_their_end_on_a_cpu() -> None:
    names = ["embeddings", "attention", "flash_attention", "memory_that_runs_out", "waiting"]
    run = subprocess.run(
        [sys.executable, str(CHECK), "--tiny", "--checks-only", "--only", *names],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    lines = {line.split()[0]: line.split()[1] for line in run.stdout.splitlines()[1:]}
    assert lines == {name: "skipped" if name == "flash_attention" else "passed" for name in names}
