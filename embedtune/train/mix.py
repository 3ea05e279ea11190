"""The models between the base and the tuned one, and the choice among them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import InputError
from ..evaluate.guarded import Point
from ..evaluate.retrieval import evaluate
from ..files import inner_folder
from ..models import saving
from ..models.adapters import scale_adapter, scales
from ..models.dtypes import dtype_in_files, rounded
from ..models.encoder import Encoder, load_encoder
from ..models.folders import ADAPTER_CONFIG
from ..models.loading import load_base, load_model
from ..models.mixing import Weights, mix_into, weights_of, with_floor
from ..recipe import Guard, Model, Precision
from ..report.record import UNMIXED
from ..types import Dataset
from .checkpoint import Training
from .guard import Values, Watched, choose, curve
from .loop import batch_at
from .plan import Position
from .step import accumulate_gradients, training_mode

FISHER_BATCHES = 16


class Mixtures:
    """One encoder whose weights are set to a mixture at a time. Only the two ends' embeddings are cached."""

    def __init__(
        self,
        base: Model,
        tuned: Model,
        precision: Precision,
        *,
        fisher: tuple[Weights, Weights] | None = None,
        seed: int = 0,
    ) -> None:
        """seed: of the base's weights that no file has. Raises InputError where the two have different weights."""
        self._encoder = load_encoder(tuned, precision=precision)
        host = torch.device("cpu")  # the two ends wait there; the device holds one mixture
        whole = load_base(base, tuned, host, seed=seed, frozen_in=self._encoder.precision)
        self._base = whole.state_dict()
        self._tuned = weights_of(self._encoder.model)
        self._fisher = fisher

    def at(self, alpha: float) -> Encoder:
        mix_into(self._encoder.model, self._base, self._tuned, alpha, self._fisher)
        self._encoder.cached = alpha in (0, 1)
        return self._encoder

    def values(self, alpha: float, dataset: Dataset, measure: str) -> Values:
        """Each judged query's value."""
        return evaluate(self.at(alpha), dataset, measures=[measure]).per_query[measure]

    def save(self, alpha: float, folder: Path) -> None:
        """Saves the mixed model into the empty folder, in the number format of the tuned one's files. Raises InputError
        where rounding to it leaves nothing of the tuned weights."""
        model = self.at(alpha).model
        dtype = dtype_in_files(model)
        if alpha > 0 and dtype != "float32" and not _are_equal(self._tuned, self._base):
            with rounded(model, dtype):
                lost = _are_equal(weights_of(model), self._base)
            if lost:
                raise InputError(
                    f"alpha {alpha:g}: rounding to {dtype} loses what was tuned: the mixture's weights are the base's, "
                    "to the bit; take a larger alpha"
                )
        saving.save_model(model, folder)


def _are_equal(ours: Weights, others: Weights) -> bool:
    """Whether all numbers are equal, in any number formats."""
    return all(bool((tensor == others[name]).all()) for name, tensor in ours.items())


def mix_run(t: Training, guard: Guard, watched: Sequence[Watched], validation: Dataset | None) -> list[Point]:
    """Chooses alpha for a run whose model/ is saved; model/ becomes the mixture, model-unmixed/ keeps the tuned model.

    A LoRA adapter is scaled likewise: adapter/ belongs to model/, adapter-unmixed/ to model-unmixed/. Mixed by Fisher
    information, or with an adapter that does not scale (`adapters.scales`), model/ is no adapter's effect, and there is
    no adapter/.
    """
    recipe, model, unmixed = t.recipe, t.folder / "model", t.folder / UNMIXED
    fisher = fishers_of(t) if guard.weights == "fisher" else None
    t.release()
    tuned = dataclasses.replace(recipe.model, name=str(model), pooling=None, lora=None, dtype="auto", new_weights=[])
    base = dataclasses.replace(recipe.model, dtype="auto")
    mixtures = Mixtures(base, tuned, recipe.evaluate.precision, fisher=fisher, seed=recipe.train.seed)
    measure = guard.measure or recipe.evaluate.measure

    def validate(alpha: float) -> float:
        assert validation is not None
        values = mixtures.values(alpha, validation, measure)
        return sum(values.values()) / len(values)

    points = curve(
        guard,
        watched,
        lambda alpha, dataset: mixtures.values(alpha, dataset, measure),
        validate if validation is not None else None,
        on_progress=t.log.progress,
    )
    alpha = choose(points).alpha
    shutil.rmtree(unmixed, ignore_errors=True)
    shutil.copytree(model, unmixed)
    if alpha != 1:
        with inner_folder(model) as temporary:
            mixtures.save(alpha, temporary)
        if recipe.model.lora is not None:
            shutil.rmtree(t.folder / "adapter-unmixed", ignore_errors=True)
            (t.folder / "adapter").rename(t.folder / "adapter-unmixed")
        whole = t.folder / "adapter-unmixed"
        parts = [file.parent for file in whole.rglob(ADAPTER_CONFIG)]  # of several transformers, a folder each
        if parts and guard.weights == "linear" and all(map(scales, parts)):
            with inner_folder(t.folder / "adapter") as temporary:
                for part in parts:
                    scale_adapter(part, temporary / part.relative_to(whole), alpha)
    return points


def fishers_of(t: Training) -> tuple[Weights, Weights]:
    """The base's and the tuned model's diagonal Fisher information, with a floor.

    It is the mean squared gradient of the run's own objective over the first batches of its first epoch: of batches,
    not of single queries, since a query's loss needs its batch.
    """
    base = load_model(t.recipe.model, torch.device("cpu"), seed=t.recipe.train.seed).state_dict()
    tuned = weights_of(t.encoder.model)
    return with_floor(_fisher(t, base)), with_floor(_fisher(t, tuned))


def _fisher(t: Training, weights: Weights) -> dict[str, torch.Tensor]:
    model, step = t.encoder.model, dataclasses.replace(t.step, keep=None, accumulate=1)
    model.load_state_dict(dict(weights))
    model.requires_grad_(True)
    training_mode(model, t.objective.modules)
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in model.named_parameters()}
    count = min(FISHER_BATCHES, t.plan.batches_per_epoch)
    for number in range(count):
        batch, generator = batch_at(t, Position(0, number))
        accumulate_gradients(step, batch, generator, progress=1.0)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] += parameter.grad.float() ** 2 / count
                parameter.grad = None
    return {name: values.cpu() for name, values in total.items()}
