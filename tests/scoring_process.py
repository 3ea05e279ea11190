"""Mining with a cross-encoder in each process of a launch: python scoring_process.py FOLDER MODEL DATA CROSS_ENCODER.

The first process writes FOLDER/mined.run and what belongs to it; each writes the queries that it scored itself to
FOLDER/RANK.txt.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAIRS = 20


def main(folder: Path, model: str, data: str, cross: str) -> None:
    from embedtune import distributed
    from embedtune.data.dataset import load_dataset
    from embedtune.models import scorers
    from embedtune.models.encoder import load_encoder
    from embedtune.negatives.candidates import MiningJob, encode_for_mining
    from embedtune.negatives.mine import mine
    from embedtune.recipe import Chosen, Negatives

    scorers.PAIRS = PAIRS
    notes, whole = folder / f"{'first' if distributed.leads() else 'second'}.txt", scorers.CrossEncoderScores.score

    def noted(self: scorers.CrossEncoderScores, pairs: Mapping[str, Sequence[str]]) -> Any:
        with notes.open("a") as file:
            file.writelines(f"{query_id}\n" for query_id in pairs)
        time.sleep(0.3)  # so that nobody does all
        return whole(self, pairs)

    scorers.CrossEncoderScores.score = noted  # type: ignore[method-assign]
    negatives = Negatives(mining=[Chosen(name="dense", options={"depth": 7})], teacher=f"cross-encoder:{cross}")
    job = MiningJob(dataset=load_dataset(data, "train"), encoder=load_encoder(model), negatives=negatives)
    if distributed.leads():
        mine(job, folder / "mined.run")
    else:
        encode_for_mining(job)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
