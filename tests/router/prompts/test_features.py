"""Lexical features and skill signals."""

import tracemalloc

import pytest

from router.prompts.lexical import FEATURES, MAX_CHARACTERS, SIGNALS, lexical_features, skill_signals

HOSTILE = {
    "empty": "",
    "blank": " \n\t ",
    "emoji": "😀🎨" * 50,
    "mixed scripts": "ein roter Kreis 红色的圆 красный круг दो तारे ⭐",
    "lone surrogates": "a \ud800 red \udfff circle",
    "control characters": "a\x00red\x07circle",
    "expanding ligatures": "ﷺ" * 5_000,
}


def signals(prompt: str) -> dict[str, float]:
    return skill_signals(lexical_features(prompt))


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE)
def test_any_text_has_features(prompt: str) -> None:
    """Every text, however odd, gets all features and signals within their ranges."""
    features = lexical_features(prompt)
    assert tuple(features) == FEATURES
    assert all(value >= 0 for value in features.values())
    found = skill_signals(features)
    assert tuple(found) == SIGNALS
    assert all(0 <= value <= 1 for value in found.values())


@pytest.mark.parametrize("piece", ["a ", "'a", '"', "and ", "x", "１２", "“a"])
def test_a_million_characters_are_the_work_of_the_first_few_thousand(piece: str) -> None:
    """The work is bounded: of a million characters the first 4,000 are read, and no other is so much as copied."""
    text = piece * (1_000_000 // len(piece))
    beginning = text[:MAX_CHARACTERS]
    tracemalloc.start()
    found = lexical_features(text)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == lexical_features(beginning)
    assert most < 800_000, "bytes; less than the text itself"


@pytest.mark.parametrize(
    ("prompt", "signal"),
    [
        ('a shop with a sign that says "OPEN"', "text_rendering"),
        ("the word hello written in neon letters", "text_rendering"),
        ("three cats", "counting"),
        ("7 balloons", "counting"),
        ("a red cube and a blue sphere", "attribute_binding"),
        ("a cat to the left of a dog", "spatial_relation"),
        ("a street without cars", "negation"),
        ("a man who isn’t wearing a hat", "negation"),
        ("a dog, a cat and a horse", "several_objects"),
    ],
)
def test_a_skill_that_is_asked_for_is_seen(prompt: str, signal: str) -> None:
    """The signal of the skill in question is above one half, and far above that of a plain prompt."""
    assert signals(prompt)[signal] > 0.5
    assert signals("a quiet forest")[signal] < 0.1


@pytest.mark.parametrize(
    "prompt", ["it's a dog's life", "a photo in 8k from 1990", "rock 'n roll", "a picture of a cat"]
)
def test_look_alikes_are_not_taken_for_skills(prompt: str) -> None:
    """Apostrophes are no quotations, years and resolutions no counts, and "a picture of" is no object."""
    found = signals(prompt)
    assert found["text_rendering"] < 0.5
    assert found["counting"] == 0
    assert found["several_objects"] == 0


def test_backgrounds_and_places_are_no_objects() -> None:
    """Two things on a background are two objects."""
    assert lexical_features("three small yellow stars above a large blue ring on a black background")["objects"] == 2
    assert lexical_features("dog and cat")["objects"] == 2
    assert lexical_features("a green square on the left")["objects"] == 1


def test_complexity_grows_with_what_is_asked() -> None:
    """Each further demand raises the complexity."""
    prompts = (
        "a circle",
        "a red circle",
        "a red circle and a blue square",
        "a red circle above a blue square",
        "two red circles above three blue squares, no triangles",
    )
    grades = [signals(prompt)["complexity"] for prompt in prompts]
    assert grades == sorted(grades)
    assert grades[0] < 0.2
    assert grades[-1] > 0.7
