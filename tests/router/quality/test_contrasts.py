"""What sets recipes apart, shrunk by its reliability."""

from __future__ import annotations

import numpy as np
import pytest

from router.quality.contrasts import Contrasts, fit_contrasts

LEVEL = np.array([0.5, 0.7, 0.9])


def test_each_own_part_is_multiplied_and_the_common_one_stays() -> None:
    """Above their levels by .1, .2 and 0, recipes share .1; of their own parts 0, .1 and -.1, half is left."""
    made = Contrasts(LEVEL, np.array([0.5, 0.5, 0.5])).shrunk(np.array([0.6, 0.9, 0.9]))
    np.testing.assert_allclose(made, [0.6, 0.85, 0.95])


def test_full_reliability_changes_nothing_and_none_leaves_what_is_common() -> None:
    """With slopes of one predictions stay; with slopes of zero recipes keep the distances of their levels."""
    means = np.array([[0.3, 0.8, 0.9], [0.55, 0.6, 0.85]])
    np.testing.assert_allclose(Contrasts(LEVEL, np.ones(3)).shrunk(means), means)
    apart = np.diff(Contrasts(LEVEL, np.zeros(3)).shrunk(means), axis=1)
    np.testing.assert_allclose(apart, np.tile(np.diff(LEVEL), (2, 1)))


def test_columns_that_were_added_later_are_left_alone() -> None:
    """A fourth column has no contrast of its own, and does not move those of the first three."""
    contrasts = Contrasts(LEVEL, np.array([0.2, 0.4, 0.6]))
    three = np.array([0.4, 0.9, 0.8])
    four = contrasts.shrunk(np.append(three, 0.33))
    np.testing.assert_allclose(four[:3], contrasts.shrunk(three))
    assert four[3] == 0.33


def drawn(seed: int, noise: tuple[float, ...], n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """(predictions, scores) of recipes that share a difficulty and have parts of their own, predicted with `noise`."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(0, 0.1, (n, 1)), rng.normal(0, 0.05, (n, len(noise)))
    truth = 0.6 + common + own
    return truth + rng.normal(0, 1, own.shape) * np.array(noise), truth + rng.normal(0, 0.1, own.shape)


@pytest.mark.parametrize("seed", range(3))
def test_noisy_parts_are_shrunk_and_sure_ones_are_not(seed: int) -> None:
    """The more noise there is in the prediction of a recipe's own part, the less of it is kept."""
    predictions, scores = drawn(seed, (0.0, 0.0, 0.05, 0.1))
    slope = fit_contrasts(predictions, scores, np.ones_like(scores)).slope
    assert slope[:2].min() > 0.6 > slope[2] + 0.05 > slope[3] + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_choosing_by_shrunk_differences_is_better(seed: int) -> None:
    """On other prompts, the recipe that is chosen by shrunk predictions is better than the one chosen by raw ones."""
    noise = (0.0, 0.01, 0.1, 0.2)
    contrasts = fit_contrasts(*drawn(seed, noise), np.ones((1500, 4)))
    predictions, scores = drawn(100 + seed, noise)
    rows = np.arange(len(scores))
    raw, shrunk = (scores[rows, x.argmax(axis=1)].mean() for x in (predictions, contrasts.shrunk(predictions)))
    assert shrunk > raw + 0.001


def test_too_few_ratings_take_the_reliability_of_the_others() -> None:
    """A recipe rated on a handful of prompts is shrunk as recipes are on the whole, not by its own luck."""
    predictions, scores = drawn(5, (0.05, 0.05, 0.05, 0.05, 0.05))
    scores[10:, 4] = np.nan
    slope = fit_contrasts(predictions, scores, np.where(np.isnan(scores), 0.0, 1.0)).slope
    assert abs(slope[4] - slope[:4].mean()) < 0.05


def test_an_artefact_that_has_none_is_read_as_before() -> None:
    """Without contrasts nothing is shrunk; contrasts of more columns than there are, are refused."""
    assert Contrasts.of({"columns": ["a"]}) is None
    with pytest.raises(ValueError, match="not for 1 columns"):
        Contrasts.of({"columns": ["a"], "contrasts": {"level": [0.1, 0.2], "slope": [1.0, 1.0]}})
    kept = Contrasts(LEVEL, np.array([0.25, 0.5, 1.0]))
    again = Contrasts.of({"columns": ["a", "b", "c"], "contrasts": kept.config})
    assert again is not None
    np.testing.assert_allclose((again.level, again.slope), (kept.level, kept.slope))
