"""Mining in a process of its own, to be killed; not in a test module, for the process finds it by its name."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtune.recipe import Negatives, Recipe

CONTEXT = multiprocessing.get_context("forkserver")
BLOCK = 6  # queries


def start(work: Any, *arguments: Any) -> int:
    """Runs one of the functions below in its process; its exit code, -9 where it was killed."""
    CONTEXT.set_forkserver_preload(["embedtune.train.run", "sentence_transformers"])
    environment = {key: os.environ[key] for key in ("EMBEDTUNE_CACHE", "HF_HUB_OFFLINE", "PAIRS") if key in os.environ}
    process = CONTEXT.Process(target=work, args=(*arguments, environment))
    process.start()
    process.join()
    return int(process.exitcode or 0)


def _prepare(asked: Path, kill_at: int | None, every: float, environment: dict[str, str]) -> None:
    """Writes down each query that a cross-encoder scores; kills this process as the teacher is asked for number
    `kill_at`. every: seconds between two places to go on from."""
    os.environ.update(environment)
    import torch

    from embedtune.models import scorers
    from embedtune.negatives import candidates, resumable

    torch.set_num_threads(1)
    candidates.BLOCK, resumable.EVERY = BLOCK, every
    scorers.PAIRS = int(environment.get("PAIRS", "1"))  # 1: each query is scored by itself
    real, calls = scorers.CrossEncoderScores.score, iter(range(10**6))

    def counted(self: scorers.CrossEncoderScores, pairs: Mapping[str, Sequence[str]]) -> Any:
        if next(calls) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with asked.open("a") as file:
            file.writelines(f"{query_id}\n" for query_id in pairs)
        return real(self, pairs)

    scorers.CrossEncoderScores.score = counted  # type: ignore[method-assign]


def mine(
    data: Path,
    model: Path,
    negatives: Negatives,
    output: Path,
    asked: Path,
    kill_at: int | None,
    every: float,
    environment: dict[str, str],
) -> None:
    _prepare(asked, kill_at, every, environment)
    from embedtune.data.dataset import load_dataset
    from embedtune.models.encoder import load_encoder
    from embedtune.negatives.candidates import MiningJob
    from embedtune.negatives.mine import mine as run_job

    run_job(
        MiningJob(dataset=load_dataset(data, "train"), encoder=load_encoder(str(model)), negatives=negatives), output
    )


def train(
    recipe: Recipe, output: Path, asked: Path, kill_at: int | None, every: float, environment: dict[str, str]
) -> None:
    _prepare(asked, kill_at, every, environment)
    from embedtune.train import run

    run.train(recipe, output, resume=True)
