"""Mining in one call, for tests that set few of a job's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedtune.models.encoder import Encoder
from embedtune.negatives.candidates import MiningJob
from embedtune.negatives.counts import MiningReport
from embedtune.negatives.mine import mine as run_job
from embedtune.recipe import Negatives
from embedtune.types import Dataset


def mine(dataset: Dataset, encoder: Encoder, negatives: Negatives, output: Path, **options: Any) -> MiningReport:
    return run_job(MiningJob(dataset=dataset, encoder=encoder, negatives=negatives, **options), output)
