"""Calibrations that follow their artefact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.pairs import view_of
from router.learning.report import ColumnReport
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.quality.residual import Adapter, fit_adapter
from router.registry.artifact import Artifact
from router.verification.recalibration import LabelledPictures, keep_pictures, kept_pictures, recalibrate
from router.verification.score_calibration import LabelledPicture, read_content, score_reading_file, sealed
from tests.router.conftest import synthetic_prompts

Trained = tuple[Artifact, tuple[ColumnReport, ...]]


def drawn(predictor: QualityPredictor, embedder: MiniLMEmbedder, harsh: float = 0.0) -> LabelledPictures:
    """Two pictures of every recipe on 60 prompts: right with the expected chance less `harsh`, and a score that knows
    something of it."""
    rng = np.random.default_rng(0)
    views = {prompt: view_of(predictor, embedder, prompt) for prompt in synthetic_prompts(60, seed=7)}
    judged, chances = [], []
    for prompt, view in views.items():
        for recipe, quality in predictor.rated(view).items():
            for _ in range(2):
                right = bool(rng.random() < quality.mean - harsh)
                score = float(np.clip(rng.normal(0.7 if right else 0.3, 0.2), 0.01, 0.99))
                judged.append(LabelledPicture(prompt, recipe, score, right))
                chances.append(quality.mean)
    return LabelledPictures.of(judged, np.array(chances), predictor, views)


def saved(folder: Path, pictures: LabelledPictures, digest: str) -> Path:
    file = score_reading_file(folder, "alignment")
    file.parent.mkdir(parents=True)
    head = {"format": "triptych-judgement", "version": 1, "scorer": "alignment", "family": "verifier"}
    content = {**head, "revision": "r", "artefact": digest, **pictures.fit(None), "source": "drawn"}
    file.write_text(sealed(content))
    keep_pictures(file, pictures)
    return file


def test_feedback_that_knows_better_makes_chances_and_verdicts_better(
    trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path
) -> None:
    """Where pictures are right less often than expected, and ratings of other prompts say so, the calibration for the
    artefact with those ratings has chances with a lower Brier score, and no worse verdicts."""
    predictor = QualityPredictor(trained[0])
    pictures = drawn(predictor, embedder, harsh=0.35)
    file = saved(tmp_path, pictures, predictor.digest)
    others = [view_of(predictor, embedder, prompt) for prompt in synthetic_prompts(300, seed=8)[200:]]
    inputs = np.concatenate([predictor.inputs(view) for view in others for _ in predictor.columns])
    columns = np.tile(np.arange(len(predictor.columns)), len(others))
    groups = [view.prompt for view in others for _ in predictor.columns]
    down, spread = np.full(len(inputs), -0.35), np.full(len(inputs), 0.2)
    adapter = fit_adapter(inputs, columns, down, spread, groups, len(predictor.columns), predictor.gamma)
    before = read_content(file)["held_out"]
    done = recalibrate(file, predictor.digest, lambda _: adapter)
    assert done.content is not None
    after = done.content["held_out"]
    assert after["brier_chance"] < before["brier_chance"] - 0.02
    assert after["brier"] < before["brier"] + 0.01
    assert set(done.files("new")) == {"judges/alignment.json", "judges/alignment.safetensors"}
    assert json.loads(done.files("new")["judges/alignment.json"])["artefact"] == "new"


@pytest.mark.parametrize("shift", [-2.0, -0.25, 0.0, 0.25, 2.0])
def test_chances_stay_probabilities_whatever_feedback_says(shift: float) -> None:
    """Each is moved by what its own column is moved by, that of a recipe without a column by the mean of all, and none
    below 0 or above 1."""
    level = np.array([shift, shift / 2])
    adapter = Adapter(np.zeros((1, 3)), np.zeros((1, 2)), level, 1.0)
    column, chance = np.array([0, 1, -1]), np.array([0.1, 0.5, 0.9])
    places = np.zeros(3, np.int64)
    pictures = LabelledPictures(np.zeros((1, 3)), places, places, column, chance, chance, np.array([True] * 3))
    moved = chance + np.array([shift, shift / 2, 0.75 * shift])
    assert pictures.chances(adapter).tolist() == pytest.approx([min(1.0, max(0.0, one)) for one in moved])
    assert pictures.chances(None) is chance


def test_judged_prompts_are_recognised_after_storage(
    trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path
) -> None:
    """What is read back knows its own prompts and no others, and holds none as text."""
    predictor = QualityPredictor(trained[0])
    pictures = drawn(predictor, embedder)
    file = saved(tmp_path, pictures, predictor.digest)
    again = kept_pictures(file, read_content(file))
    assert again.among(pictures.inputs).all()
    known = set(synthetic_prompts(60, seed=7))
    strangers = [p for p in synthetic_prompts(120, seed=9) if p not in known]
    rows = np.concatenate([predictor.inputs(view_of(predictor, embedder, prompt)) for prompt in strangers])
    assert not again.among(rows).any()
    np.testing.assert_allclose(again.chance, pictures.chance, atol=1e-6)
    stored = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert not any(prompt.encode() in stored for prompt in known)


@pytest.mark.parametrize("harm", ["none kept", "changed", "another artefact"])
def test_what_cannot_be_fitted_again_says_why(
    trained: Trained, embedder: MiniLMEmbedder, tmp_path: Path, harm: str
) -> None:
    """Without the judged pictures, with changed ones, or for another artefact, nothing is carried over."""
    predictor = QualityPredictor(trained[0])
    file = saved(tmp_path, drawn(predictor, embedder), predictor.digest)
    table = file.with_suffix(".safetensors")
    if harm == "none kept":
        table.unlink()
    elif harm == "changed":
        data = table.read_bytes()
        table.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    digest = "another" if harm == "another artefact" else predictor.digest

    def never(_: LabelledPictures) -> None:
        raise AssertionError("nothing is fitted")

    done = recalibrate(file, digest, never)  # type: ignore[arg-type]
    assert done.content is None and done.files("new") == {}
    assert {"none kept": "were not kept", "changed": "was changed", "another artefact": "was not calibrated for"}[
        harm
    ] in done.note
    with pytest.raises(ArtifactError):
        kept_pictures(tmp_path / "nowhere.json", {})
