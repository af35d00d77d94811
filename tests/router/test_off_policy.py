"""Off-policy estimators against a simulated log whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from router.learning.off_policy import ESTIMATORS, MIN_EVIDENCE, LoggedChoices, compare, effective_size, weights

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
    """In forty logs the worst policy is never taken, though the model of the rewards praises it; the best one is."""
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
