"""The negatives that training draws from: mined once by one process, into files that all read."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .. import distributed, methods
from ..data.dataset import load_training
from ..data.passages import is_split
from ..errors import InputError
from ..models.encoder import Encoder, Progress, load_encoder
from ..models.scorers import EncoderScores, other_encoder
from ..negatives.candidates import MiningJob, encode_for_mining
from ..negatives.counts import MiningReport
from ..negatives.evidence import Evidence, MiningFiles, read_evidence
from ..negatives.mine import for_sampling, mine
from ..negatives.passages import in_passages, passage_by_document
from ..recipe import CROSS_ENCODER, Recipe, Replace
from ..seeds import generator_for
from ..types import Dataset, Scores
from .log import Log
from .objective import Teacher
from .sizes import training_queries

NONE = -1


@dataclass(frozen=True)
class Ranked:
    """One query's candidates in rank order, with their scores and the positive's, in the same units."""

    doc_ids: list[str]
    scores: Tensor  # (K,)
    positive_score: float = float("nan")


class NegativeSource(Protocol):
    """What training draws negatives from. A source that changes with the scores observes them and has a state.

    known_ahead: whether a batch's negatives depend on its epoch alone, and not on the steps before it.
    """

    known_ahead: bool = False

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]: ...

    def observe(self, scores: Scores, step: int) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        return None


class MinedNegatives(NegativeSource):
    """Candidates by query, from which the recipe's sampling draws every epoch."""

    known_ahead = True

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


class ReplacedNegatives(NegativeSource):
    """Negatives that give way to later candidates as they become easy (Conan, arXiv 2408.15710, second-hand).

    A negative keeps the score that it has when it is first trained on. Each later look compares: one that has become
    easy gives way to a candidate further down the query's list, which stays as it was mined. The i-th time that a
    query's negatives are replaced, negative k of n gives way to candidate start + (i - 1) n + k. Where that candidate
    does not exist, or is in use, the negative stays. All of this is state, saved with the checkpoint.
    """

    def __init__(self, mined: MinedNegatives, rule: Replace) -> None:
        self._mined, self._rule = mined, rule
        self._rows = {query_id: row for row, query_id in enumerate(mined.candidates)}
        count = len(self._rows)
        self.ranks = torch.full((count, 0), NONE)  # (T, n) ranks of the candidates in use
        self.initial = torch.full((count, 0), torch.nan)  # (T, n) their first scores
        self.times = torch.zeros(count, dtype=torch.int64)  # how often a query's negatives were replaced
        self.looked = torch.full((count,), NONE)  # the step of the last look

    def draw(self, query_ids: Sequence[str], epoch: int) -> dict[str, list[str]]:
        """The negatives in use, the same in every epoch until one is replaced."""
        drawn = {}
        for query_id in query_ids:
            if query_id in self._rows:
                row, candidates = self._row(query_id), self._mined.candidates[query_id].doc_ids
                drawn[query_id] = [candidates[rank] for rank in self.ranks[row].tolist() if rank != NONE]
        return drawn

    def observe(self, scores: Scores, step: int) -> dict[str, float]:
        """Looks at the negatives of the batch's queries, by the scores that the batch gave them."""
        columns = {doc_id: column for column, doc_id in enumerate(scores.doc_ids) if doc_id}
        student = scores.student.detach().float().cpu()
        replaced = 0
        for index, query_id in enumerate(scores.query_ids):
            if query_id in self._rows and query_id not in scores.query_ids[:index]:
                replaced += self._look(query_id, student[index], columns, step)
        return {"replaced": float(replaced)}

    def _look(self, query_id: str, scores: Tensor, columns: Mapping[str, int], step: int) -> int:
        row, candidates = self._row(query_id), self._mined.candidates[query_id].doc_ids
        ranks = self.ranks[row].tolist()
        in_batch = [columns.get(candidates[rank]) if rank != NONE else None for rank in ranks]
        now = torch.tensor([scores[column] if column is not None else torch.nan for column in in_batch])
        fresh = self.initial[row].isnan() & ~now.isnan()
        self.initial[row, fresh] = now[fresh]
        last, rule = int(self.looked[row]), self._rule
        if last != NONE and step - last < rule.every:
            return 0
        self.looked[row] = step
        easy = became_easy(self.initial[row], now, factor=rule.fallen, below=rule.below, easy=rule.easy)
        if last == NONE or not bool(easy.any()):
            return 0
        first, replaced = rule.start + int(self.times[row]) * len(ranks), 0
        for k in easy.nonzero().flatten().tolist():
            if first + k < len(candidates) and first + k not in ranks:
                ranks[k], replaced = first + k, replaced + 1
                self.initial[row, k] = torch.nan
        self.ranks[row] = torch.tensor(ranks)
        self.times[row] += replaced > 0
        return replaced

    def _row(self, query_id: str) -> int:
        """The query's row, filled by the sampling where the query is drawn for the first time."""
        row, width = self._rows[query_id], self.ranks.shape[1]
        if width and (self.ranks[row] != NONE).any():
            return row
        chosen = self._mined.draw([query_id], 0)[query_id]
        ranks = {doc_id: rank for rank, doc_id in enumerate(self._mined.candidates[query_id].doc_ids)}
        if len(chosen) > width:
            more = (0, len(chosen) - width)
            self.ranks = nn.functional.pad(self.ranks, more, value=NONE)
            self.initial = nn.functional.pad(self.initial, more, value=torch.nan)
        self.ranks[row, : len(chosen)] = torch.tensor([ranks[doc_id] for doc_id in chosen], dtype=torch.int64)
        return row

    def state(self) -> dict[str, Tensor]:
        return {"ranks": self.ranks, "initial": self.initial, "times": self.times, "looked": self.looked}

    def load(self, state: dict[str, Tensor]) -> None:
        self.ranks = state["ranks"] if "ranks" in state else state["places"]  # as older versions named them
        self.initial, self.times, self.looked = state["initial"], state["times"], state["looked"]


def became_easy(initial: Tensor, now: Tensor, *, factor: float, below: float, easy: float | None) -> Tensor:
    """(n,) bool, which negatives have become easy since their first score. One without a score now has not."""
    gone = (factor * now < initial) & (now.abs() < below)
    return gone if easy is None else gone | ((initial < easy) & ~now.isnan())


@dataclass(frozen=True, kw_only=True)
class RunNegatives:
    """Mines a run's negatives by name into its folder, or reads them, and gives the teacher of their batches.

    job: with the run's own encoder, whose weights training changes. Files that exist were mined by this run at the same
    step, with the same weights, so they are the same.
    """

    recipe: Recipe
    job: MiningJob
    accelerator: Accelerator
    folder: Path
    log: Log

    def files(self, name: str) -> MiningFiles:
        return MiningFiles(self.folder / "negatives" / f"{name}.run")

    def mine(self, name: str, filters: Sequence[Any] | None = None, progress: float = 0.0) -> NegativeSource:
        """filters: the recipe's, with what they have learned. progress: the share of training that is done."""
        if not self.recipe.negatives.mining:
            return MinedNegatives(self.recipe, {})
        files = self.files(name)
        if not files.complete:
            self.log.tell("phase", name="mine negatives", kind="mining")
        # Mined candidates are filtered by copies, so that the filters in training keep their device and their mode.
        learned = [copy.deepcopy(f).cpu() if isinstance(f, nn.Module) else f for f in filters or ()] or None
        with self.job.encoder.whole() as encoder:
            job = dataclasses.replace(self.job, encoder=encoder.with_cache(), learned=learned, progress=progress)
            report = mined_once(job, files, self.accelerator, on_progress=self.log.progress)
        for text in report.sentences() if report else []:
            self.log.tell("message", text=text)
        return read_negatives(self.recipe, files)

    @property
    def teacher_by_pair(self) -> bool:
        """Whether the teacher knows mined pairs alone, so that other negatives need another teacher."""
        return (self.recipe.negatives.teacher or "").startswith(CROSS_ENCODER)

    def teacher(self, name: str) -> Teacher | None:
        dataset = self.job.passages or self.job.dataset
        return teacher_of(self.recipe, dataset, self.job.encoder, self.files(name))


def mined_once(
    job: MiningJob, files: MiningFiles, accelerator: Accelerator, *, on_progress: Progress | None = None
) -> MiningReport | None:
    """Mines into `files` unless they are complete: the main process mines, the others encode with it and wait.

    Returns the report in the process that mined. Complete files, as of a resumed run, are used as they are. Raises
    InputError on every process where the main one cannot mine.
    """
    reports: list[MiningReport] = []

    def mined() -> None:
        if not files.complete:
            reports.append(mine(job, files.run, on_progress=on_progress))

    if not accelerator.is_main_process and not files.complete:
        encode_for_mining(job, until=lambda: files.complete)
    distributed.from_first(mined)
    return reports[0] if reports else None


def read_negatives(recipe: Recipe, files: MiningFiles) -> NegativeSource:
    """The candidates that the filters kept, in the order in which they were mined."""
    kept: dict[str, list[Evidence]] = {}
    for candidate in read_evidence(files.evidence):
        if candidate.keep:
            kept.setdefault(candidate.query_id, []).append(candidate)
    ranked = {query_id: Ranked([c.item_id for c in listed], *for_sampling(listed)) for query_id, listed in kept.items()}
    negatives = MinedNegatives(recipe, ranked)
    return negatives if recipe.negatives.replace is None else ReplacedNegatives(negatives, recipe.negatives.replace)


def teacher_of(recipe: Recipe, dataset: Dataset, encoder: Encoder, files: MiningFiles) -> Teacher | None:
    """The recipe's teacher for batches: an encoder scores every pair, a cross-encoder has scored the mined pairs."""
    name = recipe.negatives.teacher
    if name is None:
        return None
    if not name.startswith(CROSS_ENCODER):
        return EncoderScores(other_encoder(name, encoder), dataset)
    if not files.complete:
        raise InputError(
            f"negatives.teacher: {name} scores mined candidates only; give negatives.mining, or an encoder"
        )
    return MinedScores(files, dataset)


class MinedScores:
    """A teacher's scores of mined candidates and of their queries' positives, from the evidence; no others.

    Evidence that an older version wrote holds each query's lowest positive only.
    """

    def __init__(self, files: MiningFiles, dataset: Dataset) -> None:
        """dataset: that is trained on; its positives may be passages."""
        self._known: dict[str, dict[str, float]] = {}
        split = is_split(dataset.corpus)
        for candidate in read_evidence(files.evidence):
            if candidate.teacher is not None and candidate.positive_teacher is not None:
                passages = passage_by_document(dataset, candidate.query_id) if split else {}
                positives = {candidate.positive_id: candidate.positive_teacher, **candidate.positives_teacher}
                known = self._known.setdefault(candidate.query_id, {})
                known |= {passages.get(doc_id, doc_id): score for doc_id, score in positives.items()}
                known[candidate.item_id] = candidate.teacher

    def matrix(self, query_ids: Sequence[str], doc_ids: Sequence[str]) -> Tensor:
        rows = [[self._known.get(q, {}).get(d, float("nan")) for d in doc_ids] for q in query_ids]
        return torch.tensor(rows).view(len(query_ids), len(doc_ids))


def mine_recipe(
    recipe: Recipe,
    output: str | Path,
    *,
    draw: bool = False,
    on_progress: Progress | None = None,
    dataset: Dataset | None = None,
) -> MiningReport:
    """Mines what training by the recipe begins with: the same queries, the same model and precision.

    draw: write only the negatives that the recipe's sampling draws. dataset: the recipe's training data, where the
    caller has loaded it. Raises InputError as `negatives.mine.mine` does.
    """
    job = dataclasses.replace(_job_of(recipe, dataset or load_training(recipe.data)), draw=draw)
    return mine(job, Path(output), on_progress=on_progress)


def encode_for_recipe(recipe: Recipe, dataset: Dataset) -> None:
    """Encodes what `mine_recipe` encodes, in a process beside it."""
    encode_for_mining(_job_of(recipe, dataset))


def _job_of(recipe: Recipe, dataset: Dataset) -> MiningJob:
    methods.use_folders(recipe.methods)
    query_ids, _ = training_queries(dataset, recipe.data.validation, recipe.train.seed)
    encoder = load_encoder(recipe.model.in_training, precision=recipe.train.precision, seed=recipe.train.seed)
    return MiningJob(
        dataset=dataset,
        encoder=encoder,
        negatives=recipe.negatives,
        passages=in_passages(dataset, encoder) if recipe.model.passages is not None else None,
        query_ids=query_ids,
        seed=recipe.train.seed,
    )
