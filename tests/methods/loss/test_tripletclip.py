from __future__ import annotations

import math

import pytest
import torch
from fixture_f import no_weights

from embedtune.errors import InputError
from embedtune.methods.loss.infonce import Infonce
from embedtune.methods.loss.tripletclip import Tripletclip
from embedtune.types import Scores

HALF = 0.659835


def basis(*, generated: bool) -> Scores:
    """I = T = (e1, e2) and T' = I' = (e2, e1): each image with its caption, its hard caption, its generated image."""
    captions = torch.eye(2)[[0, 1, 1, 0]]
    images = captions if generated else captions[:2]
    positive = torch.zeros(len(images), 4, dtype=torch.bool)
    positive[range(len(images)), range(len(images))] = True
    made = torch.tensor([False, False, True, True]) if generated else None
    return Scores(
        student=(images @ captions.T).requires_grad_(), positive=positive, candidate=~positive, made_queries=made
    )


def value_of(loss: Tripletclip | Infonce, scores: Scores) -> torch.Tensor:
    return loss(scores, scores.candidate, no_weights(scores))[0]


def test_the_basis_by_hand() -> None:
    rows, columns = math.log(2 * math.e + 2) - 1, math.log(math.e + 1) - 1
    assert (rows + columns) / 2 == pytest.approx(HALF, abs=2e-6)
    assert value_of(Tripletclip(temperature=1.0), basis(generated=False)).item() == pytest.approx(HALF, abs=2e-6)
    assert value_of(Tripletclip(temperature=1.0), basis(generated=True)).item() == pytest.approx(1.319671, abs=2e-6)


def test_without_generated_images_it_is_negclip_which_is_infonce_both_ways() -> None:
    scores = basis(generated=False)
    one, other = Tripletclip(temperature=1.0), Infonce(temperature=1.0, directions=["query_document", "document_query"])
    torch.testing.assert_close(value_of(one, scores), value_of(other, scores))
    torch.testing.assert_close(*(torch.autograd.grad(value_of(x, scores), scores.student)[0] for x in (one, other)))


def test_a_generated_image_is_no_negative_of_a_real_caption() -> None:
    scores = basis(generated=True)
    (gradient,) = torch.autograd.grad(value_of(Tripletclip(temperature=1.0), scores), scores.student)
    rows, _ = scores.positive[2:].nonzero(as_tuple=True)
    assert len(rows) == 2
    # Column 0 is the caption of image 0; rows 2 and 3 see it among their captions only: one softmax of four, over two.
    share = torch.tensor([0.0, 1.0, 1.0, 0.0]).softmax(0)[0]
    assert float(gradient[2, 0]) == pytest.approx(float(share) / 4, abs=1e-6)


def test_in_turns_a_batch_has_one_half_of_the_sum() -> None:
    loss, scores = Tripletclip(temperature=1.0, mode="alternate"), basis(generated=True)
    (first,) = torch.autograd.grad(value_of(loss, scores), scores.student)
    assert first[:2].any()
    assert not first[2:].any()
    resumed = Tripletclip(temperature=1.0, mode="alternate")
    resumed.load_state_dict(loss.state_dict())
    (second,) = torch.autograd.grad(value_of(resumed, scores), scores.student)
    assert second[2:].any()
    assert not second[:2].any()
    assert value_of(loss, basis(generated=False)).item() == pytest.approx(HALF, abs=2e-6)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"^loss.tripletclip.temperature: must be above 0, got 0"):
        Tripletclip(temperature=0.0)
