from __future__ import annotations

import dataclasses

import pytest
import torch
from fixture_f import F, fixture
from torch import Tensor

from embedtune.errors import InputError
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.synthesis.noise import noise
from embedtune.types import Scores

DOCUMENTS = torch.eye(3)  # so that queries F score F


def embedded() -> Scores:
    return fixture(F, queries=F, documents=DOCUMENTS)


def made(steps: int, step_size: float, temperature: float = 0.1, scores: Scores | None = None) -> Tensor:
    scores = scores or embedded()
    generator = torch.Generator().manual_seed(0)
    extended, keep = noise(
        scores,
        scores.candidate,
        multiple=2,
        steps=steps,
        step_size=step_size,
        temperature=temperature,
        generator=generator,
    )
    assert extended.documents is not None
    assert keep[:, 3:].all()
    return extended.documents[3:]


def loss_with(unreal: Tensor) -> float:
    """InfoNCE of F at 0.1 with the noise as further negatives, by its definition."""
    rows = [
        torch.logsumexp(torch.cat([row, unreal @ row]) / 0.1, dim=0) - row[place] / 0.1 for place, row in enumerate(F)
    ]
    return float(sum(rows) / 3)  # type: ignore[arg-type]


def test_without_steps_it_is_gaussian_noise_on_the_sphere() -> None:
    drawn = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(0, 1e-3), torch.nn.functional.normalize(drawn, dim=1))


def test_each_step_raises_the_loss() -> None:
    losses = [loss_with(made(steps, 0.05)) for steps in range(5)]
    assert losses == sorted(losses)
    assert losses[4] > losses[0] + 1e-3


def test_the_first_step_by_finite_differences() -> None:
    """Each vector moves by the step size, along the gradient of the loss with respect to it alone."""
    drawn = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    gradient = torch.zeros_like(drawn)
    for place in range(drawn.numel()):
        delta = torch.zeros_like(drawn).flatten()
        delta[place] = 1e-6
        up, down = (
            loss_64(torch.nn.functional.normalize(drawn + sign * delta.view_as(drawn), dim=1)) for sign in (1, -1)
        )
        gradient.flatten()[place] = (up - down) / 2e-6
    expected = drawn + 0.5 * torch.nn.functional.normalize(gradient, dim=1)
    torch.testing.assert_close(
        made(1, 0.5), torch.nn.functional.normalize(expected, dim=1).float(), atol=1e-4, rtol=1e-4
    )


def loss_64(unreal: Tensor) -> float:
    queries = F.double()
    logits = torch.cat([queries, queries @ unreal.T], dim=1) / 0.1
    return float((logits.logsumexp(dim=1) - logits.diagonal()).mean())


def test_the_training_loss_sees_it_as_negatives() -> None:
    scores = embedded()
    generator = torch.Generator().manual_seed(0)
    extended, keep = noise(scores, scores.candidate, multiple=2, temperature=0.1, generator=generator)
    value, _ = Infonce(temperature=0.1)(extended, keep, torch.zeros_like(extended.student))
    assert extended.documents is not None
    assert float(value) == pytest.approx(loss_with(extended.documents[3:]), rel=1e-5)


def test_a_gradient_that_is_not_finite_is_no_step() -> None:
    scores = embedded()
    broken = dataclasses.replace(scores, student=scores.student.clone().fill_diagonal_(torch.nan))
    torch.testing.assert_close(made(4, 0.5, scores=broken), made(0, 0.5))
    zero = dataclasses.replace(scores, queries=torch.zeros(3, 3))  # nothing to ascend
    torch.testing.assert_close(made(4, 0.5, scores=zero), made(0, 0.5))


def test_it_learns_nothing_and_works_under_no_grad() -> None:
    with torch.no_grad():
        unreal = made(2, 0.05)
    assert not unreal.requires_grad
    torch.testing.assert_close(unreal, made(2, 0.05))


@pytest.mark.parametrize("options", [{"multiple": -1.0}, {"steps": -1}, {"temperature": 0.0}])
def test_what_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"^synthesis.noise: expected multiple and steps of at least 0 and a temp"):
        noise(embedded(), embedded().candidate, **options, generator=torch.Generator())  # type: ignore[arg-type]
