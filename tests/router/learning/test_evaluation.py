"""Figures of routing: right where they can be worked out by hand, and honest about chance."""

from __future__ import annotations

import numpy as np
import pytest

from router.learning.evaluation import (
    GRID,
    Pair,
    apgr,
    calls_at,
    curve,
    evaluate,
    evaluate_columns,
    evaluate_pair,
    hull_area,
    shuffled,
)
from router.learning.intervals import Figure, resampled
from router.learning.ratings import tabulate
from router.learning.training import HeldOutScores, predict_held_out
from router.prompts.embedding import MiniLMEmbedder
from tests.router.conftest import synthetic_prompts, synthetic_ratings

ONE = np.zeros(4, dtype=np.int64)


def test_the_curve_of_a_known_ranking_is_known() -> None:
    """Gains 1, 0, 0, 0 in the right order are all there after a quarter of the calls, in the wrong order only at the
    end."""
    gains = np.array([4.0, 0.0, 0.0, 0.0])
    best = curve(np.array([3.0, 2.0, 1.0, 0.0]), gains, ONE)
    assert best[0] == 0 and best[25] == best[100] == 1.0
    assert apgr(best) == pytest.approx(0.875)
    assert calls_at(best, 0.8) == pytest.approx(0.2)
    assert apgr(curve(np.array([0.0, 1.0, 2.0, 3.0]), gains, ONE)) == pytest.approx(0.125)


def test_chance_has_half() -> None:
    """A ranking by nothing has an APGR of one half, and needs as many expensive calls as it gains."""
    rng = np.random.default_rng(0)
    points = curve(np.zeros(20_000), rng.normal(1, 1, 20_000), np.zeros(20_000, dtype=np.int64))
    assert apgr(points) == pytest.approx(0.5, abs=0.01)
    assert calls_at(points, 0.8) == pytest.approx(0.8, abs=0.02)


def test_prompts_are_ranked_within_their_fold() -> None:
    """A fold whose predictions are all lower by an offset changes nothing."""
    rng = np.random.default_rng(0)
    gains, split = rng.normal(1, 1, 400), np.arange(400) % 4
    ranking = gains + rng.normal(0, 1, 400)
    np.testing.assert_allclose(curve(ranking, gains, split), curve(ranking - 5.0 * (split == 2), gains, split))


def test_the_hull_forgives_a_dent() -> None:
    """The hull of a straight line is the line; a dent below it costs nothing, since mixing the ends is possible."""
    assert hull_area(GRID) == pytest.approx(0.5)
    assert hull_area(GRID - 0.2 * np.sin(np.pi * GRID)) == pytest.approx(0.5)
    assert hull_area(np.sqrt(GRID)) == pytest.approx(2 / 3, abs=0.01)


def test_intervals_resample_whole_groups() -> None:
    """Copies of a row within its group do not narrow the interval."""
    values = np.random.default_rng(0).normal(0, 1, 50)
    alone = resampled(np.arange(50), lambda rows: float(values[rows].mean()))
    copied = resampled(np.repeat(np.arange(50), 10), lambda rows: float(np.repeat(values, 10)[rows].mean()))
    assert copied == pytest.approx(alone, abs=0.05)


def test_a_figure_is_of_all_prompts_and_its_interval_of_the_resamples() -> None:
    """The value counts in no percentile, and every resample does; what has no value is left out."""
    assert Figure.of(np.array([9.0, 0.0, 1.0])) == Figure(9.0, 0.025, 0.975)
    assert Figure.of(np.array([9.0, 0.0, float("nan"), 1.0])) == Figure(9.0, 0.025, 0.975)


def test_all_of_a_gain_may_be_in_the_last_call() -> None:
    """A ranking that puts the only prompt with a gain last needs all calls, and almost none of the area is its."""
    gains = np.zeros(400)
    gains[-1] = 1.0
    points = curve(-np.arange(400.0)[::-1], gains, np.zeros(400, dtype=np.int64))
    late = curve(np.arange(400.0)[::-1], gains, np.zeros(400, dtype=np.int64))
    assert late[-2] == 0 < late[-1]
    assert (calls_at(late, 0.5), apgr(late)) == (1.0, pytest.approx(0.005))
    assert calls_at(points, 0.5) == 0.01


def test_a_law_is_found_and_its_shuffling_is_not(embedder: MiniLMEmbedder) -> None:
    """On held-out prompts the learned routing beats chance by far, intervals cover what they promise, and training on
    shuffled labels gives chance."""
    table = tabulate(synthetic_ratings(synthetic_prompts(150)))
    held_out, _ = predict_held_out(table, embedder)
    report = evaluate(table, held_out, [("sd15", "flux")])
    figures = report["pairs"]["sd15 -> flux"]
    learned = figures["rankings"]["learned"]
    assert learned["apgr_95"][0] > 0.55
    assert learned["apgr"] <= figures["rankings"]["oracle"]["apgr"]
    assert 0 < learned["of_oracle"] <= 1
    assert figures["brier"] < figures["brier_constant"]
    assert 0.85 <= report["columns"]["sd15"]["coverage"] <= 0.95
    blind, _ = predict_held_out(shuffled(table), embedder)
    control = evaluate(table, blind, [("sd15", "flux")])["pairs"]["sd15 -> flux"]["rankings"]["learned"]
    assert control["apgr"] < learned["apgr_95"][0]


def test_a_dear_model_that_is_no_better_has_no_figure() -> None:
    """Without a gap to recover, APGR is not a number, and nothing crashes."""
    worse = Pair(np.ones(4), np.zeros(4), np.zeros(4), np.ones(4), ONE, np.arange(4), ("a", "b", "c", "d"))
    assert np.isnan(evaluate_pair(worse)["rankings"]["learned"]["apgr"])


def test_a_model_that_was_not_predicted_is_left_out() -> None:
    """An artefact that knows fewer models than a table is judged on those that it knows."""
    table = tabulate(synthetic_ratings(synthetic_prompts(40)))
    mean = np.full_like(table.scores, np.nan)
    mean[:, 0] = table.scores[:, 0]
    split = np.zeros(len(mean), dtype=np.int64)
    assert set(evaluate_columns(table, HeldOutScores(mean, np.full_like(mean, 0.1), split))) == {table.columns[0]}
