"""Drift of predictions is told when it is there, and hardly ever when it is not."""

from __future__ import annotations

import numpy as np
import pytest

from router.bootstrap.drift import EVERY, Observed, told_at, watch
from router.prompts.lexical import lexical_features

LEVEL, MARGIN = 0.05, 0.03


def errors(count: int, off: float, rng: np.random.Generator) -> np.ndarray:
    """found - predicted of pictures that are right or wrong, with a probability that is predicted but for `off`."""
    predicted = rng.uniform(0.4, 0.8, count)
    return (rng.random(count) < predicted + off) - predicted


def test_predictions_that_stay_right_are_hardly_ever_said_to_drift() -> None:
    """Looked at after every one of 400 pictures, at most the level's share of lives is told of drift, and with errors
    within the margin, too."""
    rng = np.random.default_rng(0)
    for off in (0.0, MARGIN):
        told = [told_at(errors(400, off, rng), LEVEL, MARGIN) is not None for _ in range(200)]
        assert np.mean(told) <= LEVEL


def test_drift_is_told_soon_after_it_begins() -> None:
    """A recipe that was right for 300 pictures and then is worse by .3 is told of within 130 more, in nine lives of
    ten, by a bettor who began about then; and of one that becomes better, too."""
    rng = np.random.default_rng(1)
    for off in (-0.35, 0.2):
        lives = [np.concatenate([errors(300, 0.0, rng), errors(200, off, rng)]) for _ in range(30)]
        told = [told_at(life, LEVEL, MARGIN) for life in lives]
        soon = [one for one in told if one is not None and 300 < one[0] <= (430 if off < -0.3 else 500)]
        assert len(soon) >= 27
        assert np.median([one[1] for one in soon]) >= 300 - 2 * EVERY


def test_no_later_picture_takes_back_what_was_told() -> None:
    """What is told after n pictures is told at n whatever comes later, so a look more changes nothing."""
    rng = np.random.default_rng(2)
    life = np.concatenate([errors(100, -0.4, rng), errors(300, 0.0, rng)])
    first = told_at(life, LEVEL, MARGIN)
    assert first is not None
    assert all(told_at(life[:n], LEVEL, MARGIN) == first for n in (first[0], first[0] + 1, 250))
    assert told_at(life[: first[0] - 1], LEVEL, MARGIN) is None


def test_drift_is_told_of_the_recipe_and_the_skill_in_which_it_is() -> None:
    """A recipe that became bad at counting alone is told of there; the other recipe, and other skills, are not."""
    rng = np.random.default_rng(3)
    prompts = {"": "a red fox", "counting": "three red foxes"}
    seen = []
    for _ in range(300):
        for recipe in ("sd15", "flux"):
            for skill, prompt in prompts.items():
                right = 0.8 if (recipe, skill) != ("flux", "counting") else 0.35
                seen.append(Observed(recipe, lexical_features(prompt), 0.8, float(rng.random() < right)))
    cells = {(one.recipe, one.skill): one for one in watch(seen, ["flux", "sd15"], LEVEL, MARGIN)}
    told = {key for key, one in cells.items() if one.told is not None}
    assert ("flux", "counting") in told and ("flux", "") in told and not any(recipe == "sd15" for recipe, _ in told)
    counting = cells["flux", "counting"]
    assert counting.pictures == 300 and counting.off[0] < -0.3
    assert sum(pictures for pictures, _, _ in counting.windows) == 300
    assert all(predicted == pytest.approx(0.8) for _, predicted, _ in counting.windows)
