"""Votes between two models become scores."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from router.errors import ArtifactError
from router.learning.ratings import read_ratings, tabulate
from router.learning.tables.votes import Vote, apart, scores_of, strengths_of
from router.quality.ratings_table import Scale


def votes(*told: tuple[str, str, str, int], times: int = 1) -> list[Vote]:
    return [Vote(prompt, prompt, left, right, won) for prompt, left, right, won in told for _ in range(times)]


def test_the_strengths_are_those_of_davidson() -> None:
    """With 600 wins, 200 ties and 200 losses the strengths stand as 3 to 1, and v is 200 over the root of 600 × 200."""
    told = votes(("p", "a", "b", 1), times=600) + votes(("p", "a", "b", 0), ("p", "a", "b", -1), times=200)
    found = strengths_of(told)
    gap = found.log_strengths[0] - found.log_strengths[1]
    assert gap == pytest.approx(math.log(3), abs=0.02)
    assert math.exp(found.log_ties) == pytest.approx(200 / math.sqrt(600 * 200), rel=0.03)
    assert found.points(gap) == pytest.approx(0.6 + 0.1, abs=0.005)


def test_ties_are_half_a_point_each() -> None:
    """Models that always tie have .5 each; a win moves them apart by the same amount up and down."""
    scores = scores_of(votes(("p", "a", "b", 0), ("q", "a", "b", 1), ("q", "b", "a", -1)))
    assert scores["p", "a"][0] + scores["p", "b"][0] == pytest.approx(1)
    assert scores["q", "a"][0] + scores["q", "b"][0] == pytest.approx(1)
    assert scores["q", "a"][0] > scores["p", "a"][0] > 0.5  # the pool knows that `a` won twice
    even = scores_of(votes(("p", "a", "b", 0), ("q", "a", "b", 1), ("q", "a", "b", -1)))
    assert even["p", "a"][0] == pytest.approx(0.5) and even["q", "b"][0] == pytest.approx(0.5)


def test_the_order_of_the_two_does_not_matter() -> None:
    """Swapping left and right, with the winner, gives the same scores."""
    told = votes(("p", "a", "b", 1), ("p", "b", "c", 0), ("q", "a", "c", -1), ("q", "b", "a", 1))
    turned = [Vote(v.prompt, v.group, v.right, v.left, -v.won) for v in told]
    one, other = scores_of(told), scores_of(turned)
    assert {key: pytest.approx(value[0], abs=1e-5) for key, value in one.items()} == {
        key: value[0] for key, value in other.items()
    }


def test_unanimous_votes_stay_inside_the_scale() -> None:
    """One vote a prompt, always for the same: scores are finite, inside 0..1, and more votes say more."""
    few = scores_of(votes(*((f"p{k}", "a", "b", 1) for k in range(30))))
    many = scores_of(votes(*((f"p{k}", "a", "b", 1) for k in range(30)), times=5))
    assert all(0 < score < 1 for score, _ in few.values())
    assert many["p0", "a"][0] > few["p0", "a"][0] > 0.5
    assert (few["p0", "a"][1], many["p0", "a"][1]) == (1, 5)


def test_scores_follow_the_truth_of_each_prompt() -> None:
    """Of simulated voters, scores of a prompt follow the strengths that its votes were drawn from (r > .8)."""
    rng, told, truth = random.Random(0), [], {}
    models = ("a", "b", "c", "d")
    for k in range(60):
        prompt = f"p{k}"
        strengths = {model: 0.6 * place + rng.gauss(0, 1) for place, model in enumerate(models)}
        truth |= {(prompt, model): value for model, value in strengths.items()}
        for _ in range(30):
            left, right = rng.sample(models, 2)
            won = 1 if rng.random() < 1 / (1 + math.exp(strengths[right] - strengths[left])) else -1
            told.append(Vote(prompt, prompt, left, right, won))
    scores = scores_of(told)
    pairs = np.array([(truth[key], score) for key, (score, _) in scores.items()])
    assert np.corrcoef(pairs.T)[0, 1] > 0.8


def test_prompts_of_one_group_share_their_votes() -> None:
    """What was voted on one form of a prompt counts for the other; each weighs its own votes."""
    told = [Vote("short", "g", "a", "b", 1), Vote("long", "g", "a", "b", 1), Vote("q", "q", "a", "b", -1)]
    scores = scores_of(told)
    assert scores["short", "a"] == scores["long", "a"] and scores["short", "a"][1] == 1
    assert scores["short", "a"][0] > scores["q", "a"][0]


def test_sets_that_were_never_compared_are_found() -> None:
    """Models are connected through others, or not at all."""
    told = votes(("p", "a", "b", 1), ("p", "b", "c", 1), ("p", "x", "y", 0))
    assert [sorted(some) for some in apart(told)] == [["a", "b", "c"], ["x", "y"]]


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("prompt,model_a,model_b,winner", ["{p},sd15,flux,model_b", "{p},flux,sd15,tie"]),
        ("Prompt,Model_A,Model_B,Winner", ["{p},sd15,flux,B", "{p},flux,sd15,Draw"]),
        ("prompt,left,right,preferred", ["{p},sd15,flux,right", "{p},flux,sd15,neither"]),
        ("prompt,model_1,model_2,winner", ["{p},sd15,flux,2", "{p},flux,sd15,tie (bothbad)"]),
        ("prompt,model_a,model_b,winner", ["{p},sd15,flux,flux", "{p},flux,sd15,TIE"]),
    ],
)
def test_votes_are_read_as_ratings(tmp_path: Path, header: str, rows: list[str]) -> None:
    """However sides and winner are called, votes become scores on 0..1 whose weights are their number."""
    file = tmp_path / "votes.csv"
    file.write_text("\n".join([header, *(row.format(p=f"p{k}") for k in range(25) for row in rows)]))
    notes: list[str] = []
    ratings = read_ratings(file, tell=notes.append)
    table = tabulate(ratings)
    assert table.scores.shape == (25, 2) and (table.weights == 2).all()
    assert table.scale == Scale(0.0, 1.0)
    better = table.columns.index("flux")
    assert (table.scores[:, better] > 0.5).all() and (table.scores[:, 1 - better] < 0.5).all()
    assert "a row a vote between two models" in notes[0]
    with pytest.raises(ArtifactError, match=r"holds votes, whose scores are on 0..1"):
        read_ratings(file, Scale(1, 5))


def test_winner_and_loser_are_enough(tmp_path: Path) -> None:
    """A table may name just who won against whom."""
    file = tmp_path / "votes.csv"
    file.write_text("prompt,winner,loser\np,flux,sd15\nq,flux,sd15\n")
    scores = {(r.prompt, r.recipe): r.score for r in read_ratings(file)}
    assert scores["p", "flux"] > 0.5 > scores["p", "sd15"]


def chances(votes: list[Vote], strength: dict[str, float], ties: float) -> float:
    """The logarithm of the probability of votes, as the head of votes.py has it; ties: log v."""
    total = 0.0
    for vote in votes:
        one, other = math.exp(strength[vote.left]), math.exp(strength[vote.right])
        tie = math.exp(ties) * math.sqrt(one * other)
        total += vote.weight * math.log({1: one, 0: tie, -1: other}[vote.won] / (one + other + tie))
    return total


@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.sampled_from(["ab", "bc", "ca"]), st.sampled_from([-1, 0, 1, 1])),
        min_size=1,
        max_size=9,
    ),
    st.sampled_from([1.0, 2.5]),
)
@settings(max_examples=12, deadline=None)
def test_strengths_are_the_likeliest_under_their_priors(told: list[tuple[str, str, int]], weight: float) -> None:
    """All votes together: normal priors of deviation 2 on log strengths and log v. A group: of deviation 1 around those
    of all. Both maxima are found again by another method, from the probabilities alone."""
    some = [Vote(prompt, prompt, *pair, won, weight) for prompt, pair, won in told]
    found = strengths_of(some)

    def loss(x: np.ndarray) -> float:
        return (x**2).sum() / 8 - chances(some, dict(zip(found.models, x, strict=False)), x[-1])

    best = minimize(loss, np.zeros(len(found.models) + 1), method="BFGS", options={"gtol": 1e-6}).x
    assert found.log_strengths == pytest.approx(best[:-1] - best[:-1].mean(), abs=2e-3)
    assert found.log_ties == pytest.approx(best[-1], abs=2e-3)
    level = dict(zip(found.models, found.log_strengths, strict=True))
    scores = scores_of(some)
    for group in {vote.group for vote in some}:
        own = [vote for vote in some if vote.group == group]
        models = list(dict.fromkeys(name for vote in own for name in (vote.left, vote.right)))

        def lost(x: np.ndarray, own: list[Vote] = own, models: list[str] = models) -> float:
            prior = sum((value - level[name]) ** 2 for name, value in zip(models, x, strict=True)) / 2
            return prior - chances(own, dict(zip(models, x, strict=True)), found.log_ties)

        at = minimize(lost, np.zeros(len(models)), method="BFGS", options={"gtol": 1e-7}).x
        for name, value in zip(models, at, strict=True):
            one, tie = math.exp(value / 2), math.exp(found.log_ties)
            points = (one + tie / 2) / (one + 1 / one + tie)
            asked = sum(vote.weight for vote in own if name in (vote.left, vote.right))
            assert scores[group, name] == (pytest.approx(points, abs=1e-5), asked)


def test_a_group_is_settled_in_a_handful_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's method with the true curvature: eight steps are as good as two hundred; with another it would creep."""
    told = votes(
        ("p", "a", "b", 1), ("p", "b", "c", 0), ("p", "c", "a", 1), ("p", "a", "c", -1), ("q", "a", "b", -1), times=4
    )
    whole = scores_of(told)
    monkeypatch.setattr("router.learning.tables.votes.STEPS", 8)
    assert {key: pytest.approx(score, abs=1e-12) for key, (score, _) in scores_of(told).items()} == {
        key: score for key, (score, _) in whole.items()
    }


def test_overwhelming_votes_are_fitted_to_the_end() -> None:
    """Thousands of votes that contradict all others move a group as far as they say, in steps that never overshoot."""
    told = [Vote("p", "p", "a", "b", 1, 1e4), Vote("q", "q", "a", "b", -1, 1e6), Vote("q", "q", "a", "b", 1, 1.0)]
    scores = scores_of(told)
    assert scores["p", "a"][0] > 0.9 and scores["q", "a"][0] < 0.1
    assert scores["q", "a"][0] + scores["q", "b"][0] == pytest.approx(1, abs=1e-6)
