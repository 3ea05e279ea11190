"""What every maker of negatives must do, and what every weighting and loss does with what it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedtune import methods
from embedtune.methods._trial import trial_of
from embedtune.methods.loss._contract import value_of
from embedtune.methods.synthesis._contract import TEXTS, made_of, trained_scores


def makers(kind: str) -> list[str]:
    return [name for name in methods.names("synthesis") if methods.describe("synthesis", name).spec.kind == kind]


@pytest.mark.parametrize("name", makers("vectors"))
@pytest.mark.parametrize("weighting", methods.names("weighting"))
def test_made_columns_are_weighed(name: str, weighting: str, bound: Callable[..., Any]) -> None:
    after, keep = made_of(trial_of("synthesis", name), trained_scores())
    log_weights = bound("weighting", weighting)(after, keep)
    assert log_weights.isfinite().all()
    assert (log_weights[~keep] == 0).all()


@pytest.mark.parametrize("name", makers("vectors"))
@pytest.mark.parametrize("loss", methods.names("loss"))
def test_losses_take_made_columns(name: str, loss: str, bound: Callable[..., Any]) -> None:
    before = trained_scores()
    after, keep = made_of(trial_of("synthesis", name), before)
    value = value_of(bound("loss", loss), after, keep)
    (gradient,) = torch.autograd.grad(value, before.queries)
    assert gradient.isfinite().all()


WORDS = "A the dog dogs cat red BLUE is not no can't has sits 12 1.5 km minutes East left (A) (B) . , é"
LANGUAGE = st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)


@pytest.mark.parametrize("name", makers("texts"))
def test_a_maker_of_texts_applies_somewhere(name: str) -> None:
    make = methods.bind("synthesis", name, {})
    assert any(make(text, generator=torch.Generator().manual_seed(0)) for text in TEXTS)


@pytest.mark.parametrize("name", makers("texts"))
@given(text=LANGUAGE | st.text(max_size=40), seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_a_made_text_differs_and_depends_on_the_seed_alone(name: str, text: str, seed: int) -> None:
    method = methods.bind("synthesis", name, {})
    made = method(text, generator=torch.Generator().manual_seed(seed))
    assert made == method(text, generator=torch.Generator().manual_seed(seed))
    if made is not None:
        assert made.strip()
        assert made.casefold().split() != text.casefold().split()
        if name == "word_swap":
            assert sorted(made.casefold()) == sorted(text.casefold())
