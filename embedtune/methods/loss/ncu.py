from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._transport import transport
from .infonce import Infonce

SPEC = MethodSpec(kind="objective", scheduled=("temperature", "noisy", "plan_share"))
LOWEST, HIGHEST = -0.7, -0.2  # between which the cosine of a caption and its opposite should lie


class Ncu(nn.Module):
    """Unlearns noisy pairs: gives images whose caption does not fit its opposite instead (NCU, arXiv 2507.03434).

    For images as queries and captions T as documents. Each caption has an opposite T'. Of a batch, the share `noisy` of
    the queries that give their own positive the least softmax are noisy. The targets of a query are its positives, or
    T' alone where it is noisy, mixed by `plan_share` with an optimal transport plan that allows a query its kept
    documents and, if it is not noisy, its positives; if it is, T'. The loss is the mean of KL(target || softmax) over
    queries against all documents and T', and over positives and T' against all queries, plus a term that holds
    cos(T, T') between -0.7 and -0.2.

    warm_up: the share of the steps in which T' is learned while the encoder trains with symmetric InfoNCE.
    noisy, plan_share: 0.1 and 0.7 in the paper's scripts. Where not a single query is noisy there is no plan.
    temperature: 0.01 is CLIP's trained scale. learning_rate: of what makes T'.

    Departures: the paper learns a prompt that turns a caption into its opposite inside the text encoder, before the
    encoder is trained; here a matrix, which begins as a random turn by 135 degrees, maps the caption's embedding and
    takes its own Adam steps beside the warm-up. It is state, saved with the checkpoint. Log-weights are added to the
    negatives' logits. Raises InputError without embeddings.
    """

    opposite: Tensor  # (H, H)
    moments: Tensor  # (2, H, H) Adam's
    steps: Tensor

    def __init__(
        self,
        *,
        temperature: float = 0.01,
        noisy: float = 0.1,
        plan_share: float = 0.7,
        warm_up: float = 0.25,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        if not temperature > 0 or not 0 <= noisy < 1 or not 0 <= plan_share <= 1 or not 0 <= warm_up < 1:
            raise InputError(
                "loss.ncu: expected temperature above 0, noisy and warm_up from 0 to below 1, plan_share from 0 to 1"
            )
        self.temperature, self.noisy, self.plan_share = temperature, noisy, plan_share
        self.warm_up, self.learning_rate = warm_up, learning_rate
        self.infonce = Infonce(temperature=temperature, directions=["query_document", "document_query"])
        self.register_buffer("opposite", torch.empty(0, 0))
        self.register_buffer("moments", torch.empty(2, 0, 0))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, scores: Scores, keep: Tensor, log_weights: Tensor) -> tuple[Tensor, dict[str, float | Tensor]]:
        if scores.queries is None or scores.documents is None:
            raise InputError("loss.ncu: needs embeddings, and here are scores only")
        rows = scores.positive.any(dim=1)
        first = scores.positive[rows].float().argmax(dim=1)  # each query's first positive
        captions, images = full(scores.documents)[first], full(scores.queries)[rows]  # (R, H) each
        if not len(self.opposite):
            self._start(captions)
        noisy = self._noisiest(scores, keep)[rows]
        self.infonce.temperature = self.temperature  # which may follow a schedule
        plain, parts = self.infonce(scores, keep, log_weights)  # which refuses a batch without negatives
        if scores.progress < self.warm_up:
            if self.training:
                self._learn(images.detach()[~noisy], captions.detach()[~noisy])
            return plain, parts
        opposites = self.opposites(self.opposite.to(captions.dtype), captions)
        away = (images * opposites).sum(dim=1, keepdim=True) / self.temperature  # (R, 1)
        weights = log_weights.masked_fill(~keep, 0.0)[rows]
        logits = full(scores.student)[rows] / self.temperature + weights  # (R, D)
        known = (keep | scores.positive)[rows]
        loss = self._aligned(logits.masked_fill(~known, -torch.inf), away, scores.positive[rows], noisy)
        apart = out_of_range((captions * opposites).sum(dim=1)).mean()
        return loss + apart, parts | {"noisy": float(noisy.sum()), "plain": plain.detach()}

    def _noisiest(self, scores: Scores, keep: Tensor) -> Tensor:
        """(Q,) True for the share of the queries that are least sure of their positives."""
        judged = scores.positive.any(dim=1)
        logits = full(scores.student.detach()) / self.temperature
        shares = logits.masked_fill(~(keep | scores.positive), -torch.inf).softmax(dim=1)
        sure = shares.masked_fill(~scores.positive, 0.0).sum(dim=1).masked_fill(~judged, torch.inf)
        count = int(self.noisy * int(judged.sum()))
        return torch.zeros_like(judged).scatter(0, sure.topk(count, largest=False).indices, True)

    def _aligned(self, logits: Tensor, away: Tensor, positive: Tensor, noisy: Tensor) -> Tensor:
        """The mean of both directions. logits: (R, D), -inf where a document is neither; away: (R, 1)."""
        label = torch.cat([positive & ~noisy[:, None], noisy[:, None]], dim=1).to(logits.dtype)  # (R, D + 1)
        allowed = torch.cat([(logits != -torch.inf) & ~(positive & noisy[:, None]), noisy[:, None]], dim=1)
        everything = torch.cat([logits, away], dim=1)
        used = torch.cat([positive.any(dim=0), positive.new_ones(1)])  # documents that some query is for, and T'
        plan = torch.zeros_like(label)
        if bool(noisy.any()) and self.plan_share:
            similar = (everything.detach() * self.temperature)[:, used]
            plan[:, used] = transport(similar, allowed[:, used])
        share = self.plan_share if bool(noisy.any()) else 0.0
        of_queries = divergence(everything, share * _shares(plan) + (1 - share) * _shares(label))
        target = share * _shares(plan.T[used]) + (1 - share) * _shares(label.T[used])
        return (of_queries + divergence(everything.T[used], target)) / 2

    def opposites(self, opposite: Tensor, captions: Tensor) -> Tensor:
        """(R, H) the opposites T' of captions (R, H), normalised."""
        return F.normalize(captions @ opposite.T, dim=1, eps=1e-12)

    def _start(self, captions: Tensor) -> None:
        width = captions.shape[1]
        drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
        # Skew: it adds a part of length 1 at right angles, so that the cosine is -0.7. At -1 nothing would move it.
        skew = (drawn - drawn.T) / (2 * width) ** 0.5
        self.opposite = (skew - torch.eye(width)).to(captions.device)
        self.moments, self.steps = self.opposite.new_zeros(2, width, width), self.opposite.new_zeros(())

    def _learn(self, images: Tensor, captions: Tensor) -> None:
        """One Adam step: the opposites keep the captions' structure, lie apart from them, and fit the other images."""
        if not len(captions):
            return
        images, captions = images.float(), captions.float()
        with torch.enable_grad():
            opposite = self.opposite.clone().requires_grad_()
            made = self.opposites(opposite, captions)
            structure = (captions @ captions.T - made @ made.T).square().mean()
            apart = out_of_range((captions * made).sum(dim=1)).mean()
            sign = 1 - 2 * torch.eye(len(captions), device=captions.device)
            fit = -F.logsigmoid(sign * (images @ made.T) / self.temperature).sum() / len(captions)
            (gradient,) = torch.autograd.grad(10 * len(captions) * structure + 10 * apart + fit, opposite)
        self.steps = self.steps + 1
        decay = self.moments.new_tensor([0.9, 0.999])[:, None, None]
        self.moments = decay * self.moments + (1 - decay) * torch.stack([gradient, gradient**2])
        mean, square = self.moments / (1 - decay**self.steps)
        self.opposite = self.opposite - self.learning_rate * mean / (square.sqrt() + 1e-8)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in ("opposite", "moments"):  # their sizes are known only when saved
            setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.steps.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def out_of_range(cosines: Tensor) -> Tensor:
    """How far each cosine lies outside of the range that opposites should have."""
    return (cosines - HIGHEST).relu() + (LOWEST - cosines).relu()


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax) of (R, N), its mean over rows. A row without a target costs 0."""
    listed = target > 0
    log_shares = logits.log_softmax(dim=1).masked_fill(~listed, 0.0)
    return (target * (target.clamp(min=1e-12).log() - log_shares)).masked_fill(~listed, 0.0).sum(dim=1).mean()


def _shares(values: Tensor) -> Tensor:
    return values / values.sum(dim=1, keepdim=True).clamp(min=1e-12)
