"""The replay behind the frontier: curves, costs and searches on outcomes made up for the purpose."""

import numpy as np
import pytest

from benchmarks.frontier.run import Outcomes, always, best_of_n, cascade, chosen, compare, hull, search
from router.verification.score_reading import ScoreModel


def drawn(n: int) -> Outcomes:
    """Two recipes, n prompts, 4 seeds: the cheap one draws every second prompt, the expensive one all but a tenth."""
    rng = np.random.default_rng(0)
    chance = np.stack([np.arange(n) % 2 == 0, np.arange(n) % 10 != 0], 1)[..., None]
    exact = (rng.random((n, 2, 4)) < 0.9 * chance).astype(float)
    prompts = tuple(f"prompt {i}" for i in range(n))
    return Outcomes(prompts, ("one",) * n, ("cheap", "strong"), exact, exact, np.array([0.1, 1.0]), 0.01)


@pytest.fixture
def outcomes() -> Outcomes:
    return drawn(200)


def test_a_hull_never_falls_and_bends_down() -> None:
    """Points below the line between others are left out, and so is whatever is more expensive and worse."""
    x, y = hull(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.1, 0.2, 0.8, 0.7, 0.9]))
    assert x.tolist() == [1.0, 3.0, 5.0]
    assert y.tolist() == [0.1, 0.8, 0.9]


def test_knowing_the_prompt_beats_random_mixing_and_nothing_else_does(outcomes: Outcomes) -> None:
    """Against true chances the gain is found; against shuffled ones there is none beyond its interval."""
    truth = outcomes.exact.mean(2)
    shuffled = truth[np.random.default_rng(1).permutation(len(truth))]
    points = [
        *always(outcomes),
        *chosen(outcomes, "router", truth, [0, 1]),
        *chosen(outcomes, "control", shuffled, [0, 1]),
    ]
    report = compare(points, "strong")
    gain = "points over random mixing at half of it"
    assert report["router"][gain]["low"] > 10
    assert report["control"][gain]["low"] < 3
    assert report["router"]["share of its cost for its quality"]["high"] < 0.7
    assert report["always"]["points over random mixing at that cost"]["value"] == pytest.approx(0, abs=1e-9)


def test_every_look_and_every_picture_is_paid_for(outcomes: Outcomes) -> None:
    """Best of three costs three pictures and three checks; a cascade pays for its second model when it runs."""
    three = next(point for point in best_of_n(outcomes, 0) if point.setting == "cheap x3")
    assert three.cost == pytest.approx(3 * 0.11)
    steps = cascade(outcomes, outcomes.score, 0, 1)
    assert steps[0].cost == pytest.approx(0.11)
    assert steps[-1].cost.max() == pytest.approx(0.11 + 1.01)


def test_a_search_with_a_sure_judge_is_right_wherever_a_stored_picture_is() -> None:
    """When seconds cost nothing, the search finds a right picture if there is one, and for no other prompt."""
    outcomes = drawn(20)
    outcomes.exact[::5] = 0  # whatever is tried; the scorer says so, since score and mark are one array
    score_model = ScoreModel(5.0, 1.0, 0.0, on_right=(7.0,), on_wrong=(-7.0,))
    found = search(outcomes, "search", np.full((20, 2), 0.5), score_model, 4.0, [0, 1])
    findable = outcomes.exact.max((1, 2))
    assert 0 < findable.mean() < 1
    assert found[0].exact == pytest.approx(findable)
    assert found[-1].cost.mean() < found[0].cost.mean()
