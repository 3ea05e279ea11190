from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from embedtune import methods
from embedtune.methods.synthesis.concept_swap import CONCEPTS
from embedtune.methods.synthesis.unit import NEIGHBOURS


def all_changes(name: str, text: str, seeds: int = 40) -> set[str | None]:
    """Everything that the method makes of the text under some seeds."""
    method: Callable[..., str | None] = methods.bind("synthesis", name, {})
    return {method(text, generator=torch.Generator().manual_seed(seed)) for seed in range(seeds)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The magnet is strong", {"The magnet is not strong"}),
        ("The magnet is not strong", {"The magnet is strong"}),
        ("It is hot and it was cold", {"It is not hot and it was cold", "It is hot and it was not cold"}),
        ("He can't swim", {"He can swim"}),
        ("They won’t stay, he doesn't care", {"They will stay, he doesn't care", "They won’t stay, he does care"}),
        ("Cells cannot divide", {"Cells can divide"}),
        ("Not all cats are grey", {"All cats are grey"}),
        ("There is no evidence", {"There is evidence"}),
        ("It never rains", {"It rains"}),
        ("It's cold", {"It's not cold"}),
        ("Aspirin reduces pain", {"Aspirin does not reduce pain"}),
        ("A boy carries a ball", {"A boy does not carry a ball"}),
        ("Magnets attract iron", {"Magnets do not attract iron"}),
        ("The drug inhibited growth", {"The drug did not inhibit growth"}),
        ("The cat ate the fish", {"The cat did not eat the fish"}),
        ("She has left", {"She has not left"}),
        ("She has a car", {"She does not have a car"}),
        ("A can rolls in May", {"Not a can rolls in May"}),
        ("A dog followed by cats", {"Not a dog followed by cats"}),
        ("effects of increased levels", {"Not effects of increased levels"}),
        ("  two\n dogs", {"  Not two\n dogs"}),
        ("not", {None}),
        ("...", {None}),
    ],
)
def test_negation(text: str, expected: set[str | None]) -> None:
    assert all_changes("negation", text, 12) == expected


def test_number_keeps_the_count_of_digits() -> None:
    for made in all_changes("number", "12"):
        assert re.fullmatch("[1-9][0-9]", made or "")
        assert made != "12"
    assert all_changes("number", "in 7 cells", 200) == {f"in {digit} cells" for digit in (1, 2, 3, 4, 5, 6, 8, 9)}
    assert all(re.fullmatch(r"[1-9],\d{3}\.\d km", made or "") for made in all_changes("number", "1,500.0 km"))


@pytest.mark.parametrize("text", ["p53", "COVID-19", "the 2nd of them", "five", "22nd", ""])
def test_number_leaves_names_and_ordinals(text: str) -> None:
    assert all_changes("number", text, 3) == {None}


def test_orientation() -> None:
    assert all_changes("orientation", "East of the left bank") == {"West of the left bank", "East of the right bank"}
    assert all_changes("orientation", "the LEFT one, near") == {"the RIGHT one, near", "the LEFT one, far"}
    assert all_changes("orientation", "leftover") == {None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 km", {"5 m"}),
        ("5km away", {"5m away"}),
        ("5 minutes", {"5 seconds", "5 hours"}),
        ("Some Minutes", {"Some Seconds", "Some Hours"}),
        ("one hour", {"one minute"}),
        ("10 cm by 3 l", {"10 mm by 3 l", "10 m by 3 l", "10 cm by 3 ml"}),
        ("20 °C", {"20 °F"}),
        ("60 km/h", {"60 m/h"}),
        ("a 3-meter pole", {"a 3-centimeter pole", "a 3-kilometer pole"}),
        ("the second one, I'm sure", {None}),
        ("5 mice", {None}),
    ],
)
def test_unit(text: str, expected: set[str | None]) -> None:
    assert all_changes("unit", text) == expected


def test_neighbouring_units_are_mutual() -> None:
    assert all(name in NEIGHBOURS[other] for name, others in NEIGHBOURS.items() for other in others)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Which? (A) iron (B) iron oxide, or (C) gold. Rust is iron oxide.",
            {f"Which? (A) iron (B) iron oxide, or (C) gold. Rust is {other}." for other in ("iron", "gold")},
        ),
        ("Options: (A) 3.5 m (B) 4 m. So (B).", {"Options: (A) 3.5 m (B) 4 m. So (A)."}),
        ("Pick:\nA. red\nB. blue\nThe sky is Blue.", {"Pick:\nA. red\nB. blue\nThe sky is Red."}),
        ("Pick: (A) red (B) blue. Red, not blue.", {None}),  # two are named
        ("Pick: (A) red (B) blue. Why?", {None}),  # none is
        ("Only (A) red. It is red.", {None}),
        ("It is red.", {None}),
    ],
)
def test_option(text: str, expected: set[str | None]) -> None:
    assert all_changes("option", text) == expected


def test_concept_swap_changes_exactly_one_word_within_its_concept() -> None:
    text = "Two big dogs and a RED kite near the beach"
    concepts = set()
    for made in all_changes("concept_swap", text, 60):
        assert made is not None
        [(old, new)] = [pair for pair in zip(text.split(), made.split(), strict=True) if len(set(pair)) == 2]
        [concept] = [
            concept for concept, words in CONCEPTS.items() if {old.lower(), old.lower().removesuffix("s")} & set(words)
        ]
        assert {new.lower(), new.lower().removesuffix("s")} & set(CONCEPTS[concept])
        assert new.endswith("s") == old.endswith("s") or concept != "object"
        assert new.isupper() == old.isupper()
        concepts.add(concept)
    assert concepts == set(CONCEPTS)
    assert all_changes("concept_swap", "nothing to see") == {None}


def test_concepts_begin_so_that_articles_stay_right() -> None:
    words = [word for words in CONCEPTS.values() for word in words]
    assert not [word for word in words if word[0] in "aeiou"]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "A black cat sits on a white mat",
            {
                "A white cat sits on a black mat",
                "A black mat sits on a white cat",
                "A white mat sits on a black cat",
            },
        ),
        ("Yesterday Anna met Bob", {"Yesterday Bob met Anna"}),
        (
            "Red cars pass white trucks",
            {"White cars pass red trucks", "Red trucks pass white cars", "White trucks pass red cars"},
        ),
        ("He left San Francisco for Rome", {"He left Rome for San Francisco"}),
        ("a big red cat", {None}),
        ("from 3 to 1,200 m", {"from 1,200 to 3 m"}),
        ("He slowly rose and quickly fell", {"He quickly rose and slowly fell"}),
        ("a cat and a cat", {None}),
        ("a cat sleeps", {None}),
    ],
)
def test_word_swap(text: str, expected: set[str | None]) -> None:
    assert all_changes("word_swap", text) == expected


def test_word_swap_takes_noun_phrases() -> None:
    made = all_changes("word_swap", "the big dog chases a small cat", 60)
    assert "a small cat chases the big dog" in made
    assert "the small cat chases a big dog" in made  # adjective and noun
    assert "a small cat chases the dog" not in made
    assert not any(text and text.startswith("dog") for text in made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a hot day", {"a cold day", "a hot night"}),
        ("an old man sits", {"a young man sits", "a new man sits", "an old woman sits"}),
        ("A bird above the tree", {"A bird below the tree"}),
        ("An EMPTY glass", {"A FULL glass"}),
        ("He opens it", {None}),
        ("", {None}),
    ],
)
def test_opposite(text: str, expected: set[str | None]) -> None:
    assert all_changes("opposite", text) == expected


def test_bigram_shuffle_keeps_pairs_together() -> None:
    made = all_changes("bigram_shuffle", "a b c d e")
    orders = ["a b e c d", "c d a b e", "c d e a b", "e a b c d", "e c d a b"]
    assert made == set(orders)
    assert all_changes("bigram_shuffle", "one two") == {None}
    assert all_changes("bigram_shuffle", "so so so so") == {None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a circle", {f"a {shape}" for shape in ("hexagon", "kite", "parallelogram", "pentagon", "rectangle", "rhombus",
                                                 "semicircle", "square", "trapezoid", "triangle")}),
        ("lines are parallel", {"lines are perpendicular"}),
        ("AB equals CD", {"CB equals AD", "DB equals CA", "AC equals BD", "AD equals CB"}),
        ("triangle ABC" , None),
        ("AB and BC", {None}),  # exchanged letters would name the same two lines
        ("in 7 steps", {f"in {digit} steps" for digit in (1, 2, 3, 4, 5, 6, 8, 9)}),
        ("nothing here", {None}),
    ],
)  # fmt: skip
def test_geometry_changes_one_thing(text: str, expected: set[str | None] | None) -> None:
    made = all_changes("geometry", text, 200)
    if expected is None:  # a single label has no other to exchange letters with
        assert all(one is not None and one.endswith(" ABC") and not one.startswith("triangle") for one in made)
    else:
        assert made == expected


def test_geometry_brings_no_new_letters_and_keeps_articles_right() -> None:
    made = all_changes("geometry", "In triangle ABC, an altitude AD meets BC at 90 degrees", 300)
    assert all(set(re.findall("[A-Z]", (text or "").replace("In", ""))) == set("ABCD") for text in made)
    assert any(text and "a chord AD" in text for text in made)
    assert any(text and "an angle AD" in text for text in made)
    assert any(text and "90" not in text for text in made)
