"""The negatives that training draws from: mined once by one process, into files that all read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from .. import methods
from ..errors import InputError
from ..files import is_locked
from ..models.encoder import Encoder, Progress, load_encoder
from ..models.scorers import EncoderScores, other_encoder
from ..negatives.candidates import MiningJob, encode_for_mining
from ..negatives.counts import MiningReport
from ..negatives.evidence import Evidence, MiningFiles, read_evidence
from ..negatives.mine import for_sampling, mine
from ..recipe import CROSS_ENCODER, Recipe
from ..seeds import generator_for
from ..types import Dataset, Scores
from .replacing import Replacing
from .validation import held_out


class Teacher(Protocol):
    """Scores of a batch's pairs by another model. An encoder also has `same_role` (EncoderScores)."""

    def matrix(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> Tensor:
        """(Q, D), NaN where it has none."""


"""(query_ids, doc_ids) -> (Q, D) the teacher's scores, NaN where it gave none."""


@dataclass(frozen=True)
class Ranked:
    """One query's candidates in rank order, with their scores and the positive's, in the same units."""

    doc_ids: list[str]
    scores: Tensor  # (K,)
    positive_score: float = float("nan")


class Drawn(Protocol):
    """What training draws negatives from, and what it tells of the scores that they get: nothing, where scores change
    nothing, and then there is no state either."""

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]: ...

    def observe(self, scores: Scores, step: int) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        return None


class Mine(Protocol):
    """Mines with the weights as they are into a file of that name, or reads it. filters: the recipe's, as they have
    learned so far; progress: where training stands."""

    def __call__(self, name: str, filters: Sequence[Any] | None = None, progress: float = 0.0) -> Drawn: ...


class Negatives(Drawn):
    """Candidates by query, and the draw of an epoch."""

    def __init__(self, recipe: Recipe, candidates: dict[str, Ranked]) -> None:
        self._sample: Any = methods.bind("sampling", recipe.negatives.sampling.name, recipe.negatives.sampling.options)
        self._seed = recipe.train.seed
        self.candidates = candidates

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]:
        """The negatives of these queries in this epoch. A query without candidates has none."""
        drawn = {}
        for query_id in query_ids:
            ranked = self.candidates.get(query_id)
            if ranked is not None:
                generator = generator_for(self._seed, "negatives", epoch, query_id)
                chosen = self._sample(ranked.scores, ranked.positive_score, generator=generator)
                drawn[query_id] = [ranked.doc_ids[i] for i in chosen.tolist()]
        return drawn


def mined_once(
    job: MiningJob, files: MiningFiles, accelerator: Accelerator, *, on_progress: Progress | None = None
) -> MiningReport | None:
    """Mines into `files` unless they are complete: the main process mines, the others encode with it and wait.

    Returns the report in the process that mined. Complete files, as of a resumed run, are used as they are. Raises
    InputError in the processes that wait where the main process ends without writing them.
    """
    report = None
    if accelerator.is_main_process and not files.complete:
        report = mine(job, files.run, on_progress=on_progress)
    elif not files.complete:
        encode_for_mining(job, until=lambda: files.complete)
    while not files.complete:  # not a barrier: those time out, and mining may take hours
        # The main process holds the run folder for as long as it lives.
        if not is_locked(files.run.parents[1]) and not files.complete:
            raise InputError(f"{files.run}: the process that mines has ended without writing it; see its error")
        time.sleep(0.5)
    accelerator.wait_for_everyone()
    return report


def read_negatives(recipe: Recipe, files: MiningFiles) -> Drawn:
    """What the filters kept, as it was mined."""
    kept: dict[str, list[Evidence]] = {}
    for candidate in read_evidence(files.evidence):
        if candidate.keep:
            kept.setdefault(candidate.query_id, []).append(candidate)
    ranked = {query_id: Ranked([c.doc_id for c in found], *for_sampling(found)) for query_id, found in kept.items()}
    negatives = Negatives(recipe, ranked)
    return negatives if recipe.negatives.replace is None else Replacing(negatives, recipe.negatives.replace)


def teacher_of(recipe: Recipe, dataset: Dataset, encoder: Encoder, files: MiningFiles) -> Teacher | None:
    """The recipe's teacher for batches: every pair's score by an encoder, those of mined pairs by a cross-encoder."""
    name = recipe.negatives.teacher
    if name is None:
        return None
    if not name.startswith(CROSS_ENCODER):
        return EncoderScores(other_encoder(name, encoder), dataset)
    if not files.complete:
        raise InputError(
            f"negatives.teacher: {name} scores mined candidates only; give negatives.mining, or an encoder"
        )
    return OfMined(files)


class OfMined:
    """A teacher that has scored mined candidates and their queries' positives, and nothing else.

    Evidence that an older version wrote names each query's lowest positive only.
    """

    def __init__(self, files: MiningFiles) -> None:
        self._known: dict[str, dict[str, float]] = {}
        for candidate in read_evidence(files.evidence):
            if candidate.teacher is not None and candidate.positive_teacher is not None:
                first = {candidate.positive_id: candidate.positive_teacher}
                known = self._known.setdefault(candidate.query_id, first)
                known.update(candidate.positives_teacher)
                known[candidate.doc_id] = candidate.teacher

    def matrix(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> Tensor:
        rows = [[self._known.get(q, {}).get(d, float("nan")) for d in doc_ids] for q in query_ids]
        return torch.tensor(rows).view(len(query_ids), len(doc_ids))


def mine_recipe(
    recipe: Recipe, output: Path, *, draw: bool = False, on_progress: Progress | None = None, dataset: Dataset
) -> MiningReport:
    """Mines what training by the recipe would begin with: the same queries, the same model and precision."""
    return mine(dataclasses.replace(_job_of(recipe, dataset), draw=draw), output, on_progress=on_progress)


def encode_for_recipe(recipe: Recipe, dataset: Dataset) -> None:
    """Encodes what `mine_recipe` encodes, in a process beside it."""
    encode_for_mining(_job_of(recipe, dataset))


def _job_of(recipe: Recipe, dataset: Dataset) -> MiningJob:
    query_ids, _ = held_out(dataset, recipe.data.validation, recipe.train.seed)
    encoder = load_encoder(recipe.model, precision=recipe.train.precision, seed=recipe.train.seed)
    return MiningJob(
        dataset=dataset, encoder=encoder, negatives=recipe.negatives, query_ids=query_ids, seed=recipe.train.seed
    )
