from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._pairs import cross_entropy, mean_by_group, own_negatives

SPEC = MethodSpec(kind="regulariser", needs=("own",), scheduled=("temperature",))
PREFIX, MINED = "threshold_", "mined"
LARGEST = 10.0


class Ahnpl(nn.Module):
    """Pushes hard captions and hard images away by an adaptive margin (AHNPL, arXiv 2505.15576).

    For images I as queries, their captions T as documents, and hard captions T' made or mined for each image; added to
    infonce in both directions with weight 0.2, as in the paper. Two terms:

    multimodal: a hard caption's difference becomes a hard image I' = I + (T' - T), the difference being a constant and
        I' not normalised. recommended (reconstructed): the mean of two cross-entropies, T against I and its I', and I
        against T and its T'. released: the authors' code, in which the label of pair i selects negative i of all pairs'
        negatives, so that it does not push negatives away; for comparison only. off: without.
    margin: mean relu(threshold + n - p) with p and n the logits of caption and hard caption, over pairs times the most
        hard captions of a pair. The threshold is one for each kind of hard caption (each maker, and the mined ones), 0
        at first, then that of the batch before: mean, the mean p minus the mean n; hardest, a fifth of the
        largest p - n; both held from 0 to 10. fixed: threshold. off: without.
    temperature: divides the similarities; 0.01 is CLIP's trained scale. The thresholds are in logits.

    Thresholds are state, saved with the checkpoint. A batch without hard captions costs 0. Log-weights are ignored.
    Departures: the paper's code marks a missing caption by a logit of 0, here the masks do; its positive margin,
    which its released training never enables, is left out. Raises InputError without embeddings.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.01,
        multimodal: Literal["recommended", "released", "off"] = "recommended",
        margin: Literal["mean", "hardest", "fixed", "off"] = "mean",
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if not temperature > 0 or multimodal == margin == "off" or (threshold and margin != "fixed"):
            raise InputError(
                "loss.ahnpl: expected a temperature above 0, one of multimodal and margin that is not off, and a "
                "threshold with margin: fixed alone"
            )
        self.temperature, self.multimodal, self.margin, self.fixed = temperature, multimodal, margin, threshold
        if margin in ("mean", "hardest"):
            self.register_buffer(PREFIX + MINED, torch.zeros(()))

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        if scores.queries is None or scores.documents is None:
            raise InputError("loss.ahnpl: needs embeddings, and here are scores only")
        rows, columns = scores.pairs  # (P,) each
        hard = own_negatives(scores, keep)[rows]  # (P, D)
        logits = full(scores.student)[rows] / self.temperature  # (P, D)
        positive = logits.gather(1, columns[:, None])[:, 0]
        total = (logits * 0.0).sum()
        parts: dict[str, float | Tensor] = {"hard_captions": hard.sum()}
        if not bool(hard.any()):
            return total, parts
        if self.multimodal != "off":
            multimodal = self._multimodal(full(scores.queries), full(scores.documents), (rows, columns), hard, logits)
            total, parts["multimodal"] = total + multimodal, multimodal.detach()
        if self.margin != "off":
            margin = self._margin(kinds_of(scores), hard, logits, positive)
            total, parts["margin"] = total + margin, margin.detach()
        return total, parts

    def _multimodal(
        self, images: Tensor, captions: Tensor, pairs: tuple[Tensor, Tensor], hard: Tensor, logits: Tensor
    ) -> Tensor:
        rows, columns = pairs
        held = captions.detach()
        if self.multimodal == "released":
            of_pair, of_caption = hard.nonzero(as_tuple=True)  # (N,) all negatives, flattened
            moved = images[rows[of_pair]] + held[of_caption] - held[columns[of_pair]]  # (N, H)
            label = torch.arange(min(len(rows), len(of_pair)), device=rows.device)
            anchors = captions[columns[label]] @ captions[of_caption].T, images[rows[label]] @ moved.T
            return sum((F.cross_entropy(a / self.temperature, label) for a in anchors), start=logits.new_zeros(()))
        positive = logits.gather(1, columns[:, None])[:, 0]
        anchor = captions[columns]  # (P, H)
        difference = anchor @ held.T - (anchor * held[columns]).sum(dim=1, keepdim=True)  # (P, D) <T, T' - T>
        of_images = positive[:, None] + difference / self.temperature  # <T, I'>
        valid = hard.any(dim=1)
        losses = [
            mean_by_group(cross_entropy(positive, negatives.masked_fill(~hard, -torch.inf)), rows, valid, len(images))
            for negatives in (logits, of_images)
        ]
        return torch.stack(losses).mean()

    def _margin(self, kinds: tuple[str, ...], hard: Tensor, logits: Tensor, positive: Tensor) -> Tensor:
        names, of_columns = np.unique(kinds, return_inverse=True)
        kind = torch.from_numpy(of_columns).to(logits.device)  # (D,)
        thresholds = torch.stack([self._threshold(name, logits) for name in names])  # one for each kind
        violations = (thresholds[kind] + logits - positive[:, None]).relu()
        loss = violations[hard].sum() / (len(hard) * hard.sum(dim=1).max())
        if self.training and self.margin != "fixed":
            gaps, present = self._gaps(kind, hard, logits.detach(), positive.detach(), len(names))
            updated = torch.where(present, gaps.clamp(0, LARGEST), thresholds)
            for name, threshold in zip(names, updated, strict=True):
                self.register_buffer(PREFIX + str(name), threshold.clone())
        return loss

    def _gaps(self, kind: Tensor, hard: Tensor, held: Tensor, positive: Tensor, kinds: int) -> tuple[Tensor, Tensor]:
        """For each kind of hard caption the next threshold, and whether the batch has one."""
        count = torch.zeros(kinds, dtype=torch.int64, device=kind.device).index_add(0, kind, hard.sum(dim=0))
        if self.margin == "hardest":
            gaps = (positive[:, None] - held).masked_fill(~hard, -torch.inf).amax(dim=0)  # (D,)
            of_kind = kind == torch.arange(kinds, device=kind.device)[:, None]  # (kinds, D)
            return torch.where(of_kind, gaps, -torch.inf).amax(dim=1) / 5, count > 0
        sums = held.new_zeros(kinds).index_add(0, kind, held.masked_fill(~hard, 0.0).sum(dim=0))
        return positive.mean() - sums / count.clamp(min=1), count > 0

    def _threshold(self, name: str, like: Tensor) -> Tensor:
        known = self.fixed if self.margin == "fixed" else getattr(self, PREFIX + name, 0.0)
        return torch.as_tensor(known, dtype=like.dtype, device=like.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in state_dict:  # which kinds there are is known only when saved
            if name.startswith(prefix + PREFIX):
                device = getattr(self, PREFIX + MINED, state_dict[name]).device
                saved = torch.zeros_like(state_dict[name], device=device)
                self.register_buffer(name.removeprefix(prefix), saved)
        super()._load_from_state_dict(state_dict, prefix, *args)


def kinds_of(scores: Scores) -> tuple[str, ...]:
    """For each column the maker of its text, or MINED."""
    return tuple(name or MINED for name in scores.made_by) or (MINED,) * scores.student.shape[1]
