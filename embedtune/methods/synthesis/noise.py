from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ...types import Scores
from .. import MethodSpec
from .._numerics import full
from ._columns import append, embeddings, with_length

SPEC = MethodSpec(kind="vectors", neutral={"multiple": 0.0})


def noise(
    scores: Scores,
    keep: Tensor,
    *,
    multiple: float = 1.0,
    steps: int = 4,
    step_size: float = 1e-3,
    temperature: float = 0.05,
    generator: torch.Generator,
) -> tuple[Scores, Tensor]:
    """Adds Gaussian noise as negatives, moved a little to where the loss is larger (DCLR, arXiv 2205.00656).

    multiple: noise vectors per query of the batch; 0 is off. The paper: 1 (BERT-base), 2.5 (RoBERTa-base), 3 and 5
        (the large ones).
    steps, step_size: of gradient ascent; each vector moves by step_size along its own gradient's direction.
    temperature: of the loss that it ascends (InfoNCE of each positive), which is the training loss's, not seen here.

    Every query has all the noise as negatives, as constants. A step whose gradient is not finite, or is zero, is
    skipped. The noise is scored at the documents' mean length (1 among normalised embeddings). DCLR's other half,
    dropping false negatives by a second encoder, is the filter `complementary`.
    """
    if multiple < 0 or steps < 0 or not temperature > 0:
        raise InputError("synthesis.noise: expected multiple and steps of at least 0 and a temperature above 0")
    count = round(multiple * len(keep))
    if not count:
        return scores, keep
    queries, documents = embeddings(scores, "noise")
    length = documents.norm(dim=1).mean()
    drawn = torch.randn(count, queries.shape[1], generator=generator, device=generator.device).to(queries)
    logits = full(scores.student.detach()) / temperature
    rows, columns = scores.pairs  # (P,) each
    real = torch.cat([logits[rows, columns][:, None], logits.masked_fill(~keep, -torch.inf)[rows]], dim=1)
    for _ in range(steps if len(rows) else 0):
        with torch.enable_grad():
            drawn = drawn.detach().requires_grad_()
            unreal = (queries[rows] @ with_length(drawn, length).T) / temperature
            loss = -torch.cat([real, unreal], dim=1).log_softmax(dim=1)[:, 0].mean()
            (gradient,) = torch.autograd.grad(loss, drawn)
        direction = gradient / gradient.norm(dim=1, keepdim=True)
        drawn = drawn.detach() + step_size * torch.where(direction.isfinite(), direction, 0.0)
    allowed = torch.ones(len(keep), count, dtype=torch.bool, device=keep.device)
    return append(scores, keep, with_length(drawn, length), allowed)
