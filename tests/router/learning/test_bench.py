"""The kit for routers: figures that can be worked out by hand, and no look at what is judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from router.bench import HandRule, Length, Nearest, Ridge, Router, Task, crossed, difference, judge, left_out, mean_of
from router.errors import ArtifactError
from router.quality.ratings_table import RatingsTable
from tests.router.conftest import synthetic_prompts

PAIR = ("sd15", "flux")


def task(name: str = "made up", count: int = 120, seed: int = 0, learn: bool = True) -> Task:
    """The gain grows with the length of a prompt."""
    prompts = tuple(synthetic_prompts(count, seed=seed))
    length = np.array([len(prompt) for prompt in prompts], float)
    gain = 0.1 + 0.3 * (length - length.mean()) / length.std() / 3
    noise = np.random.default_rng(seed).normal(0, 0.02, count)
    scores = np.stack([0.5 - gain / 2 + noise, 0.5 + gain / 2 + noise], axis=1)
    return Task(name, RatingsTable(prompts, prompts, PAIR, scores, np.ones_like(scores)), (PAIR,), learn)


class Fixed:
    """Scores that were written down."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, prompts: Sequence[str]) -> np.ndarray:
        return self.scores[: len(prompts)]


def test_figures_of_a_known_order_are_known() -> None:
    """With a gain on one prompt of four, the right order has 7/8 of the area, the wrong one 1/8, and no order a half,
    which is no lift."""
    prompts = ("a", "b", "c", "d")
    scores = np.array([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    one = Task("four", RatingsTable(prompts, prompts, PAIR, scores, np.ones_like(scores)), (PAIR,))
    for said, area in (([4, 3, 2, 1], 7 / 8), ([1, 2, 3, 4], 1 / 8), ([1, 1, 1, 1], 1 / 2)):
        found = judge(one, PAIR, np.array(said, float))
        assert found.apgr.value == pytest.approx(area)
        assert found.lift.value == pytest.approx((area - 0.5) * 0.25 / np.std([1, 0, 0, 0]))
    assert judge(one, PAIR, np.array([[0, 4.0], [0, 3], [0, 2], [0, 1]])).apgr.value == pytest.approx(7 / 8)


def test_a_router_that_knows_is_surely_better_and_one_that_repeats_is_not() -> None:
    """Length is surely better than a constant here; the same router twice differs by nothing, in every resample."""
    one = task()
    length = judge(one, PAIR, Length.learn(one.table).score(one.table.prompts))
    blind = judge(one, PAIR, np.zeros(len(one.table.prompts)))
    assert length.lift.low > 0 == blind.lift.value and length.apgr.low > 0.5
    assert difference(length, blind).low > 0
    same = difference(length, length)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    both = mean_of([length, blind])
    assert both.lift.value == pytest.approx(length.lift.value / 2)


@pytest.mark.parametrize("router", [HandRule, Length, Nearest, Ridge])
def test_every_baseline_scores_what_it_did_not_see(router: type) -> None:
    """Within a table each prompt is scored by a router of the other folds; between tables none is learned from that
    judges or may only judge."""
    one, other, only_judges = task(), task("other", seed=1), task("judge", seed=2, learn=False)
    seen: list[set[str]] = []

    def learn(table: RatingsTable) -> Router:
        seen.append(set(table.prompts))
        return router.learn(table)

    scores, split = crossed(one, learn)
    assert np.isfinite(scores).all() and scores.shape == (120, 2)
    for fold, known in enumerate(seen):
        assert not known & {p for p, k in zip(one.table.prompts, split, strict=True) if k == fold}
    learned: list[list[str]] = []

    def carry(tasks: Sequence[Task], pair: tuple[str, str]) -> Router:
        learned.append([task.name for task in tasks])
        return router.carry(tasks, pair)

    said = left_out([one, other, only_judges], carry, "made up")
    assert learned == [["other"]] and np.isfinite(said[PAIR]).all()


def test_an_official_part_judges() -> None:
    """With rows that judge, the others are learned from, once."""
    one = task()
    judged = np.arange(120) >= 90
    with_part = Task("part", one.table, (PAIR,), judged=judged)
    scores, _ = crossed(with_part, Ridge.learn)
    assert (np.isfinite(scores).all(axis=1) == judged).all()
    assert np.isfinite(judge(with_part, PAIR, scores).apgr.value)


@pytest.mark.parametrize("scores", [np.zeros((120, 3)), np.zeros(120), np.full((120, 2), np.nan)])
def test_scores_that_are_no_matrix_are_refused(scores: np.ndarray) -> None:
    """A wrong shape or a number that is none is told with the shape that it must have."""
    with pytest.raises(ArtifactError, match=r"must be \(\d+, 2\): prompts by recipes"):
        crossed(task(), lambda table: Fixed(scores))


def test_a_pair_that_is_not_rated_is_refused() -> None:
    """With the nearest name."""
    with pytest.raises(ArtifactError, match="no recipe 'fluks'; did you mean 'flux'"):
        Task("wrong", task().table, (("sd15", "fluks"),))
