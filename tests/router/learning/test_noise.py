"""How noisy ratings are, and what an oracle gains by that noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.learning.noise import correlation, halves, noise_of, oracle_apart
from router.learning.ratings import Rating, read_ratings


def rated(own: float, seeds: float, raters: float, prompts: int = 150) -> list[Rating]:
    """Two models, two pictures a prompt, three raters a picture; deviations of what is the prompt's and model's own,
    the picture's, and the rater's. `strong` is better by 1 on average."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in range(prompts):
        for model, level in (("cheap", 0.0), ("strong", 1.0)):
            cell = level + own * rng.normal()
            for seed in range(2):
                picture = cell + seeds * rng.normal()
                rows += [
                    Rating(f"p{prompt}", model, picture + raters * rng.normal(), seed=str(seed), rater=name)
                    for name in "abc"
                ]
    return rows


@pytest.mark.parametrize(("own", "seeds", "raters"), [(1.0, 1.0, 0.01), (1.0, 0.01, 1.0), (1.0, 0.5, 2.0)])
def test_correlations_are_shares_of_variance(own: float, seeds: float, raters: float) -> None:
    """Of pictures: what is the prompt's, of all in a picture's mean rating; of raters: what is the picture's."""
    found = noise_of(rated(own, seeds, raters, 400))
    # The levels of the two models are apart by 1, which is a part of the cells' variance, too.
    whole = own**2 + 0.25
    assert found.pictures == pytest.approx(whole / (whole + seeds**2 + raters**2 / 3), abs=0.06)
    assert found.raters == pytest.approx((whole + seeds**2) / (whole + seeds**2 + raters**2), abs=0.06)
    assert (found.cells, found.rated) == (800, 1600)


def test_a_correlation_is_worked_out_by_hand() -> None:
    """Twenty pairs, half of them 0 and 2, half 4 and 6: between 160 / 19, within 2, usual size 2, so that 3.2105 of
    5.2105 is the groups' own. Groups of their own size weigh by it; alike groups have nothing of their own."""
    assert correlation([[0.0, 2.0], [4.0, 6.0]] * 10) == pytest.approx((160 / 19 - 2) / 2 / ((160 / 19 - 2) / 2 + 2))
    # 20 pairs as above and one group of three 3s, which is the mean: 43 scores, and sizes of 20 * 4 + 9 by squares.
    usual = (43 - 89 / 43) / 20
    own, within = (160 / 20 - 40 / 22) / usual, 40 / 22
    assert correlation([*[[0.0, 2.0], [4.0, 6.0]] * 10, [3.0] * 3]) == pytest.approx(own / (own + within))
    assert correlation([[0.0, 2.0]] * 20) == 0.0 and correlation([[float(k)] * 2 for k in range(20)]) == 1.0
    assert correlation([[0.0, 2.0]] * 19 + [[1.0]] * 5) is None


def test_without_pictures_and_raters_nothing_is_said() -> None:
    """A plain table has no noise to be told, and no oracle that could be judged by something else."""
    rows = [Rating(f"p{k}", model, 0.1 * k) for k in range(40) for model in ("cheap", "strong")]
    assert noise_of(rows).pictures is noise_of(rows).raters is None
    assert oracle_apart(rows, "cheap", "strong") is None
    assert correlation([[1.0, 2.0]] * 3) is None


def test_an_oracle_of_pure_chance_gains_nothing() -> None:
    """Where a picture says nothing of the next, who chooses by one is no better than a coin; without noise it is."""
    chance = oracle_apart(rated(0.01, 1.0, 0.01), "cheap", "strong")
    truth = oracle_apart(rated(1.0, 0.01, 0.01), "cheap", "strong")
    assert chance is not None and chance["apgr_95"][0] < 0.5 < chance["apgr_95"][1]
    assert truth is not None and truth["apgr_95"][0] > 0.7


def test_halves_are_of_pictures_if_there_are_several_else_of_raters() -> None:
    """Two pictures make two halves, whoever rated; of one picture, the raters do."""
    two = [Rating("p", "m", float(s), seed=str(s), rater=r) for s in (1, 3) for r in "ab"]
    one = [Rating("q", "m", v, seed="1", rater=r) for r, v in (("a", 1.0), ("b", 5.0))]
    assert halves([*two, *one]) == {("p", "m"): (1.0, 3.0), ("q", "m"): (1.0, 5.0)}


@pytest.mark.parametrize(
    "text",
    ["prompt,model,score,seed,annotator\na,x,1,7,me\na,y,2,7,me\n", "prompt,x,y,seed,rater\na,1,2,7,me\n"],
)
def test_tables_tell_pictures_and_raters(tmp_path: Path, text: str) -> None:
    """A row a prompt and model, or a column a model: who rated which picture comes along, and is no model."""
    (tmp_path / "r.csv").write_text(text)
    said: list[str] = []
    rows = read_ratings(tmp_path / "r.csv", tell=said.append)
    assert [(r.recipe, r.score, r.seed, r.rater) for r in rows] == [("x", 1.0, "7", "me"), ("y", 2.0, "7", "me")]
    assert not any("not looked at" in note for note in said)
