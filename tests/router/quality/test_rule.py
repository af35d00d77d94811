"""The hand-written rule: what it says, and how data move it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.pairs import ask
from router.learning.ratings import Rating
from router.learning.training import train
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.quality.rule import RulePart, RulePrior, fit_rule, hand_rule, rule_alone
from router.registry.artifact import load_artifact
from tests.router.conftest import synthetic_prompts

REAL = Path(__file__).resolve().parents[3] / "router" / "artifacts" / "real"
PRIOR = RulePrior()
EASY, HARD = "a red fox", 'three blue cubes to the left of a sign that says "OPEN"'


def test_the_hand_rule_is_what_it_says() -> None:
    """Written text, counts and colours ask for the better model; a negation does not."""
    assert hand_rule('three red cubes and a blue sign that says "OPEN"') > hand_rule("a red cube") == 0
    assert hand_rule("a street without cars") < 0
    for prompt, wanted in {
        "a cube and a blue ball": 0.0,
        "a red cube and a blue ball": 1.0,
        "a red cube, a blue ball and a green cone": 1.0,
        "two cubes": 1.0,
        "two cubes and three balls": 2.0,
        "two cubes, three balls and five cones": 2.0,
        "a cube above a ball": 1.0,
        'a sign that says "OPEN"': 1.0,
        "a street without cars, without people": -1.5,
        "two cubes without a ball": -0.5,
    }.items():
        assert hand_rule(prompt) == wanted, prompt


def ratings(count: int, amount: float, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Scores (n, 2) whose gain grows by `amount` of its standard deviations for each unit of the rule, and prompts."""
    rng = np.random.default_rng(seed)
    prompts = [HARD if k % 2 else EASY for k in range(count)]
    rule = np.array([hand_rule(prompt) for prompt in prompts])
    gain = 0.1 + 0.05 * (amount * (rule - rule.mean()) + rng.normal(size=count))
    return np.stack([0.5 - gain / 2, 0.5 + gain / 2], axis=1), prompts


def amount_of(part: RulePart, scores: np.ndarray) -> float:
    """In standard deviations of the gain."""
    return float((part.slope[1] - part.slope[0]) / (scores[:, 1] - scores[:, 0]).std())


def test_few_ratings_leave_the_rule_and_many_replace_it() -> None:
    """Of ratings against the rule, 24 move it a little, 2,000 turn it; where what is learned knows it all, nothing is
    added in the end."""
    few, many = (ratings(count, -0.4) for count in (24, 2000))
    found = [amount_of(fit_rule(np.full_like(s, 0.5), s, p, PRIOR), s) for s, p in (few, many)]
    assert found[1] < -0.2 < found[0] < PRIOR.amount + 0.05
    scores, prompts = ratings(2000, 0.4)
    assert amount_of(fit_rule(np.full_like(scores, 0.5), scores, prompts, PRIOR), scores) > 0.2
    rule = np.array([hand_rule(prompt) for prompt in prompts])
    known = np.stack([0.45 - 0.01 * (rule - rule.mean()), 0.55 + 0.01 * (rule - rule.mean())], axis=1)
    assert abs(amount_of(fit_rule(known, scores, prompts, PRIOR), scores)) < 0.05


def test_the_rule_alone_sets_apart_by_strength_and_leaves_the_mean() -> None:
    """Its slopes are greatest for the best rated column, add up to nothing where strengths are even, and are nothing
    for columns that are equally good."""
    scores = np.random.default_rng(0).normal([0.3, 0.5, 0.7], 0.1, (60, 3)).clip(0, 1)
    part = rule_alone(scores, [EASY, HARD] * 30, PRIOR)
    assert part.slope[0] < part.slope[1] < part.slope[2] and part.slope.sum() == pytest.approx(0, abs=1e-9)
    assert part.alone
    same = rule_alone(np.full((60, 3), 0.5), [EASY, HARD] * 30, PRIOR)
    assert (same.slope == 0).all()


def test_cells_that_nobody_rated_do_not_count() -> None:
    """With holes in the table the amount is what the rated cells say; with one rating a prompt, nothing is said."""
    scores, prompts = ratings(400, 0.4)
    holes = scores.copy()
    holes[::2, 0] = np.nan
    whole = fit_rule(np.full((200, 2), 0.5), scores[1::2], prompts[1::2], PRIOR)
    with_holes = fit_rule(np.full_like(scores, 0.5), holes, prompts, PRIOR)
    assert np.isfinite(with_holes.slope).all() and np.isfinite(whole.slope).all()
    alone = scores.copy()
    alone[::2, 0] = alone[1::2, 1] = np.nan
    assert (fit_rule(np.full_like(scores, 0.5), alone, prompts, PRIOR).slope == 0).all()


def test_what_is_trained_has_the_rule_and_serves_it(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """From ratings that are noise, the strong model is expected to gain more on what the rule says; with no prior, and
    after the part is taken out, it is not. A part for other columns is refused."""
    rng = np.random.default_rng(0)
    rows = [
        Rating(prompt, recipe, float(np.clip(rng.normal(level, 0.15), 0, 1)))
        for prompt in synthetic_prompts(40)
        for recipe, level in (("sd15", 0.4), ("flux", 0.6))
    ]
    artifact, _ = train(rows, tmp_path / "with", "with", "", "", embedder)
    bare, _ = train(rows, tmp_path / "without", "without", "", "", embedder, prior=None)
    assert "rule" in artifact.config and "rule" not in bare.config

    def gain(predictor: QualityPredictor, prompt: str) -> float:
        quality = ask(predictor, embedder, prompt)["quality"]
        return float(quality["flux"] - quality["sd15"])

    served = QualityPredictor(artifact)
    without = QualityPredictor(replace(artifact, config={k: v for k, v in artifact.config.items() if k != "rule"}))
    apart = [gain(served, prompt) - gain(without, prompt) for prompt in (EASY, HARD)]
    assert apart[1] > apart[0]
    wrong = {**artifact.config, "rule": {"slope": [0.0] * 3, "centre": 0.0, "alone": False}}
    with pytest.raises(ArtifactError, match="is not for 2 columns"):
        QualityPredictor(replace(artifact, config=wrong))


def test_the_shipped_artefact_says_that_a_rule_sets_its_columns_apart(embedder: MiniLMEmbedder) -> None:
    """`real` has levels from ratings and the rule between its columns: on two prompts of which the rule says the same,
    its columns stand equally far apart, but for what 0 and 1 cut off; answers and card say so."""
    artifact = load_artifact(REAL)
    predictor = QualityPredictor(artifact)
    answers = {p: ask(predictor, embedder, p) for p in (EASY, "a bowl of soup", HARD)}
    assert answers[EASY]["basis"] == "rule"
    gains = {p: one["quality"]["flux"] - one["quality"]["sd15"] for p, one in answers.items()}
    assert gains[EASY] == pytest.approx(gains["a bowl of soup"], abs=0.02) and gains[HARD] > gains[EASY] + 0.1
    assert "hand-written rule" in artifact.card
