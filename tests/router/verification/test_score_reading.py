"""How scores are read: computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from router.types import Prices, Resources
from router.verification.score_calibration import fit_score_model
from router.verification.score_reading import UNCALIBRATED, ScoreModel, expit, logit
from router.verification.value_of_information import Option, value_of_a_look

UNEQUAL = ScoreModel(2.0, 0.5, 0.7, (1.0, 0.5), (0.2, -0.5, -1.0, -2.0))


def test_a_verdict_has_all_three_parts_of_the_law() -> None:
    """A score of .6 and a chance of .8 at slope 2, trust .5 and level .7 are log-odds of 2 * .405465 + .5 * 1.386294 +
    .7 = 2.204077, a probability of .900610."""
    assert UNEQUAL.verdict(0.8, 0.6) == pytest.approx(1 / (1 + math.exp(-2.204077)), abs=1e-6)
    assert UNEQUAL.verdict(0.8, 0.6) == pytest.approx(0.900610, abs=1e-5)
    assert UNEQUAL.offset(0.8) == pytest.approx(1.393147, abs=1e-6)
    assert UNEQUAL.verdict(0.5, 0.5) == pytest.approx(expit(0.7))


def test_nothing_is_surer_than_thirty_and_no_score_is_nearer_to_the_ends_than_a_thousandth() -> None:
    """Log-odds beyond 30 count as 30, and probabilities of 0 and 1 as .001 and .999: of one number as of many."""
    ends = [1 / (1 + math.exp(30.0)), 1 / (1 + math.exp(-30.0))]
    assert [expit(-40.0), expit(40.0)] == ends == np.asarray(expit(np.array([-1e9, 1e9]))).tolist()
    odds = [-math.log(999), -math.log(999), 0.0, math.log(999), math.log(999)]
    probabilities = [0.0, 0.001, 0.5, 0.999, 1.0]
    assert [logit(one) for one in probabilities] == pytest.approx(odds)
    assert np.asarray(logit(np.array(probabilities))).tolist() == pytest.approx(odds)
    assert isinstance(logit(np.float64(0.5)), float) and isinstance(logit(np.array(0.5)), float)
    steep = ScoreModel(100.0, 0.5, 0.7, (1.0,), (-1.0,))
    assert steep.outlook(0.5)[0].tolist() == ends[::-1] == [steep.verdict(0.5, 0.9), steep.verdict(0.5, 0.1)]


def test_a_fit_finds_slope_trust_and_level() -> None:
    """From 40,000 pictures drawn by the law 1.5 score + .6 chance + 1, each number comes back within .1."""
    rng = np.random.default_rng(0)
    score, chance = rng.uniform(0.05, 0.95, 40_000), rng.uniform(0.05, 0.95, 40_000)
    odds = 1.5 * np.asarray(logit(score)) + 0.6 * np.asarray(logit(chance)) + 1.0
    found = fit_score_model(chance, score, rng.random(40_000) < 1 / (1 + np.exp(-odds)))
    assert (found.slope, found.trust, found.level) == pytest.approx((1.5, 0.6, 1.0), abs=0.1)


def test_what_may_be_seen_weighs_by_its_kind() -> None:
    """Two scores of right pictures and four of wrong ones, at a chance of .6: each of the two has .3, each of the four
    .1, the highest verdict comes first, and all weights are 1 together."""
    values, weights = UNEQUAL.outlook(0.6)
    assert weights == pytest.approx([0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    offset = 0.5 * math.log(1.5) + 0.7
    evidence = [1.0, 0.5, 0.2, -0.5, -1.0, -2.0]
    assert values == pytest.approx([1 / (1 + math.exp(-2 * e - offset)) for e in evidence])


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("model", [UNEQUAL, UNCALIBRATED, ScoreModel(1.0, 1.0, 0.0, (1.0,), (-1.0, -2.0, 0.5))])
def test_what_may_be_seen_is_everything(model: ScoreModel, chance: float) -> None:
    """The weights sum to one, those of right pictures to the chance, whatever the numbers of scores of either kind."""
    _, weights = model.outlook(chance)
    assert weights.sum() == pytest.approx(1.0)
    only_right, _ = ScoreModel(model.slope, model.trust, model.level, model.on_right, (-9.0,)).outlook(chance)
    assert len(only_right) == len(model.on_right) + 1


def test_a_worse_picture_is_not_a_loss() -> None:
    """At a chance of .5 the default expects a verdict of .75 or of .25, each with one half: beside a best of .5 that
    gains .5 * .25 = .125, since the best is kept; beside .8, nothing."""
    assert UNCALIBRATED.gain(0.5, 0.5) == pytest.approx(0.125)
    assert UNCALIBRATED.gain(0.5, 0.8) == 0.0
    assert UNCALIBRATED.gain(0.5, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize("best", [0.0, 0.3, 0.7, 1.0])
def test_a_gain_is_never_negative_and_falls_with_the_best(best: float) -> None:
    """For every chance, E[(verdict - best)+] is at least 0, and no more than for a smaller best."""
    chances = np.linspace(0.02, 0.98, 25)
    gains, more = np.asarray(UNEQUAL.gain(chances, best)), np.asarray(UNEQUAL.gain(chances, max(0.0, best - 0.1)))
    assert (gains >= 0).all() and (gains <= more + 1e-12).all()


def test_a_reservation_value_gains_its_price() -> None:
    """At a price of .1 the default with a chance of .5 is worth opening up to a best of z with .5 (.75 - z) = .1."""
    assert UNCALIBRATED.reservation(0.5, 0.1) == pytest.approx(0.55)


def test_a_look_counts_the_failure_that_it_may_show() -> None:
    """A look at a draft with a chance of .5 (worth two pictures), with another draft for nothing: after a verdict of
    .75 the chance is .5833 and gains .03125, after .25 it is .4167 and gains .19792; half of each is .114583."""
    draft = Option("draft", 0.5, 2.0, Resources())
    assert value_of_a_look(draft, [draft], UNCALIBRATED, Prices()) == pytest.approx(0.1145833, abs=1e-6)
    other = Option("other", 0.5, 2.0, Resources())
    assert value_of_a_look(draft, [other], UNCALIBRATED, Prices()) == pytest.approx(0.5 * 0.5 * 0.5, abs=1e-6)
