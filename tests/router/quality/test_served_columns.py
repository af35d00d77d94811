"""Columns that are served are read off what was rated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.ratings import shares_of, tabulate
from router.learning.training import train
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import Hyperparameters, fit_mixture, prompts_of
from router.quality.predictor import QualityPredictor
from router.types import PromptView, Quality
from tests.router.conftest import LAWS, synthetic_prompts, synthetic_ratings

CHOICE = Hyperparameters(feature_weight=1.0, gamma=0.7, share=0.65)


def said(
    folder: Path, served: dict[str, dict[str, float]], embedder: MiniLMEmbedder, prompts: list[str]
) -> list[dict[str, Quality]]:
    rows = synthetic_ratings(synthetic_prompts(60))
    artifact, _ = train(rows, folder, "served", "a formula", "CC0", embedder, served=served, choice=CHOICE)
    predictor = QualityPredictor(artifact)
    views = [PromptView(p, lexical_features(p), {}, embedder.embed([p])[0]) for p in prompts]
    return [predictor.rated(view) for view in views]


def test_a_served_column_more_leaves_the_others_as_they_were(embedder: MiniLMEmbedder, tmp_path: Path) -> None:
    """Mean and deviation of a column are the same with and without another beside it, on and off the domain."""
    few = {"sdxl": {"sdxl": 1.0}, "strong": {"sdxl": 0.5, "flux": 0.5}}
    prompts = [*synthetic_prompts(10, seed=5), "Quarterly revenue of the shipping department"]
    alone = said(tmp_path / "few", few, embedder, prompts)
    beside = said(tmp_path / "more", {"sd15": {"sd15": 1.0}, **few}, embedder, prompts)
    for one, other in zip(alone, beside, strict=True):
        assert set(one) == {"sdxl", "strong"} and set(other) == {"sd15", "sdxl", "strong"}
        for name, quality in one.items():
            assert (other[name].mean, other[name].std) == pytest.approx((quality.mean, quality.std), abs=1e-5)


def test_a_mean_of_columns_is_predicted_as_the_mean_of_their_predictions(embedder: MiniLMEmbedder) -> None:
    """Kernel and n-grams are linear in the columns, so mixing before and after the prediction is one."""
    table = tabulate(synthetic_ratings(synthetic_prompts(60)))
    prompts = prompts_of(table.prompts, embedder.embed(table.prompts), load_skills())
    shares = shares_of(table.columns, {"flux": {"flux": 1.0}, "mean": dict.fromkeys(LAWS, 1 / len(LAWS))})
    fitted = fit_mixture(prompts, table, CHOICE, seed=0)
    assert fitted.grams is not None
    np.testing.assert_allclose(fitted.mixed(shares).predict(prompts), fitted.predict(prompts) @ shares, atol=1e-12)


def test_a_mean_with_a_part_missing_is_not_rated() -> None:
    """A mean of two models exists only where people rated both; other columns keep their cells."""
    rows = synthetic_ratings(synthetic_prompts(60))
    table = tabulate([row for k, row in enumerate(rows) if not (row.recipe == "flux" and k < 40)])
    mixed = table.mixed(
        ("sdxl", "mean"), shares_of(table.columns, {"sdxl": {"sdxl": 1}, "m": {"sd15": 0.5, "flux": 0.5}})
    )
    hole = np.isnan(table.scores[:, table.columns.index("flux")])
    assert hole.sum() == 10
    assert (np.isnan(mixed.scores[:, 1]) == hole).all() and not np.isnan(mixed.scores[:, 0]).any()
    assert (mixed.weights[:, 1] == np.where(hole, 0, 1)).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"flx": 1.0}, "column 'x': 'flx' is not rated; did you mean 'flux'"),
        ({"flux": 0.5, "sdxl": 0.4}, "its shares add up to 0.9; they must be 1"),
        ({"flux": 1.5, "sdxl": -0.5}, "the share of 'sdxl' is -0.5; it must be positive"),
    ],
)
def test_shares_that_make_no_mean_are_refused(parts: dict[str, float], message: str) -> None:
    """Unknown parts and shares that are not those of a mean are named."""
    with pytest.raises(ArtifactError, match=message):
        shares_of(tuple(LAWS), {"x": parts})


def test_a_firmer_hand_draws_predictions_towards_the_mean(embedder: MiniLMEmbedder) -> None:
    """With penalties eight times as heavy, predictions vary less in every column, by kernel and by n-grams."""
    table = tabulate(synthetic_ratings(synthetic_prompts(60)))
    prompts = prompts_of(table.prompts, embedder.embed(table.prompts), load_skills())
    for share in (1.0, 0.1):
        usual, firm = (
            fit_mixture(prompts, table, Hyperparameters(1.0, 0.7, share, firmness), seed=0).predict(prompts).std(axis=0)
            for firmness in (1.0, 8.0)
        )
        assert (firm < usual).all()
