"""Training in a process of its own, to be killed; not in a test module, for the process finds it by its name."""

from __future__ import annotations

import os
from pathlib import Path

from embedtune.recipe import Recipe


def work(recipe: Recipe, output: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    import torch

    from embedtune.train.run import train

    torch.set_num_threads(1)
    train(recipe, output, resume=True)
