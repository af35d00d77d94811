"""A new model from a few anchors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.new_model import add_model, anchor_prompts
from router.learning.pairs import ask
from router.learning.ratings import Rating
from router.learning.report import ColumnReport
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import Artifact
from tests.router.conftest import synthetic_prompts, synthetic_ratings

Trained = tuple[Artifact, tuple[ColumnReport, ...]]


def like_sd15(prompts: list[str]) -> list[Rating]:
    """Ratings of a new model that fails where SD1.5 fails."""
    rated = [rating for rating in synthetic_ratings(prompts, seed=5) if rating.recipe == "sd15"]
    return [Rating(rating.prompt, "new", rating.score) for rating in rated]


def test_forty_anchors_show_where_a_new_model_fails(trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """On prompts that neither saw, the added column agrees with the law of the model that it is like."""
    artifact, report = add_model(trained[0], like_sd15(synthetic_prompts(40, seed=7)), tmp_path / "added", embedder)
    predictor = QualityPredictor(artifact)
    tests = synthetic_prompts(80, seed=9)
    truth = [rating.score for rating in like_sd15(tests)]
    said = [ask(predictor, embedder, prompt)["quality"]["new"] for prompt in tests]
    assert np.corrcoef(truth, said)[0, 1] > 0.7
    assert report.pearson > 0.6
    assert "Added: `new`" in artifact.card


def test_the_other_columns_stay(trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """What was predicted of the known models is predicted still, to the last digit."""
    artifact, _ = add_model(trained[0], like_sd15(synthetic_prompts(30, seed=7)), tmp_path / "added", embedder)
    before, after = (ask(QualityPredictor(a), embedder, "a red circle")["quality"] for a in (trained[0], artifact))
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"new"}


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (like_sd15(synthetic_prompts(19)), r"19 anchors are too few"),
        ([Rating(f"p{k}", "flux", 0.5) for k in range(30)], r"has a column 'flux' already"),
        ([Rating(f"p{k}", "ab"[k % 2], 0.5) for k in range(40)], r"rate 2 models \(a, b\)"),
        ([Rating(f"p{k}", "new", 4.0) for k in range(40)], r"outside 0\.\.1, the scale of the artefact"),
        ([], r"rate 0 models"),
    ],
)
def test_wrong_anchors_are_refused(trained: Trained, tmp_path: Path, ratings: list[Rating], message: str) -> None:
    """Too few, of a known model, of several, off the scale: each is an error that says what to do."""
    with pytest.raises(ArtifactError, match=message):
        add_model(trained[0], ratings, tmp_path / "added")


def test_the_anchors_are_fixed_and_mixed() -> None:
    """Ninety-six different prompts, and the first two dozen already hold text, counts, places and negation."""
    prompts = anchor_prompts()
    assert len(set(prompts)) == len(prompts) == 96
    beginning = " ".join(prompts[:24])
    assert all(word in beginning for word in ('"OPEN"', "seven", "to the left of", "without", "velvet"))


def test_the_report_of_a_new_column_is_of_its_anchors(
    trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path
) -> None:
    """Their number, mean and spread, errors of five folds that saw none of their own, and all of it in the artefact."""
    ratings = like_sd15(synthetic_prompts(40, seed=7))
    artifact, report = add_model(trained[0], ratings, tmp_path / "added", embedder)
    scores = np.array([rating.score for rating in ratings])
    assert (report.recipe, report.prompts) == ("new", 40)
    assert (report.mean, report.mse_constant) == (pytest.approx(scores.mean()), pytest.approx(scores.var()))
    assert report.mse < 0.6 * report.mse_constant and 0.8 <= report.coverage <= 1.0
    assert round(report.coverage * 40) == pytest.approx(report.coverage * 40)
    config, before = artifact.config, trained[0].config
    assert config["columns"] == [*before["columns"], "new"]
    assert config["training"]["held_out"] == [*before["training"]["held_out"], asdict(report)]
    assert len(config["calibration"]) == len(before["calibration"]) + 1
    assert set(config["calibration"][-1]) == {"knots", "spread", "floor"} and "new" not in before["columns"]
    assert "Fitted from 40 anchor prompts" in artifact.card and f"mean score\n{report.mean:.3f}" in artifact.card
    constant, flat = add_model(
        trained[0], [Rating(rating.prompt, "flat", 0.5) for rating in ratings], tmp_path / "flat", embedder
    )
    assert (flat.pearson, flat.mse_constant) == (0.0, 0.0) and constant.config["columns"][-1] == "flat"


def test_the_prompts_of_a_new_model_go_round_all_patterns() -> None:
    """Each plain prompt once with each pattern; every dozen begins with all of its kinds."""
    prompts = anchor_prompts()
    assert prompts[0] == "a lighthouse on a cliff" and prompts[8].startswith("a lighthouse on a cliff beside a wooden")
    assert prompts[1] == 'a bowl of ramen beside a wooden sign that says "OPEN"'
    assert prompts[-1] == "a violinist on a rooftop between a tiny green door and a huge white one"
