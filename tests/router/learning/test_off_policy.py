"""Off-policy estimators against a simulated log whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.learning.intervals import STAKES, at_every_look, log_capital
from router.learning.off_policy import (
    ESTIMATORS,
    MIN_EVIDENCE,
    Comparison,
    Estimated,
    LoggedChoices,
    compare,
    effective_size,
    increments,
    weights,
)

OPTIONS = 4


class World:
    """Prompts of three kinds, four recipes; the mean reward of a recipe depends on the kind of prompt."""

    means = np.array([[0.8, 0.6, 0.5, 0.3], [0.3, 0.7, 0.4, 0.6], [0.5, 0.2, 0.6, 0.4]])

    def __init__(self, count: int, rate: float, seed: int, model_error: float = 0.0, bias: float = 0.0) -> None:
        """rate: of uniform exploration around recipe 0; model_error, bias: of the model of the rewards."""
        rng = np.random.default_rng(seed)
        self.kinds = rng.integers(0, 3, count)
        self.logging = np.full((count, OPTIONS), rate / OPTIONS)
        self.logging[:, 0] += 1 - rate
        chosen = rng.choice(OPTIONS, size=count, p=self.logging[0])  # chance is the same for every prompt
        rewards = np.clip(self.means[self.kinds, chosen] + rng.normal(0, 0.15, count), 0, 1)
        modelled = self.means[self.kinds] + bias + rng.normal(0, model_error, (count, OPTIONS))
        groups = [f"prompt {k // 2}" for k in range(count)]
        propensity = self.logging[np.arange(count), chosen]
        self.logged = LoggedChoices(chosen, propensity, rewards, modelled, groups, self.logging)

    def taking(self, recipes: list[int]) -> np.ndarray:
        """The policy that takes, for each kind of prompt, this recipe."""
        return np.eye(OPTIONS)[np.array(recipes)[self.kinds]]

    def truth(self, recipes: list[int]) -> float:
        """What it earns on a prompt of these."""
        return float(self.means[self.kinds, np.array(recipes)[self.kinds]].mean())


BEST, WORST = [0, 1, 2], [3, 0, 1]


@pytest.mark.parametrize("name", ["ips", "dr", "snips"])
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_estimates_are_right_on_average(name: str, bias: float) -> None:
    """Over many logs the mean error vanishes in its own noise, also if the model of the rewards is wrong."""
    errors = []
    for seed in range(120):
        world = World(400, 0.4, seed, bias=bias)
        errors.append(ESTIMATORS[name](world.logged, world.taking(BEST), 1e9).mean() - world.truth(BEST))
    assert abs(np.mean(errors)) < 3.5 * np.std(errors) / np.sqrt(len(errors)) + 0.002


def test_doubly_robust_is_less_noisy() -> None:
    """With a fair model of the rewards DR has a fraction of the variance of IPS, and SNIPS lies between."""
    found: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for seed in range(120):
        world = World(400, 0.2, seed, model_error=0.05)
        for name, estimator in ESTIMATORS.items():
            found[name].append(estimator(world.logged, world.taking(BEST), 1e9).mean() - world.truth(BEST))
    spread = {name: np.std(errors) for name, errors in found.items()}
    assert spread["dr"] < 0.5 * spread["ips"]
    assert spread["dr"] < spread["snips"] < spread["ips"]


def test_doubly_robust_survives_wrong_propensities_if_the_model_is_right() -> None:
    """With a right model a log whose propensities are off by a half still gives the truth, where IPS does not."""
    world = World(4000, 0.4, 1)
    wrong = LoggedChoices(
        world.logged.chosen,
        np.clip(world.logged.propensity * 1.5, 0, 1),
        world.logged.reward,
        world.logged.modelled,
        world.logged.groups,
        world.logging,
    )
    target, truth = world.taking(BEST), world.truth(BEST)
    assert abs(ESTIMATORS["dr"](wrong, target, 1e9).mean() - truth) < 0.02
    assert abs(ESTIMATORS["ips"](wrong, target, 1e9).mean() - truth) > 0.05


def test_intervals_cover_the_truth() -> None:
    """The 95 % interval of the difference holds the true difference in about 95 of 100 logs."""
    covered = 0
    for seed in range(100):
        world = World(500, 0.3, seed, model_error=0.1, bias=0.1)
        found = compare(world.logged, world.taking([0, 0, 0]), world.taking(BEST), resamples=400, seed=seed)
        low, high = found.estimates["dr"].difference_interval
        covered += low <= world.truth(BEST) - world.truth([0, 0, 0]) <= high
    assert covered >= 88


def test_a_worse_candidate_never_wins_and_a_better_one_does() -> None:
    """In forty logs the worst policy is never taken, though the model of the rewards praises it; the best one is, .17
    better and after 800 decisions at 30 %."""
    for seed in range(40):
        world = World(800, 0.3, seed, model_error=0.05)
        world.logged.modelled[:] = 1 - world.logged.modelled  # says that the worst is the best
        assert not compare(world.logged, world.taking([0, 0, 0]), world.taking(WORST), resamples=300).verdict[0]
        world = World(800, 0.3, seed, model_error=0.05)
        assert compare(world.logged, world.taking([0, 0, 0]), world.taking(BEST), resamples=300).verdict[0]


def test_without_exploration_nothing_is_claimed() -> None:
    """A log of a policy that left nothing to chance cannot speak for another one; the remedy is named."""
    world = World(400, 0.0, 1)
    wins, why = compare(world.logged, world.logging, world.taking(BEST)).verdict
    assert not wins and "explore: {rate: 0.02}" in why


def test_a_difference_that_nobody_saw_is_not_believed() -> None:
    """If what the candidate would take was hardly ever taken, the model's praise is not enough."""
    world = World(400, 0.01, 2)
    world.logged.modelled[:, 1] = 1.0
    found = compare(world.logged, world.taking([0, 0, 0]), world.taking([1, 1, 1]))
    assert found.evidence < MIN_EVIDENCE
    assert not found.verdict[0] and "taken and rated only" in found.verdict[1]


def test_the_same_decisions_are_no_improvement() -> None:
    """A candidate that decides as the incumbent does is not swapped in."""
    world = World(400, 0.3, 3)
    wins, why = compare(world.logged, world.taking(BEST), world.taking(BEST)).verdict
    assert not wins and "as the incumbent does" in why


def test_weights_are_clipped_and_counted() -> None:
    """No decision weighs more than the bound; how many were cut is reported, and the effective number falls short."""
    world = World(2000, 0.02, 4)
    target = world.taking([1, 1, 1])
    assert weights(world.logged, target, 50).max() <= 50
    found = compare(world.logged, world.taking([0, 0, 0]), target, clip=50)
    assert found.clipped == int((world.logged.chosen == 1).sum()) > 0
    assert found.effective[1] == pytest.approx(found.clipped)
    assert effective_size(np.ones(7)) == pytest.approx(7)


# ------------------------------------------------------------------------------------------------------- the verdict


def judged(
    single: tuple[float, float] = (0.01, 0.05), always: tuple[float, float] = (0.01, 0.06), **others: float
) -> Comparison:
    """A comparison whose difference has these intervals: of one look, and valid at every look."""
    dr = Estimated(0.7, 0.73, (0.6, 0.8), (0.6, 0.8), 0.03, single)
    whole = Comparison(1000, 300, 1000, 400, 40, (1000.0, 50.0), 0, {"dr": dr}, 30.0, always)
    return replace(whole, **others)


@pytest.mark.parametrize(
    ("found", "wins"),
    [
        (judged(), True),
        (judged(single=(-0.01, 0.05)), False),
        (judged(single=(0.0, 0.05)), False),
        (judged(always=(-0.01, 0.06)), False),
        (judged(always=(0.0, 0.06)), False),
        (judged(single=(-0.05, -0.01), always=(-0.06, -0.01)), False),
        (judged(effective_evidence=MIN_EVIDENCE - 0.1), False),
        (judged(effective_evidence=float(MIN_EVIDENCE)), True),
        (judged(evidence=400, effective_evidence=3.0), False),
        (judged(by_chance=0), False),
        (judged(otherwise=0), False),
    ],
)
def test_a_candidate_wins_only_if_both_intervals_lie_above_zero(found: Comparison, wins: bool) -> None:
    """An unproven candidate never goes into force: both lower ends must be above zero, and at least 20 effective
    decisions, by weight and not by number, must stand behind it."""
    assert found.verdict[0] is wins


def test_what_each_decision_says_is_computed_by_hand() -> None:
    """Two options; before takes the first (.9, .1), after the second (.1, .9). A decision that took the second with
    propensity .1 says .8 (m2 - m1) + 8 (r - m2), one that took the first with .9 says .8 (m2 - m1) - .8 / .9 (r - m1);
    the bound is 1 + .8 / .1 times the span."""
    before, after = np.tile([0.9, 0.1], (2, 1)), np.tile([0.1, 0.9], (2, 1))
    logged = LoggedChoices(
        np.array([1, 0]), np.array([0.1, 0.9]), np.array([1.0, 0.25]), np.tile([0.5, 0.75], (2, 1)), ["a", "b"], before
    )
    said = increments(logged, before, after)
    assert said.x == pytest.approx([0.8 * 0.25 + 8 * 0.25, 0.8 * 0.25 + 0.8 / 0.9 * 0.25])
    assert said.bound == pytest.approx(9.0)
    assert increments(replace(logged, span=1.5), before, after).bound == pytest.approx(13.5)
    given = increments(logged, before, after, np.zeros((2, 2)))
    assert given.x == pytest.approx([8.0, -0.8 / 0.9 * 0.25])


def test_what_could_not_be_taken_says_nothing() -> None:
    """A decision on which the two differ about an option that chance never takes counts as no difference, whatever the
    model of the rewards promises."""
    before, after = np.array([[0.9, 0.1, 0.0]] * 2), np.array([[0.1, 0.0, 0.9], [0.1, 0.9, 0.0]])
    logged = LoggedChoices(
        np.array([0, 0]),
        np.array([0.9, 0.9]),
        np.array([0.5, 0.5]),
        np.tile([0.1, 0.1, 0.9], (2, 1)),
        ["a", "b"],
        before,
    )
    said = increments(logged, before, after)
    assert said.x[0] == 0.0 and said.unsupported == 1
    assert said.x[1] == pytest.approx(-0.8 / 0.9 * 0.4)


def test_effective_evidence_counts_by_weight() -> None:
    """Of two decisions on the candidate's side with the weights 2 and 4, (2 + 4)^2 / (4 + 16) = 1.8 are effective."""
    before, after = np.tile([1.0, 0.0], (3, 1)), np.tile([0.0, 1.0], (3, 1))
    least = np.array([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5]])
    logged = LoggedChoices(
        np.array([1, 1, 0]), np.array([0.5, 0.25, 0.5]), np.full(3, 0.5), np.full((3, 2), 0.5), ["a", "b", "c"], least
    )
    found = compare(logged, before, after, resamples=20)
    assert (found.evidence, found.effective_evidence) == (2, pytest.approx(1.8))


# -------------------------------------------------------------------------------------------------- every look


def test_capital_is_computed_by_hand() -> None:
    """Summands 1 and -.5 below a bound of 2, staked at s: the mean of (1 + s / 2) (1 - s / 4); against a mean of .5,
    (1 + .2 s) (1 - .4 s). How often each occurred may be given instead."""
    x = np.array([1.0, -0.5])
    by_hand = np.log(np.mean((1 + STAKES / 2) * (1 - STAKES / 4)))
    assert log_capital(x, 2.0) == pytest.approx(by_hand)
    assert log_capital(x, 2.0, 0.5) == pytest.approx(np.log(np.mean((1 + 0.2 * STAKES) * (1 - 0.4 * STAKES))))
    assert log_capital(x, 2.0, times=np.array([[1.0, 1.0], [2.0, 0.0]])) == pytest.approx(
        [by_hand, np.log(np.mean((1 + STAKES / 2) ** 2))]
    )


def test_the_capital_of_no_difference_stays_one_on_average() -> None:
    """Fair bets neither win nor lose: over the two outcomes of a summand with mean 0 the expected capital is 1, and
    with a mean below, less."""
    for x, p in ((np.array([9.0, -1.0]), 0.1), (np.array([0.5, -1.5]), 0.75)):
        capital = [float(np.exp(log_capital(x[k : k + 1], 10.0))) for k in range(2)]
        assert p * capital[0] + (1 - p) * capital[1] == pytest.approx(1.0)
        assert (p - 0.05) * capital[0] + (1 - p + 0.05) * capital[1] < 1.0


def test_the_interval_of_every_look_is_where_the_capital_reaches_forty() -> None:
    """At either end the capital is 40, the ends mirror one another, and nothing is known of nothing."""
    x = np.random.default_rng(0).normal(0.2, 0.3, 400).clip(-0.9, 0.9)
    low, high = at_every_look(x, 1.0)
    assert low < x.mean() < high
    assert float(log_capital(x, 1.0, low)) == pytest.approx(np.log(40), abs=1e-6)
    assert float(log_capital(-x, 1.0, -high)) == pytest.approx(np.log(40), abs=1e-6)
    assert at_every_look(-x, 1.0) == pytest.approx((-high, -low))
    assert at_every_look(np.zeros(0), 1.0) == (-1.0, 1.0)


def test_few_lives_see_the_interval_miss_at_any_look() -> None:
    """Of 2,000 lives of 3,000 skewed summands (9 with one tenth, else -1: mean 0), looked at after each hundred, the
    lower end is above 0 at any look in at most 2.5 %, while mean - 1.96 errors is in more than 7 %."""
    rng = np.random.default_rng(7)
    wins = np.cumsum(rng.binomial(100, 0.1, (2000, 30)), axis=1)
    count = 100.0 * np.arange(1, 31)
    times = np.stack([wins, count - wins], axis=-1).astype(float)
    always = (log_capital(np.array([9.0, -1.0]), 1.0, times=times) >= np.log(40)).any(axis=1)
    mean = (10 * wins - count) / count
    single = (mean - 1.96 * np.sqrt(100 * (wins / count) * (1 - wins / count) / count) > 0).any(axis=1)
    assert always.mean() <= 0.025 and single.mean() > 0.07


def test_a_worse_candidate_of_the_past_does_not_hide_in_a_good_one_of_today() -> None:
    """The verdict at every look hangs on candidates that had only seen what came before: if these were no better, the
    praise of today's changes nothing."""
    world = World(2000, 0.3, 5)
    today = compare(world.logged, world.taking([0, 0, 0]), world.taking(BEST), resamples=200)
    assert today.verdict[0]
    past = increments(world.logged, world.taking([0, 0, 0]), world.taking(WORST))
    found = compare(world.logged, world.taking([0, 0, 0]), world.taking(BEST), resamples=200, said=past)
    assert not found.verdict[0] and "valid at every look" in found.verdict[1]
