"""Choosing pictures, and judging whether routing is worth it, on worlds with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from router.bootstrap.beliefs import Beliefs, Seen, Variances, fit_variances
from router.bootstrap.choosing import Cell, bettered, contenders, expected_gain, in_play, swept, valuable
from router.bootstrap.dial import height, hull, picks, prices_of
from router.bootstrap.labels import calibrate, calibration_error, slip_of
from router.bootstrap.prompts import everyday_prompts
from router.bootstrap.truth import FLATTERED, Proof, alike, find_out

Array = np.ndarray
SECONDS = np.array([0.1, 0.3, 0.35, 1.0])
"""Of four recipes: cheap, better on hard prompts, always worse than that one, and best on hard prompts."""


def world(prompts: int, seed: int = 0) -> tuple[Array, Array]:
    """Inputs (prompts, 2), of which the first says how hard a prompt is, and the true means (prompts, 4)."""
    rng = np.random.default_rng(seed)
    inputs = rng.uniform(0, 1.5, (prompts, 2))
    hard = inputs[:, 0] / 1.5
    means = np.stack([0.9 - 0.7 * hard, 0.9 - 0.3 * hard, 0.5 - 0.3 * hard, 0.9 - 0.1 * hard], axis=1)
    return inputs, means


def drawn(means: Array, cells: list[Cell], seed: int = 0) -> Seen:
    """What a noisy judge says of these pictures."""
    rng = np.random.default_rng(seed)
    prompt, recipe = (np.array([getattr(c, name) for c in cells]) for name in ("prompt", "recipe"))
    return Seen.of(prompt, recipe, means[prompt, recipe] + rng.normal(0, 0.1, len(cells)))


def beliefs_after(count: int, seed: int = 0) -> tuple[Beliefs, Array, list[Cell]]:
    inputs, means = world(80, seed)
    cells = swept(np.arange(80), 4, 1, seed)[:count]
    seen = drawn(means, cells, seed)
    return Beliefs.of(inputs, seen, fit_variances(inputs, seen)), means, cells


def test_the_posterior_is_that_of_the_textbook() -> None:
    """Mean and covariance are those of conditioning a normal vector on what was seen, written out densely."""
    inputs = np.random.default_rng(0).normal(size=(6, 3)) / 2
    v = Variances(0.1, 0.3, 0.05, 0.2, 0.15, 0.02)
    seen = Seen.of(np.array([0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1]), np.array([0.2, 0.5, 0.7, 0.3, 0.4]))
    found = Beliefs.of(inputs, seen, v)
    assert seen.count.tolist() == [1, 1, 1, 2] and seen.score[3] == pytest.approx(0.35)
    prompt, recipe = np.repeat(np.arange(6), 2), np.tile([0, 1], 6)
    near = np.exp(-((inputs[prompt][:, None] - inputs[prompt][None]) ** 2).sum(-1))
    smooth = v.covariance(near, recipe[:, None] == recipe[None])
    at = [2 * p + r for p, r in zip(seen.prompt, seen.recipe, strict=True)]
    same = seen.prompt[:, None] == seen.prompt[None]
    gram = smooth[np.ix_(at, at)] + v.prompt * same + np.diag(v.of_cell(seen.count))
    mean = found.centre + smooth[:, at] @ np.linalg.solve(gram, seen.score - found.centre)
    assert found.smooth(prompt, recipe)[0] == pytest.approx(mean, abs=1e-6)
    left = smooth - smooth[:, at] @ np.linalg.solve(gram, smooth[at])
    assert found.outlook(prompt, recipe)[0] == pytest.approx(np.diag(left), abs=1e-6)
    cells = (prompt, recipe)
    particular = v.prompt * (seen.prompt[:, None] == prompt[None])
    between = smooth - smooth[:, at] @ np.linalg.solve(gram, smooth[at] + particular)
    assert found.between(cells, found.smooth(*cells)[1], cells, found.outlook(*cells)[2]) == pytest.approx(
        between, abs=1e-6
    )


def test_beliefs_find_the_truth() -> None:
    """After every recipe drew sixty prompts, what is believed of the other twenty is within a tenth of it, mostly."""
    found, means, cells = beliefs_after(240)
    rest = np.setdiff1d(np.arange(80), [c.prompt for c in cells])
    error = np.abs(found.table(rest, 4)[0] - means[rest])
    assert np.sqrt((error**2).mean()) < 0.05


def test_the_later_half_of_pictures_betters_decisions_ever_less() -> None:
    """Decisions by a few pictures are worth less than those by many, in the eyes of the many; by the same, as much."""
    few, some, many = (beliefs_after(count)[0] for count in (24, 120, 320))
    prompts = np.arange(80)
    assert bettered(many, few, prompts, SECONDS) > bettered(many, some, prompts, SECONDS) >= 0
    assert bettered(many, many, prompts, SECONDS) == 0


@given(arrays.arrays(np.float64, (5, 3), elements=st.floats(0, 1)), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_looking_is_worth_something_only_where_it_may_change_the_choice(mean: Array, size: float) -> None:
    """The expected gain is 0 where beliefs cannot move, or all move together, and grows with how far they may."""
    seconds = np.array([1.0, 2.0, 3.0])
    own = np.zeros((5, 3, 2))
    own[:, 1] = np.array([size, 2 * size])
    together = np.ones((5, 3, 1)) * size
    assert expected_gain(mean, np.zeros((5, 3, 1)), seconds)[0] == pytest.approx(0, abs=1e-9)
    assert expected_gain(mean, together, seconds)[0] == pytest.approx(0, abs=1e-9)
    small, large = expected_gain(mean, own, seconds)
    assert 0 <= small <= large + 1e-12


def test_a_recipe_that_cannot_win_gets_no_more_pictures() -> None:
    """The recipe that is always worse than a cheaper one is neither in play nor a contender; the others are."""
    found, _, cells = beliefs_after(160)
    assert 2 not in in_play(found, np.arange(80), SECONDS)
    assert set(contenders(found, np.arange(80), SECONDS)) == {0, 1, 3}
    new = valuable(found, np.arange(80), SECONDS, set(cells), 12, 2, seed=1)
    assert {cell.recipe for cell in new} == {0, 1, 3}


@pytest.mark.parametrize("seed", range(3))
def test_no_picture_is_chosen_twice(seed: int) -> None:
    """Chosen pictures are new, all different, and in the end all that recipes in play have were chosen."""
    found, _, cells = beliefs_after(160, seed)
    made = set(cells)
    while new := valuable(found, np.arange(80), SECONDS, made, 120, 1, seed):
        assert not made & set(new) and len(set(new)) == len(new)
        made |= set(new)
    assert {Cell(p, r) for p in range(80) for r in in_play(found, np.arange(80), SECONDS, seed)} <= made


def test_a_sweep_is_complete_prompt_by_prompt() -> None:
    """Uniform choice draws every recipe of a prompt before the next, and each picture once."""
    cells = swept(np.arange(7), 3, 2, seed=0)
    assert len(set(cells)) == len(cells) == 42
    assert all(len({cell.prompt for cell in cells[k : k + 3]}) == 1 for k in range(0, 42, 3))


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1)), min_size=1, max_size=12))
def test_a_hull_is_above_all_points_and_concave(points: list[tuple[float, float]]) -> None:
    """No point lies above the hull, which rises ever less steeply."""
    x, y = (np.array(side) for side in zip(*points, strict=True))
    assert (height(x, y, x) >= y - 1e-9).all()
    hx, hy = hull(x, y)
    slopes = np.diff(hy) / np.diff(hx)
    assert (np.diff(slopes) <= 1e-6 * np.abs(slopes[:-1]).max(initial=1)).all() and (np.diff(hy) > 0).all()


def test_the_dial_runs_from_the_best_to_the_cheapest() -> None:
    """At the lowest price the best recipe is taken, at the highest the cheapest, unless it is hopeless."""
    quality = np.array([[0.2, 0.5, 0.4, 0.9]])
    prices = prices_of(SECONDS)
    assert picks(quality, SECONDS, prices[0]).tolist() == [3]
    assert picks(quality, SECONDS, prices[-1]).tolist() == [0]


def proof(prompts: int, predicts: str, seeds: int = 2, seed: int = 0) -> Proof:
    """Right-or-wrong pictures of the world, and predictions that know the truth, nothing, or nonsense."""
    rng = np.random.default_rng(seed)
    _, means = world(prompts, seed)
    means = means[:, [0, 1, 3]]
    score = (rng.random((*means.shape, seeds)) < means[..., None]).astype(float)
    predicted = {"truth": means, "nothing": np.broadcast_to(means.mean(0), means.shape),
                 "nonsense": rng.permutation(means)}[predicts]  # fmt: skip
    words = tuple(" ".join(["word"] * int(n)) for n in rng.integers(3, 20, prompts))
    return Proof(words, ("cheap", "middle", "strong"), score, predicted, SECONDS[[0, 1, 3]])


def test_a_router_that_knows_pays() -> None:
    """With predictions that are true the verdict is that routing pays; an oracle that saw pictures gains no less."""
    found = find_out(proof(400, "truth"), lambda quality: picks(quality, SECONDS[[0, 1, 3]], 0.3))
    assert found.pays and found.verdict.startswith("Routing pays here")
    router, oracle = found.curves["router"].gain, found.curves["oracle"].gain
    assert 0 < router.low < router.value < oracle.high
    assert found.served is not None and sum(found.served.shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("predicts", ["nothing", "nonsense"])
@pytest.mark.parametrize("seed", range(6))
def test_a_router_that_knows_nothing_is_said_not_to_be_worth_it(predicts: str, seed: int) -> None:
    """Without knowledge the verdict is no, names the best recipe, and claims nothing."""
    found = find_out(proof(300, predicts, seed=seed))
    assert not found.pays
    assert found.verdict.startswith("Routing is not worth it here")
    assert found.best in found.verdict


def test_pictures_that_say_nothing_end_with_no() -> None:
    """Where all recipes are equally good and scores are noise, routing is not worth it, at any size of the noise."""
    rng = np.random.default_rng(0)
    for spread in (1e-6, 0.01, 0.3):
        score = 0.5 + spread * rng.standard_normal((120, 3, 2))
        predicted = 0.5 + spread * rng.standard_normal((120, 3))
        found = find_out(Proof(tuple(map(str, range(120))), ("a", "b", "c"), score, predicted, SECONDS[[0, 1, 3]]))
        assert not found.pays


def test_the_oracle_is_not_paid_for_chance() -> None:
    """An oracle that chooses by noise gains by the pictures it chose by, and nothing by others."""
    rng = np.random.default_rng(1)
    score = rng.random((300, 3, 2))
    seconds = np.array([1.0, 1.1, 1.2])
    flat = np.full((300, 3), 0.5)
    both = find_out(Proof(tuple(map(str, range(300))), ("a", "b", "c"), score, flat, seconds))
    once = find_out(Proof(tuple(map(str, range(300))), ("a", "b", "c"), score[..., :1], flat, seconds))
    assert once.curves["oracle"].gain.low > 0.1 and once.curves["oracle"].name == FLATTERED
    assert both.curves["oracle"].gain.low < 0.03 and both.curves["oracle"].name == "oracle"


@pytest.mark.parametrize(("own", "noise"), [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
def test_the_intraclass_correlation_is_the_prompts_share(own: float, noise: float) -> None:
    """Of pictures that share a part of their score, and of those that do not."""
    rng = np.random.default_rng(2)
    score = own * rng.standard_normal((800, 2, 1)) + noise * rng.standard_normal((800, 2, 2))
    assert alike(score) == pytest.approx(own / (own + noise), abs=0.06)
    assert alike(score[..., :1]) is None


def test_prompts_that_come_along_are_different() -> None:
    """480 everyday prompts, no two alike, and every beginning of 88 asks for text, numbers, places and negation."""
    prompts = everyday_prompts()
    assert len(set(prompts)) == len(prompts) == 480
    start = " ".join(prompts[:88])
    assert all(word in start for word in ('"OPEN"', "four", "left", "without"))


def judged(count: int, seed: int, slip: float) -> tuple[Array, list[str], Array, Array]:
    """Scores of a judge that is too content, worse on one recipe; recipes; truths; labels with slips."""
    rng = np.random.default_rng(seed)
    recipes = rng.choice(["a", "b"], count).tolist()
    odds = rng.normal(0, 3, count)
    bias = np.where(np.array(recipes) == "a", -0.5, -2.0)
    right = rng.random(count) < 1 / (1 + np.exp(-(0.8 * odds + bias)))
    return 1 / (1 + np.exp(-odds)), recipes, right, right ^ (rng.random(count) < slip)


@pytest.mark.parametrize("slip", [0.0, 0.08])
def test_labels_calibrate_a_judge(slip: float) -> None:
    """After 400 labels its probabilities are right to a few hundredths, for each recipe, slips of the rater included;
    before, they were not."""
    scores, recipes, _, said = judged(400, 0, slip)
    found = calibrate(scores, recipes, said, ("a", "b"), max(slip, 0.01))
    other, theirs, truth, _ = judged(4000, 1, 0.0)
    for key in ("a", "b"):
        rows = np.array(theirs) == key
        told = found.probability(other[rows], [key] * int(rows.sum()))
        assert calibration_error(told, truth[rows].astype(float)) < 0.06
        assert calibration_error(other[rows], truth[rows].astype(float)) > 0.07
    before = calibrate(scores[:0], [], said[:0], ("a", "b"), 0.04)
    assert found.deviation(other, theirs).mean() < before.deviation(other, theirs).mean() / 2


def test_a_label_is_worth_most_where_the_judge_is_in_doubt() -> None:
    """Of a picture that the judge is sure of, and of a recipe that has many labels, one more teaches less."""
    scores, _, _, said = judged(60, 2, 0.0)
    found = calibrate(scores[:40], ["a"] * 40, said[:40], ("a", "b"), 0.02)
    sure, doubtful = found.worth(np.array([0.9999, 0.7]), ["a", "a"])
    many, few = found.worth(np.array([0.7, 0.7]), ["a", "b"])
    assert 0 <= sure < doubtful and many < few


@pytest.mark.parametrize("slip", [0.0, 0.05, 0.15])
def test_slips_are_told_by_what_was_asked_twice(slip: float) -> None:
    """With many pairs the estimate is the rate at which single answers are wrong; with none it is a modest guess."""
    rng = np.random.default_rng(0)
    wrong = rng.random((4000, 2)) < slip
    assert slip_of([(bool(a), bool(b)) for a, b in wrong]) == pytest.approx(slip, abs=0.02)
    assert 0.02 < slip_of([]) < 0.06


def test_verification_reads_labels_as_the_calibration_does() -> None:
    """The verdict of the score model is the calibrated probability at the recipes' mean level, whatever the chance."""
    scores, recipes, _, said = judged(300, 3, 0.0)
    found = calibrate(scores, recipes, said, ("a", "b"), 0.02)
    model = found.score_model(scores, recipes)
    assert model.verdict(0.2, 0.6) == model.verdict(0.9, 0.6)
    lower, upper = sorted(found.probability(np.array([0.6, 0.6]), ["a", "b"]))
    assert lower < model.verdict(0.5, 0.6) < upper
    assert np.mean(model.on_right) > np.mean(model.on_wrong)
