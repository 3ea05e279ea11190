"""Training in other processes. Not in a test module, because a process finds it by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from embedtune.recipe import Recipe


def work(recipe: Recipe, output: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    import torch

    from embedtune.train.run import train

    torch.set_num_threads(1)
    train(recipe, output, resume=True)


def launch(processes: int, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script, or `-m MODULE`, in several processes of one torchrun; fails where one of them does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
