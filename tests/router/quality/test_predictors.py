"""Predicted quality: learned, composed, or prior."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.report import ColumnReport
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features, skill_signals
from router.quality.composition import Composition, composition_of, outline
from router.quality.predictor import QualityPredictor
from router.quality.residual import Adapter
from router.registry.artifact import Artifact
from router.types import Chain, Fuse, Generate, PromptView, Quality, Recipe, Refine
from tests.router.cards import CATALOGUE

EASY, HARD = "a red circle", "three small yellow stars above a large blue ring on a black background"
RECIPES: dict[str, Recipe] = {
    "draft": Generate("sd15"),
    "standard": Chain((Generate("sdxl", until=0.8), Refine("sdxl-refiner", from_=0.8))),
    "premium": Generate("flux"),
    "quick": Generate("flux", steps=2),
    "duel": Fuse("best_of", ("draft", "premium"), "alignment"),
    "unknown": Generate("alignment"),
}
PRIOR = Quality(0.5, 0.3, "prior")


@pytest.fixture(scope="module")
def predictor(trained: tuple[Artifact, tuple[ColumnReport, ...]]) -> QualityPredictor:
    return QualityPredictor(trained[0], CATALOGUE)


def view(prompt: str, embedder: MiniLMEmbedder, familiarity: float | None = None) -> PromptView:
    features = lexical_features(prompt)
    return PromptView(prompt, features, skill_signals(features), embedder.embed([prompt])[0], familiarity)


def test_the_small_model_is_predicted_to_fail_on_what_is_hard(
    predictor: QualityPredictor, embedder: MiniLMEmbedder
) -> None:
    """On an easy prompt SD1.5 keeps up with FLUX, on a hard one it is far behind."""
    easy, hard = (predictor.predict(view(prompt, embedder), RECIPES) for prompt in (EASY, HARD))
    assert easy["draft"].mean > easy["premium"].mean - 0.1
    assert hard["premium"].mean > hard["draft"].mean + 0.25
    assert easy["draft"].basis == easy["standard"].basis == "learned"


def test_every_quality_lies_in_its_range_and_says_where_it_is_from(
    predictor: QualityPredictor, embedder: MiniLMEmbedder
) -> None:
    """Means are in 0..1, deviations positive; what was not rated is composed or prior."""
    found = predictor.predict(view(HARD, embedder), RECIPES)
    assert set(found) == set(RECIPES)
    assert all(0 <= q.mean <= 1 and 0 < q.std < 1 for q in found.values())
    assert [found[name].basis for name in ("quick", "duel", "unknown")] == ["composed", "composed", "prior"]
    assert found["quick"].std > found["premium"].std
    assert found["duel"].mean > (found["draft"].mean + found["premium"].mean) / 2


def test_what_is_remembered_is_of_the_same_recipes(predictor: QualityPredictor, embedder: MiniLMEmbedder) -> None:
    """Asked again, for fewer recipes, or for others under the same names, a prompt gets what a fresh predictor says."""
    asked = view(HARD, embedder)
    whole = predictor.predict(asked, RECIPES)
    assert predictor.predict(asked, RECIPES) == whole
    assert predictor.predict(asked, RECIPES, only={"draft", "elsewhere"}) == {"draft": whole["draft"]}
    swapped = RECIPES | {"draft": RECIPES["premium"]}
    found = predictor.predict(asked, swapped)
    assert found["draft"] == whole["premium"] and found["duel"] != whole["duel"]


def test_a_foreign_prompt_falls_back_to_the_prior(predictor: QualityPredictor, embedder: MiniLMEmbedder) -> None:
    """Off the training domain, means move to the column's mean and deviations grow."""
    strange = view("quarterly revenue of a shipping company, spreadsheet", embedder)
    assert predictor.familiarity(view(EASY, embedder).embedding) == 1.0
    assert predictor.familiarity(strange.embedding) < 0.3
    trusted = predictor.predict(replace(strange, familiarity=1.0), RECIPES)["draft"]
    judged = predictor.predict(strange, RECIPES)["draft"]
    assert judged.std > trusted.std
    assert judged.basis == "prior"


def test_another_embedder_is_refused(predictor: QualityPredictor, embedder: MiniLMEmbedder) -> None:
    """A vector of another width is an error, not a wrong prediction."""
    with pytest.raises(ArtifactError, match="use the same embedder"):
        predictor.predict(replace(view(EASY, embedder), embedding=np.ones(256, np.float32)), RECIPES)


def test_only_the_asked_names_are_predicted(predictor: QualityPredictor, embedder: MiniLMEmbedder) -> None:
    """`only` narrows the answer; fusions still find their branches."""
    assert set(predictor.predict(view(EASY, embedder), RECIPES, only=["duel"])) == {"duel"}


@pytest.mark.parametrize("trust", [0.0, 0.3, 0.5, 1.0])
def test_a_mixture_holds_the_distance_between_its_means(
    trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder, trust: float
) -> None:
    """With trust t in a prediction m, s beside the column's p, q: mean t m + (1 - t) p, variance t s^2 + (1 - t) q^2 +
    t (1 - t) (m - p)^2, for every column."""
    artifact = trained[0]
    one = QualityPredictor(artifact, CATALOGUE)
    base = np.linspace(0.05, 0.95, len(one.columns))
    m, s = base, one.base_std(base)
    p, q = (np.asarray(artifact.weights[name], np.float64) for name in ("column_mean", "column_std"))
    found = one.adapted(view(EASY, embedder, trust), base)
    means, stds = (np.array([getattr(found[key], name) for key in one.columns]) for name in ("mean", "std"))
    assert means == pytest.approx(trust * m + (1 - trust) * p)
    assert stds == pytest.approx(np.sqrt(trust * s**2 + (1 - trust) * q**2 + trust * (1 - trust) * (m - p) ** 2))
    if 0 < trust < 1:
        assert (stds > np.sqrt(trust * s**2 + (1 - trust) * q**2) + 1e-6).any()


def test_feedback_shifts_means_and_widens_deviations(
    trained: tuple[Artifact, tuple[ColumnReport, ...]], embedder: MiniLMEmbedder
) -> None:
    """Feedback that shifts every column by -.1 and widens by 1.5: on a known prompt the mean is .1 lower and the
    deviation 1.5 times as large, on an unknown one the column's mean is .1 lower and its deviation stays."""
    artifact = trained[0]
    one = QualityPredictor(artifact, CATALOGUE)
    base = np.full(len(one.columns), 0.6)
    width, columns = one.inputs(view(EASY, embedder)).shape[1], len(base)
    adapter = Adapter(np.zeros((0, width)), np.zeros((0, columns)), np.full(columns, -0.1), one.gamma, 1.5)
    other = one.with_adapter(adapter)
    known, unknown = (other.adapted(view(EASY, embedder, trust), base) for trust in (1.0, 0.0))
    for k, key in enumerate(one.columns):
        assert known[key].mean == pytest.approx(0.5)
        assert known[key].std == pytest.approx(1.5 * one.base_std(base)[k])
        assert unknown[key].mean == pytest.approx(max(0.0, float(artifact.weights["column_mean"][k]) - 0.1), abs=1e-6)
        assert unknown[key].std == pytest.approx(float(artifact.weights["column_std"][k]), abs=1e-6)


KNOWN = {
    "sd15": Quality(0.4, 0.1),
    "flux": Quality(0.7, 0.2),
    "flux@2": Quality(0.5, 0.2),
    "sd15>sd15:strength=0.5": Quality(0.45, 0.1),
}


def composed(recipe: Recipe, **rules: float) -> Quality:
    return outline(recipe, KNOWN, CATALOGUE).quality(KNOWN, PRIOR, Composition(**rules))


@pytest.mark.parametrize(("reliability", "mean"), [(0.0, 0.55), (1.0, 1 - 0.6 * 0.3), (0.5, (0.55 + 0.82) / 2)])
def test_best_of_is_as_good_as_its_scorer(reliability: float, mean: float) -> None:
    """A useless scorer gives the mean of the branches, a perfect one 1 - prod(1 - p)."""
    quality = composed(
        Fuse("best_of", (Generate("sd15"), Generate("flux")), "alignment"), scorer_reliability=reliability
    )
    assert quality.mean == pytest.approx(mean)
    assert quality.basis == "composed"


def test_a_blend_is_as_good_as_its_branches_on_average() -> None:
    """Averaging promises nothing more."""
    assert composed(Fuse("average", (Generate("sd15"), Generate("flux")))).mean == pytest.approx(0.55)


def test_two_models_together_are_worth_their_mean_by_weight() -> None:
    """Nothing is known of a denoise that was never rated but its two models; what counts more says more."""
    both = (Generate("sd15"), Generate("flux"))
    assert composed(Fuse("denoise", both)).mean == pytest.approx(0.55)
    quality = composed(Fuse("denoise", both, shares=((3, 1), (1, 1))))
    assert (quality.mean, quality.basis) == (pytest.approx(0.4 * 4 / 6 + 0.7 * 2 / 6), "composed")


def test_a_chain_starts_from_its_first_stage() -> None:
    """An unknown refine adds its delta to what the first stage is worth, and uncertainty."""
    quality = composed(Chain((Generate("flux"), Refine("sdxl-refiner", strength=0.25))), refine_delta=0.05)
    assert (quality.mean, quality.basis) == (pytest.approx(0.75), "composed")
    assert quality.std > 0.2


def test_other_settings_take_the_nearest_rated_ones() -> None:
    """Three steps are nearer to two than to the card's four by ratio; strengths are compared as such."""
    assert composed(Generate("flux", steps=4)) == KNOWN["flux"]
    assert composed(Generate("flux", steps=2)) == KNOWN["flux@2"]
    near, far = composed(Generate("flux", steps=8)), composed(Generate("flux", steps=32))
    assert near.mean == far.mean == 0.7
    assert 0.2 < near.std < far.std
    again = composed(Chain((Generate("sd15"), Refine("sd15", strength=0.4))))
    assert 0.44 < again.mean < 0.45


def test_nothing_known_is_the_prior() -> None:
    """A model without any rating, alone, chained or blended, is the prior."""
    for recipe in (
        Generate("sdxl"),
        Chain((Generate("sdxl"), Refine("sd15", strength=0.5))),
        Fuse("average", (Generate("sdxl"), Generate("sdxl", steps=3))),
    ):
        quality = composed(recipe)
        assert (quality.mean, quality.basis) == (0.5, "prior")
        assert math.isclose(quality.std, 0.3)


@pytest.mark.parametrize("method", ["average", "best_of"])
def test_one_unknown_branch_does_not_make_a_fusion_unknown(method: str) -> None:
    """A known branch (.7) beside one of which nothing is known (.5): half of each, composed, by a scorer, too."""
    scorer = "alignment" if method == "best_of" else None
    fused = Fuse(method, (Generate("flux"), Generate("sdxl")), scorer)
    quality = composed(fused, scorer_reliability=0.0, widen=1.25)
    assert (quality.mean, quality.basis) == (pytest.approx(0.6), "composed")
    assert quality.std == pytest.approx(1.25 * math.sqrt((0.2**2 + 0.3**2) / 2))


def test_a_scorer_is_measured_only_where_every_branch_was_rated() -> None:
    """A best_of with a branch that was never rated says nothing of the scorer; one with both branches rated .4 and .6
    and itself .68 lies half way from .5 to .76 and a ninth: (.68 - .5) / .26 = .6923."""
    usual = Composition().scorer_reliability
    names = ["sd15", "best_of(alignment;sd15|gone)"]
    assert composition_of(names, np.array([[0.4, 0.9], [0.5, 0.9]])).scorer_reliability == usual
    names = ["sd15", "flux", "best_of(alignment;sd15|flux)"]
    assert composition_of(names, np.array([[0.4, 0.6, 0.68]] * 2)).scorer_reliability == pytest.approx(0.18 / 0.26)
