"""Learning from use: what is better is put in force, what is not is not, and it can be taken back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.assembly import catalogue_of
from deployments.offline import retraining
from deployments.offline.replay import Replay
from deployments.offline.retraining import FIRST, Lessons, Rated, compare_policies, retrain
from deployments.settings import AppSettings
from deployments.store.decision_log import DecisionLog
from models.weights.revisions import revision
from router.errors import ArtifactError
from router.learning.off_policy import Increments, increments
from router.learning.pairs import ask, view_of
from router.prompts.lexical import lexical_features, skill_signals
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.registry.versions import former, roll_back
from router.verification.recalibration import LabelledPictures, keep_pictures
from router.verification.score_calibration import (
    LabelledPicture,
    calibrate_scores,
    load_score_reading,
    read_content,
    save_calibration,
)
from tests.deployments.support.evidence import RECIPES
from tests.deployments.support.scripted import EMBEDDER
from tests.deployments.support.use import live, lived_policy
from tests.router.conftest import synthetic_prompts

KEYS = {"draft": "sd15@12:scheduler=dpmsolver++", "single": "sdxl", "premium": "flux>sdxl-refiner:strength=0.25"}
HATED = {"draft": 0.05, "single": 0.9, "premium": 0.5}


def as_trained(prompt: str, recipe: str) -> float:
    """What the artefact was trained on."""
    base, loss = RECIPES[KEYS[recipe]]
    return base - loss * skill_signals(lexical_features(prompt))["complexity"]


def hated(prompt: str, recipe: str) -> float:
    """Against what the artefact believes, people do not like drafts."""
    return HATED[recipe]


@pytest.fixture(scope="module")
def hated_log(settings: AppSettings, tmp_path_factory: pytest.TempPathFactory) -> DecisionLog:
    return live(settings, DecisionLog(tmp_path_factory.mktemp("hated") / "log.sqlite"), hated)


@pytest.fixture
def folder(settings: AppSettings, tmp_path: Path) -> Path:
    """A private copy of the artefact that serves."""
    return Path(shutil.copytree(settings.artifact_path, tmp_path / "serving"))


def test_what_people_like_is_learned_and_can_be_taken_back(
    settings: AppSettings, hated_log: DecisionLog, folder: Path
) -> None:
    """The candidate wins, is in force, expects what people said, keeps the rest of the artefact, and rolls back."""
    before = load_artifact(folder)
    done = retrain(hated_log, "rating", folder, lived_policy(0.4), catalogue_of(settings))
    assert done.swapped and done.artifact is not None
    assert done.comparison.estimates["dr"].difference_interval[0] > 0.05
    after = load_artifact(folder)
    assert after.digest == done.artifact.digest != before.digest
    said = ask(QualityPredictor(after), EMBEDDER, "a red circle above a green ring")["quality"]
    for recipe, rating in HATED.items():
        assert said[KEYS[recipe]] == pytest.approx(rating, abs=0.15)
    for name, array in before.weights.items():
        np.testing.assert_array_equal(after.weights[name], array)
    assert QualityPredictor(after).base == before.digest
    assert "Learned from feedback" in after.card
    assert [one.digest for one in former(folder)] == [before.digest[:12]]
    assert roll_back(folder).digest == before.digest
    assert roll_back(folder).digest == after.digest


def test_a_calibrated_scorer_is_calibrated_again_for_what_was_learned(
    settings: AppSettings, hated_log: DecisionLog, folder: Path
) -> None:
    """After a swap the scorer counts as calibrated for the new artefact, by chances that follow the ratings and by no
    rating of a judged prompt; after a rollback, as it was before."""
    catalogue = catalogue_of(settings)
    before, card = load_artifact(folder), catalogue["alignment"]
    predictor, rng, rows = QualityPredictor(before, catalogue), np.random.default_rng(0), []
    judged_prompts = synthetic_prompts(60, seed=100)  # the log has all of them, too
    views = {prompt: view_of(predictor, EMBEDDER, prompt) for prompt in judged_prompts}
    for prompt in judged_prompts:
        for recipe, key in KEYS.items():
            right = bool(rng.random() < HATED[recipe])
            rows.append(
                LabelledPicture(prompt, key, float(np.clip(rng.normal(0.7 if right else 0.3, 0.2), 0.01, 0.99)), right)
            )
    chance = np.array([predictor.rated(views[row.prompt])[row.recipe].mean for row in rows])
    file = save_calibration(folder, before.digest, card, revision(card), *calibrate_scores(rows, chance), "drawn")
    keep_pictures(file, LabelledPictures.of(rows, chance, predictor, views))
    first = load_score_reading(folder, before.digest, card, revision(card))
    assert first.calibrated

    done = retrain(hated_log, "rating", folder, lived_policy(0.4), catalogue)
    assert done.artifact is not None
    (scorer,) = done.scorers
    assert "calibrated again on 180 pictures" in scorer.note
    second = load_score_reading(folder, done.artifact.digest, card, revision(card))
    assert second.calibrated and second != first
    held_out = read_content(file)["held_out"]
    assert held_out["brier_chance"] < float(np.mean((chance - [row.right for row in rows]) ** 2)) - 0.05

    assert roll_back(folder).digest == before.digest
    assert load_score_reading(folder, before.digest, card, revision(card)) == first


def test_a_second_look_at_the_same_log_changes_nothing(
    settings: AppSettings, hated_log: DecisionLog, folder: Path
) -> None:
    """What an artefact has learned from does not judge whether it is to be replaced."""
    policy, catalogue = lived_policy(0.4), catalogue_of(settings)
    assert retrain(hated_log, "rating", folder, policy, catalogue).swapped
    digest = load_artifact(folder).digest
    with pytest.raises(ArtifactError, match="300 that the artefact in force has learned from already"):
        retrain(hated_log, "rating", folder, policy, catalogue)
    assert load_artifact(folder).digest == digest


def test_a_dry_run_and_another_folder_leave_what_serves(
    settings: AppSettings, hated_log: DecisionLog, folder: Path, tmp_path: Path
) -> None:
    """`dry_run` only judges; `out` writes elsewhere."""
    before, policy, catalogue = load_artifact(folder).digest, lived_policy(0.4), catalogue_of(settings)
    dry = retrain(hated_log, "rating", folder, policy, catalogue, dry_run=True)
    assert not dry.swapped and dry.comparison.verdict[0]
    assert retrain(hated_log, "rating", folder, policy, catalogue, out=tmp_path / "new").swapped
    assert load_artifact(folder).digest == before != load_artifact(tmp_path / "new").digest


def test_what_is_already_known_is_no_reason_to_change(settings: AppSettings, folder: Path, tmp_path: Path) -> None:
    """If people rate as the artefact expects, it stays."""
    log = live(settings, DecisionLog(tmp_path / "log.sqlite"), as_trained)
    before = load_artifact(folder).digest
    done = retrain(log, "rating", folder, lived_policy(0.4), catalogue_of(settings))
    assert not done.swapped and done.why
    assert load_artifact(folder).digest == before


def test_a_worse_candidate_is_never_put_in_force(settings: AppSettings, folder: Path, tmp_path: Path) -> None:
    """Ratings that praise the worst recipe move the candidate; the decisions that were left to chance stop it."""
    log = live(settings, DecisionLog(tmp_path / "log.sqlite"), as_trained)
    for recipe, rating in (("draft", 1.0), ("single", 0.0), ("premium", 0.0)):
        live(settings, log, lambda *_, rating=rating: rating, pinned=recipe, decisions=240)
    before = load_artifact(folder).digest
    done = retrain(log, "rating", folder, lived_policy(0.4), catalogue_of(settings))
    assert done.comparison.otherwise > 100, "the candidate does decide otherwise"
    assert done.comparison.estimates["dr"].difference < 0
    assert not done.swapped and load_artifact(folder).digest == before


def test_without_exploration_nothing_is_learned_of_what_was_not_chosen(
    settings: AppSettings, folder: Path, tmp_path: Path
) -> None:
    """A log without chance is refused with the remedy."""
    log = live(settings, DecisionLog(tmp_path / "log.sqlite"), hated, rate=0.0)
    done = retrain(log, "rating", folder, lived_policy(0.0), catalogue_of(settings))
    assert not done.swapped and "explore: {rate: 0.02}" in done.why


def test_too_few_ratings_are_an_error_that_counts_them(
    settings: AppSettings, hated_log: DecisionLog, folder: Path, tmp_path: Path
) -> None:
    """Too few decisions, those of another version of the policy, and another source are named in the error."""
    few = live(settings, DecisionLog(tmp_path / "log.sqlite"), hated, decisions=40)
    with pytest.raises(ArtifactError, match=r"has 40 rated decisions.*at least 100"):
        retrain(few, "rating", folder, lived_policy(0.4), catalogue_of(settings))
    with pytest.raises(ArtifactError, match=r"has 0 rated decisions.*300 of other policies or versions"):
        retrain(hated_log, "rating", folder, lived_policy(0.5), catalogue_of(settings))
    with pytest.raises(ArtifactError, match=r"source: rating \(300\)"):
        retrain(hated_log, "scorer:mine", folder, lived_policy(0.4), catalogue_of(settings))


def test_hashes_teach_as_well_as_text(
    settings: AppSettings, hated_log: DecisionLog, folder: Path, tmp_path: Path
) -> None:
    """With prompts kept as hashes the candidate comes out as with their text, but for rounding."""
    log = live(settings, DecisionLog(tmp_path / "log.sqlite", "text"), hated)
    answers = []
    for number, one in enumerate((hated_log, log)):
        out = tmp_path / f"out{number}"
        retrain(one, "rating", folder, lived_policy(0.4), catalogue_of(settings), out=out)
        answers.append(ask(QualityPredictor(load_artifact(out)), EMBEDDER, "a blue star")["quality"])
    assert answers[0] == pytest.approx(answers[1], abs=0.02)


def test_a_candidate_of_the_past_has_seen_nothing_of_what_came_after(
    settings: AppSettings, hated_log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a decision says at every look does not depend on what is rated after it: of the first 168 decisions it is
    the same in the whole log as in a log that ends there, though the candidates of folds are others."""
    catalogue, policy = catalogue_of(settings), lived_policy(0.4)
    predictor = QualityPredictor(load_artifact(settings.artifact_path), catalogue)
    replay = Replay(policy, catalogue, {})
    rated = [Rated.of(record, said, predictor) for record, said in hated_log.rated("rating")]
    rated.sort(key=lambda one: one.said_at_s)
    found = []

    def keeping(*given: Any) -> Increments:
        found.append(increments(*given))
        return found[-1]

    monkeypatch.setattr(retraining, "increments", keeping)
    for count in (168, 300):
        lessons = Lessons.of(rated[:count], predictor, policy, replay)
        compare_policies(rated[:count], lessons, predictor, policy, replay)
    begun, whole = found
    assert len(begun.x) == 168 - FIRST and len(whole.x) == 300 - FIRST
    assert np.abs(begun.x).max() > 0.5, "the candidates of the past do decide otherwise"
    np.testing.assert_allclose(whole.x[: len(begun.x)], begun.x, atol=1e-9)
    lessons = Lessons.of(rated, predictor, policy, replay)
    assert len(lessons.fit(predictor, before_s=rated[100].said_at_s).support) == 100
