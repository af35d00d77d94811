"""The objects that a prompt names."""

from __future__ import annotations

import pytest
from hypothesis import given

from models.embedded.outcomes import held_out_prompts
from router.prompts.phrases import Phrase, object_phrases
from tests.router.texts import PROMPTS


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a red circle and a blue square", [("a red circle", 1), ("a blue square", 1)]),
        ("please draw me a picture of a small yellow star left of an orange ring, on a black background",
         [("a small yellow star", 1), ("an orange ring", 1)]),
        ("two cats and a dog beneath the table", [("two cats", 2), ("a dog", 1), ("the table", 1)]),
        ("A dragon over many birds. No people, 3 trees",
         [("a dragon", 1), ("many birds", 0), ("3 trees", 3)]),
        ("a knight without a helmet", [("a knight", 1)]),
        ("² red circles and a blue square", [("² red circles", 2), ("a blue square", 1)]),
        ("٣ stars, ③ rings, a 5² grid and ½ moon", [("٣ stars", 3), ("③ rings", 3), ("a 5² grid", 1)]),
        ("9" * 5_000 + " cats", []),
        ("9" * 3_000 + " cats", [("9" * 3_000 + " cats", 0)]),
        ("sunset", []),
        ("", []),
    ],
)  # fmt: skip
def test_phrases_begin_with_an_article_or_a_number(prompt: str, phrases: list[tuple[str, int]]) -> None:
    """Each object or group is a phrase with its count; media, places and what is negated are not."""
    assert object_phrases(prompt) == tuple(Phrase(*phrase) for phrase in phrases)


@pytest.mark.parametrize("tier", ["two", "relation", "counts"])
def test_phrases_are_the_things_of_the_world(tier: str) -> None:
    """On held-out prompts of the captioned world, phrases and counts are those of the scene."""
    for prompt in held_out_prompts(tier, 100, seed=51):
        found = object_phrases(prompt.text)
        assert [phrase.count for phrase in found] == [thing.count for thing in prompt.scene.things], prompt.text
        for phrase, thing in zip(found, prompt.scene.things, strict=True):
            assert thing.colour in phrase.text and thing.shape in phrase.text


@given(PROMPTS)
def test_every_text_has_phrases(prompt: str) -> None:
    """Whatever Unicode holds can be read: phrases have counts of at least 0 and words, and nothing raises."""
    for phrase in object_phrases(prompt):
        assert phrase.count >= 0 and phrase.text.split()
