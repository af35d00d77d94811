"""Best-of-n with n left open: planned beforehand, and as good as it says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from router.types import UNBOUNDED, Prices, Quality, Resources
from router.verification.best_of_n import Outlook, plan_search
from router.verification.n_auto import _estimate
from router.verification.score_calibration import fit_score_model
from router.verification.score_reading import UNCALIBRATED, ScoreModel
from router.verification.value_of_information import Option

LEVELS = (0.9, 2.0, 3.0, 4.2)
FAIR = ScoreModel(1.0, 1.0, 0.0, LEVELS, tuple(-level for level in LEVELS))


def options(cheap: float = 0.5, strong: float = 0.8, strength: float = 1e6) -> list[Option]:
    return [
        Option("cheap", cheap, strength, Resources(0.2, 0.2, 0.001)),
        Option("strong", strong, strength, Resources(1.0, 1.0, 0.01)),
    ]


def scored(rng: np.random.Generator, right: np.ndarray) -> np.ndarray:
    """Scores of a scorer whose log-odds are normal, two apart on either side."""
    return 1 / (1 + np.exp(-rng.normal(np.where(right, 2.0, -1.0), 1.4)))


def simulated(outlook: Outlook, chances: dict[str, float], strength: float, n: int = 40_000) -> tuple[float, float]:
    """(share of right pictures, pictures made) when the search is run on `n` prompts with real rights and scores."""
    rng = np.random.default_rng(1)
    true = {name: rng.beta(c * strength, (1 - c) * strength, n) for name, c in chances.items()}
    best, kept, made = np.zeros(n), np.zeros(n, bool), np.zeros(n)
    going = np.ones(n, bool)
    for place, turn in enumerate(outlook.turns):
        going &= best < turn.bar if place else going
        right = rng.random(n) < true[turn.recipe]
        score = np.clip(scored(rng, right), 0.001, 0.999)
        verdict = 1 / (1 + np.exp(-turn.slope * np.log(score / (1 - score)) - turn.offset))
        better = going & (verdict > best)
        kept, best = np.where(better, right, kept), np.where(better, verdict, best)
        made += going
    return float(kept.mean()), float(made.mean())


@pytest.fixture(scope="module")
def learned() -> ScoreModel:
    """A judge fitted to scores like those of the simulation, of recipes of many chances."""
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.05, 0.95, 40_000)
    right = rng.random(len(chance)) < chance
    return fit_score_model(chance, scored(rng, right), right)


@pytest.mark.parametrize("strength", [2.0, 1000.0])
@pytest.mark.parametrize(("cheap", "strong"), [(0.3, 0.4), (0.5, 0.8), (0.7, 0.75), (0.1, 0.9)])
@pytest.mark.parametrize("price", [0.02, 0.2])
def test_what_is_expected_is_what_a_simulation_finds(
    learned: ScoreModel, cheap: float, strong: float, price: float, strength: float
) -> None:
    """Quality and number of pictures of a search come out as predicted, whether failures repeat or not."""
    found = plan_search(options(cheap, strong, strength), learned, Prices(price), 6)
    quality, made = simulated(found, {"cheap": cheap, "strong": strong}, strength)
    assert found.quality == pytest.approx(quality, abs=0.035)
    assert found.pictures == pytest.approx(made, rel=0.12)


def test_dear_seconds_leave_one_picture() -> None:
    """When nothing is worth its price there is one picture, of the recipe that is worth most or costs least."""
    assert len(plan_search(options(), FAIR, Prices(50.0), 6).turns) == 1
    assert plan_search(options(0.5, 0.5), FAIR, Prices(1.0), 6).turns[0].recipe == "cheap"


def test_cheaper_seconds_never_give_less() -> None:
    """As a second gets cheaper, the expected quality and the number of pictures rise."""
    found = [plan_search(options(), FAIR, Prices(price), 6) for price in (2.0, 0.5, 0.1, 0.01)]
    assert all(a.quality <= b.quality + 1e-9 for a, b in pairwise(found))
    assert all(a.pictures <= b.pictures + 1e-9 for a, b in pairwise(found))


def test_the_bar_falls_on_the_way() -> None:
    """The longer a search lasts, the less a picture must promise to end it."""
    found = plan_search(options(strength=2.0), FAIR, Prices(0.05), 6)
    bars = [turn.bar for turn in found.turns[1:]]
    assert len(bars) >= 2
    assert bars == sorted(bars, reverse=True)
    assert found.reached[0] == 1.0
    assert list(found.reached) == sorted(found.reached, reverse=True)


def test_the_worst_case_keeps_to_the_limits() -> None:
    """No more pictures are planned than there is room for, if all of them should be needed; one there always is."""
    plenty = plan_search(options(), FAIR, Prices(0.001), 6)
    tight = plan_search(options(), FAIR, Prices(0.001), 6, replace(UNBOUNDED, latency_s=1.5))
    cost = {"cheap": 0.2, "strong": 1.0}
    assert sum(cost[turn.recipe] for turn in plenty.turns) > 1.5
    assert 0 < sum(cost[turn.recipe] for turn in tight.turns) <= 1.5
    assert len(plan_search(options(), FAIR, Prices(0.001), 6, Resources()).turns) == 1


@pytest.mark.parametrize("key", ["latency_s", "work_s", "cost_usd"])
def test_seconds_work_and_money_each_bound_the_worst_case(key: str) -> None:
    """What binds is the one that is scarce: with room for two cheap pictures and no more, no third is planned."""
    cheap = options()[:1]
    each = getattr(cheap[0].takes, key)
    for times, pictures in ((1.0, 1), (1.99, 1), (2.0, 2), (2.99, 2), (3.01, 3)):
        room = replace(UNBOUNDED, **{key: each * times})
        assert len(plan_search(cheap, FAIR, Prices(0.0), 3, room).turns) == pictures, times


def test_without_room_the_one_picture_is_the_cheapest_then_the_quickest() -> None:
    """A search that nothing fits makes the picture of the least money, of equals that of the least seconds."""
    dear = Option("a dear one", 0.9, 1e6, Resources(0.1, 0.1, 0.02))
    slow = Option("a slow one", 0.9, 1e6, Resources(9.0, 9.0, 0.001))
    for of in ([dear, *options()], [slow, *options()], [*options(), slow, dear]):
        (turn,) = plan_search(of, FAIR, Prices(0.001), 6, Resources()).turns
        assert (turn.recipe, turn.bar) == ("cheap", 1.0)


def test_money_counts_like_time() -> None:
    """A recipe that costs much is put off when a dollar is worth much."""
    by_time = plan_search(options(), FAIR, Prices(per_s=0.001), 6)
    by_money = plan_search(options(), FAIR, Prices(per_s=0.001, per_usd=60.0), 6)
    assert by_time.turns[0].recipe == "strong"
    assert by_money.turns[0].recipe == "cheap"


def test_a_scorer_that_sees_nothing_makes_no_second_picture() -> None:
    """When verdicts do not depend on the picture, more pictures are worth nothing."""
    blind = ScoreModel(0.0, 1.0, 0.0, LEVELS, tuple(-level for level in LEVELS))
    assert len(plan_search([options()[0]], blind, Prices(0.001), 6).turns) == 1


def test_the_default_judge_expects_what_it_was_told() -> None:
    """Without calibration a look changes nothing on average: the mean verdict is the chance before it."""
    for chance in (0.1, 0.5, 0.9):
        values, weights = UNCALIBRATED.outlook(chance)
        assert math.isclose(float((values * weights).sum()), chance, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("bases", "basis"),
    [(("prior", "prior"), "prior"), (("prior", "learned"), "composed"), (("learned", "learned"), "composed")],
)
def test_a_search_is_as_unsure_as_its_pictures_on_average(bases: tuple[str, str], basis: str) -> None:
    """Its deviation is the mean of those of its turns, each as often as it is had; its seconds and dollars are those
    that the outlook expects of each turn; and only if all of them are guesses it is one."""
    qualities = {"a": Quality(0.4, 0.1, bases[0]), "b": Quality(0.6, 0.4, bases[1])}  # type: ignore[arg-type]
    turns = [SimpleNamespace(recipe=name) for name in ("a", "a", "b")]
    outlook = SimpleNamespace(turns=turns, quality=1.25, expected=lambda of: sum(of.values()))
    takes = {"a": Resources(1.0, 2.0, 4.0, 8.0), "b": Resources(16.0, 32.0, 64.0, 128.0)}
    found = _estimate("search", outlook, qualities, takes)  # type: ignore[arg-type]
    assert (found.quality.mean, found.quality.basis) == (1.0, basis)
    assert found.quality.std == pytest.approx(0.2)
    assert (found.latency_s, found.work_s, found.cost_usd, found.queue_s) == (17.0, 34.0, 68.0, 136.0)
    one = SimpleNamespace(turns=turns[:1], quality=0.9, expected=outlook.expected)
    alone = _estimate("search", one, qualities, takes).quality  # type: ignore[arg-type]
    assert alone == Quality(0.4, 0.1, "prior" if bases[0] == "prior" else "composed")
