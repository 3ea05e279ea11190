from __future__ import annotations

import dataclasses

import pytest
import torch
from fixture_f import TEMPERATURE, F, fixture, no_weights
from torch import Tensor

from embedtune.errors import InputError
from embedtune.methods.loss._transport import transport
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.loss.ncu import Ncu, out_of_range
from embedtune.types import Scores


def unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=1)


def batch(seed: int, noisy: int = 0) -> Scores:
    """8 images and captions; the captions of the first `noisy` ones are those of others, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    images = unit(torch.randn(8, 6, generator=generator))
    captions = unit(images + 0.3 * torch.randn(8, 6, generator=generator))
    captions[:noisy] = captions[:noisy].roll(1, dims=0)
    return fixture((images @ captions.T).requires_grad_(), queries=images, documents=captions, progress=1.0)


def quality(loss: Ncu, scores: Scores) -> tuple[float, float]:
    """How far captions are out of range of their opposites, and how much the opposites' structure differs."""
    assert scores.documents is not None
    made = loss.opposites(loss.opposite, scores.documents)
    apart = out_of_range((made * scores.documents).sum(dim=1)).mean()
    return float(apart), float((scores.documents @ scores.documents.T - made @ made.T).abs().mean())


def test_the_range_of_opposites_by_hand() -> None:
    assert out_of_range(torch.tensor([0.5, -0.5, -0.9])).tolist() == pytest.approx([0.7, 0.0, 0.2])


def test_without_noise_it_is_infonce_with_the_opposite_as_one_more_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    images, captions = unit(torch.randn(3, 4, generator=generator)), unit(torch.randn(3, 4, generator=generator))
    scores = fixture(images @ captions.T, queries=images, documents=captions, progress=1.0)
    loss = Ncu(temperature=TEMPERATURE, noisy=0.0)
    value, _ = loss(scores, scores.candidate, no_weights(scores))
    opposites = loss.opposites(loss.opposite, captions)
    away = (images * opposites).sum(dim=1, keepdim=True)
    apart = out_of_range((captions * opposites).sum(dim=1)).mean()
    of_rows = -(torch.cat([scores.student, away], dim=1) / TEMPERATURE).log_softmax(1).diagonal().mean()
    of_columns = -(scores.student.T / TEMPERATURE).log_softmax(1).diagonal().mean() * 3 / 4
    assert value.item() == pytest.approx(float((of_rows + of_columns) / 2 + apart), abs=1e-5)


def test_while_it_warms_up_it_is_infonce_both_ways_and_the_opposites_learn() -> None:
    scores = dataclasses.replace(batch(0), progress=0.0)
    loss = Ncu(temperature=TEMPERATURE)
    expected, _ = Infonce(temperature=TEMPERATURE, directions=["query_document", "document_query"])(
        scores, scores.candidate, no_weights(scores)
    )
    value, _ = loss(scores, scores.candidate, no_weights(scores))
    assert value.item() == pytest.approx(expected.item())
    before = quality(loss, scores)
    for seed in range(300):
        loss(dataclasses.replace(batch(seed), progress=0.0), scores.candidate, no_weights(scores))
    after = quality(loss, scores)
    assert after[0] < 0.1
    assert after[1] < before[1] / 2


def test_the_least_sure_pairs_are_unlearned() -> None:
    scores = batch(3, noisy=3)
    loss = Ncu(temperature=TEMPERATURE, noisy=0.4, plan_share=0.0)
    value, parts = loss(scores, scores.candidate, no_weights(scores))
    assert parts["noisy"] == 3
    (gradient,) = torch.autograd.grad(value, scores.student)
    own_caption = gradient.diagonal()
    assert bool((own_caption[:3] > 0).all())  # the loss falls as the image leaves its caption
    assert bool((own_caption[3:] < 0).all())


def test_a_plan_meets_rows_and_columns_and_leaves_out_what_is_not_allowed() -> None:
    generator = torch.Generator().manual_seed(0)
    similar, allowed = torch.rand(4, 5, generator=generator), torch.ones(4, 5, dtype=torch.bool)
    allowed[0, 1] = allowed[3, 4] = False
    plan = transport(similar, allowed, iterations=1000, tolerance=1e-7)
    torch.testing.assert_close(plan.sum(dim=1), torch.full((4,), 0.25))
    torch.testing.assert_close(plan.sum(dim=0), torch.full((5,), 0.2), atol=1e-5, rtol=0)
    assert plan[0, 1] == plan[3, 4] == 0
    sharp = transport(torch.eye(3), torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(sharp, torch.eye(3) / 3, atol=1e-6, rtol=0)


def test_it_resumes_exactly() -> None:
    def steps(loss: Ncu, seeds: range) -> Ncu:
        for seed in seeds:
            scores = dataclasses.replace(batch(seed), progress=0.1)
            loss(scores, scores.candidate, no_weights(scores))
        return loss

    whole, resumed = steps(Ncu(), range(6)), Ncu()
    resumed.load_state_dict(steps(Ncu(), range(3)).state_dict())
    assert torch.equal(steps(resumed, range(3, 6)).opposite, whole.opposite)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.ncu: needs embeddings, and here are scores only$"):
        Ncu()(fixture(F), fixture(F).candidate, no_weights(fixture(F)))
    with pytest.raises(InputError, match=r"^loss.ncu: expected temperature above 0, noisy and warm_up from 0 to below"):
        Ncu(noisy=1.0)
