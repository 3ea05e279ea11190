from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fixture_f import no_weights
from torch import Tensor

from embedtune.errors import InputError
from embedtune.methods.loss.ahnpl import Ahnpl
from embedtune.types import Scores

THRESHOLDS = {"threshold_mined": 0.0, "threshold_a": 1.5, "threshold_b": 5.0}
NUMBERS = torch.tensor([[8.0, 0.0, 6.0, 2.0, 0.0], [0.0, 6.0, 0.0, 0.0, 5.0]])  # logits: two positives, three hard


def one_pair() -> Scores:
    """I = (1, 0), T = (.8, .6) and one hard caption (.6, .8)."""
    images = torch.tensor([[1.0, 0.0]], requires_grad=True)
    captions = torch.tensor([[0.8, 0.6], [0.6, 0.8]], requires_grad=True)
    positive = torch.tensor([[True, False]])
    return Scores(
        student=images @ captions.T,
        positive=positive,
        candidate=~positive,
        own=~positive,
        queries=images,
        documents=captions,
    )


def two_kinds() -> Scores:
    """p = (8, 6), n = [[6, 2], [5, none]]: hard captions by the makers a, b and a."""
    positive = torch.tensor([[True, False, False, False, False], [False, True, False, False, False]])
    own = torch.tensor([[False, False, True, True, False], [False, False, False, False, True]])
    return Scores(
        student=NUMBERS.clone().requires_grad_(),
        positive=positive,
        candidate=~positive,
        own=own,
        queries=torch.zeros(2, 3),
        documents=torch.zeros(5, 3),
        made_by=("", "", "a", "b", "a"),
    )


def value_of(loss: Ahnpl, scores: Scores) -> Tensor:
    return loss(scores, scores.candidate, no_weights(scores))[0]


def test_the_caption_against_the_image_moved_by_hand() -> None:
    scores = one_pair()
    value = value_of(Ahnpl(temperature=0.1, margin="off"), scores)
    image_side = math.log(1 + math.exp(6.0 - 8.0))  # I against T and its hard caption
    assert value.item() == pytest.approx((0.513015 + image_side) / 2, abs=2e-6)


def test_the_moved_image_passes_its_gradient_to_the_image_and_to_the_caption_that_asks() -> None:
    scores, loss = one_pair(), Ahnpl(temperature=0.1, margin="off")
    assert scores.queries is not None
    assert scores.documents is not None
    of_images, of_captions = torch.autograd.grad(value_of(loss, scores), (scores.queries, scores.documents))
    # p: the share of the hard one. <T, I'> - <T, I> = <T, d> with d = T' - T constant: its gradient is d, for T alone.
    p_text, p_image = (1 / (1 + math.exp(gap)) for gap in (0.4, 2.0))
    d = torch.tensor([-0.2, 0.2])
    captions = torch.tensor([[0.8, 0.6], [0.6, 0.8]])
    image = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(of_captions[0], 0.5 * 10 * (p_text * d - p_image * image))
    torch.testing.assert_close(of_captions[1], 0.5 * 10 * p_image * image)
    torch.testing.assert_close(of_images[0], 0.5 * 10 * p_image * (captions[1] - captions[0]))


def test_the_released_form_of_a_single_pair_costs_nothing() -> None:
    assert value_of(Ahnpl(temperature=0.1, multimodal="released", margin="off"), one_pair()).item() == 0


def test_the_released_form_by_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    images, captions = torch.randn(3, 4, generator=generator), torch.randn(9, 4, generator=generator)
    positive, own = torch.zeros(3, 9, dtype=torch.bool), torch.zeros(3, 9, dtype=torch.bool)
    positive[range(3), range(3)] = True
    own[[0, 0, 1, 1, 2, 2], range(3, 9)] = True
    scores = Scores(
        student=images @ captions.T, positive=positive, candidate=~positive, own=own, queries=images, documents=captions
    )
    expected = 0.0
    flat = [(pair, 3 + 2 * pair + m) for pair in range(3) for m in range(2)]
    for label in range(3):
        of_captions = [float(captions[label] @ captions[hard]) for _, hard in flat]
        of_images = [float(images[label] @ (images[i] + captions[hard] - captions[i])) for i, hard in flat]
        for logits in (of_captions, of_images):
            expected += (math.log(sum(map(math.exp, logits))) - logits[label]) / 3
    loss = Ahnpl(temperature=1.0, multimodal="released", margin="off")
    assert value_of(loss, scores).item() == pytest.approx(expected, abs=1e-5)


def test_the_margin_follows_the_batch_before() -> None:
    loss, scores = Ahnpl(temperature=1.0, multimodal="off"), two_kinds()
    assert value_of(loss, scores).item() == 0
    assert {name: value.item() for name, value in loss.named_buffers()} == THRESHOLDS
    assert value_of(loss, scores).item() == pytest.approx(0.125)


def test_other_thresholds() -> None:
    loss = Ahnpl(temperature=1.0, multimodal="off", margin="hardest")
    value_of(loss, two_kinds())
    found = {name: value.item() for name, value in loss.named_buffers()}
    assert found == {"threshold_mined": 0, "threshold_a": pytest.approx(2 / 5), "threshold_b": pytest.approx(6 / 5)}
    fixed = Ahnpl(temperature=1.0, multimodal="off", margin="fixed", threshold=1.5)
    assert value_of(fixed, two_kinds()).item() == pytest.approx(0.5 / 4)  # 1.5 + 5 - 6, over two pairs times two
    assert not list(fixed.buffers())


def test_the_threshold_gets_no_gradient() -> None:
    loss, scores = Ahnpl(temperature=1.0, multimodal="off"), two_kinds()
    value_of(loss, scores)
    (gradient,) = torch.autograd.grad(value_of(loss, scores), scores.student)
    expected = torch.zeros(2, 5)
    expected[1, 4], expected[1, 1] = 0.25, -0.25  # the only violation
    torch.testing.assert_close(gradient, expected)


def test_thresholds_are_kept_and_only_change_in_training() -> None:
    loss = Ahnpl(temperature=1.0, multimodal="off")
    value_of(loss, two_kinds())
    resumed = Ahnpl(temperature=1.0, multimodal="off").eval()
    resumed.load_state_dict(loss.state_dict())
    assert value_of(resumed, two_kinds()).item() == pytest.approx(0.125)
    assert {name: value.item() for name, value in resumed.named_buffers()} == THRESHOLDS


def test_without_hard_captions_it_costs_nothing() -> None:
    scores, loss = two_kinds(), Ahnpl()
    value, parts = loss(scores, scores.candidate & ~scores.own, no_weights(scores))
    value.backward()
    assert value.item() == 0
    assert parts["hard_captions"] == 0
    assert scores.student.grad is not None
    assert not scores.student.grad.any()
    assert [float(value) for value in loss.buffers()] == [0.0]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"multimodal": "off", "margin": "off"}, {"threshold": 1.0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^loss.ahnpl: expected a temperature above 0, one of multimodal and margin"):
        Ahnpl(**options)


@pytest.mark.parametrize("margin", ["mean", "hardest"])
def test_thresholds_by_kind_are_those_of_one_kind_after_another(margin: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    student = torch.rand(20, 60, generator=generator)
    positive = torch.zeros(20, 60, dtype=torch.bool).scatter(1, torch.arange(20)[:, None], True)
    own = (torch.rand(20, 60, generator=generator) < 0.1) & ~positive
    kinds = tuple(("", "swap", "negation", "number")[n] for n in torch.randint(4, (60,), generator=generator))
    own[:, [column for column, kind in enumerate(kinds) if kind == "number"]] = False  # a kind without hard captions
    scores = Scores(
        student=student,
        positive=positive,
        candidate=~positive,
        own=own,
        queries=torch.zeros(20, 3),
        documents=torch.zeros(60, 3),
        made_by=kinds,
    )
    loss = Ahnpl(margin=margin, multimodal="off", temperature=0.1)
    for _ in range(2):  # the second with thresholds above 0
        before = {kind: float(getattr(loss, f"threshold_{kind or 'mined'}", 0.0)) for kind in kinds}
        logits = student / 0.1
        p = logits[positive]
        violation = (torch.tensor([before[kind] for kind in kinds]) + logits - p[:, None]).relu()
        expected = violation[own].sum() / (20 * own.sum(dim=1).max())
        assert value_of(loss, scores).item() == pytest.approx(expected.item(), rel=1e-6)
        for kind in ("", "swap", "negation"):
            of_kind = own & torch.tensor([name == kind for name in kinds])
            gap = p.mean() - logits[of_kind].mean()
            if margin == "hardest":
                gap = (p[:, None] - logits)[of_kind].max() / 5
            found = float(getattr(loss, f"threshold_{kind or 'mined'}"))
            assert found == pytest.approx(gap.clamp(0, 10).item(), abs=2e-6)  # of means near 5 in float32
        assert float(loss.state_dict()["threshold_number"]) == 0
