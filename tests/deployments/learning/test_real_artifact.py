"""The artefact `real`: it loads, it knows the three families, and it says what it does not know."""

from __future__ import annotations

import pytest

from deployments.settings import DEFAULT_CONFIG, load_serve_config
from router.learning.pairs import ask
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact


@pytest.fixture(scope="module")
def real() -> QualityPredictor:
    settings = load_serve_config(DEFAULT_CONFIG.with_name("real.yaml")).settings
    return QualityPredictor(load_artifact(settings.artifact_path))


def test_the_real_config_serves_with_real_ratings(real: QualityPredictor) -> None:
    """real.yaml is wired to an artefact with a column for each of the four base models, on a scale from 1 to 5."""
    assert set(real.columns) == {"sd15", "sdxl", "sdxl-turbo", "flux"}
    assert (real.scale.low, real.scale.high) == (1.0, 5.0)


def test_its_card_names_the_stand_ins() -> None:
    """Nobody can take the column `flux` for ratings of FLUX without ignoring the card."""
    settings = load_serve_config(DEFAULT_CONFIG.with_name("real.yaml")).settings
    card = load_artifact(settings.artifact_path).card
    assert "`flux`: not FLUX" in card and "`sd15`: sd_v2_1" in card


@pytest.mark.shipped_weights
def test_usual_prompts_are_in_its_range_and_odd_ones_are_not(real: QualityPredictor) -> None:
    """A photographic prompt is predicted, a spreadsheet's title falls back to the columns' means, and says so."""
    embedder = MiniLMEmbedder()
    usual = ask(real, embedder, "an astronaut riding a horse on the moon, oil painting")
    odd = ask(real, embedder, "qx zzv 0x7f 99182 lkjh ;;; 77-A")
    assert usual["basis"] == "rule" and odd["basis"] == "prior"
    assert usual["quality"]["flux"] > usual["quality"]["sd15"]
