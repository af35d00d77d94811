"""Artefacts on disk: verified, atomic, free of code."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from router.errors import ArtifactError
from router.learning.report import ColumnReport
from router.quality.predictor import QualityPredictor
from router.registry.artifact import Artifact, load_artifact, save_artifact

Trained = tuple[Artifact, tuple[ColumnReport, ...]]


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A private copy of the trained artefact."""
    assert trained[0].path is not None
    return Path(shutil.copytree(trained[0].path, tmp_path / "copy"))


def reseal(folder: Path) -> None:
    """Make the manifest agree with the files again, as an attacker or a careless editor would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        entry["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_saved_is_loaded(trained: Trained, folder: Path) -> None:
    """Configuration, weights, card and digest survive the disk, bit by bit."""
    loaded = load_artifact(folder, digest=trained[0].digest)
    assert loaded.config == trained[0].config
    assert loaded.card == trained[0].card
    for name, array in trained[0].weights.items():
        np.testing.assert_array_equal(loaded.weights[name], array)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "card.md"])
def test_one_changed_byte_is_noticed(folder: Path, name: str) -> None:
    """A flipped bit in any file refuses the whole artefact, naming the file and the remedy."""
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{name} was changed after training.*train it again"):
        load_artifact(folder)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "card.md", "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """Half an artefact is none."""
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_artifact(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A wrong path says which."""
    with pytest.raises(ArtifactError, match="nowhere holds no trained artefact"):
        load_artifact(tmp_path / "nowhere")


def test_another_version_is_refused(folder: Path) -> None:
    """A future format is not guessed at."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ArtifactError, match="version 99; this Triptych reads"):
        load_artifact(folder)


def test_a_resealed_forgery_fails_the_pinned_digest(trained: Trained, folder: Path) -> None:
    """Whoever pins the digest is safe from a forgery that is consistent in itself."""
    (folder / "card.md").write_text("Trust me.")
    reseal(folder)
    load_artifact(folder)
    with pytest.raises(ArtifactError, match="expected"):
        load_artifact(folder, digest=trained[0].digest)


def test_broken_weights_are_refused(folder: Path) -> None:
    """Weights that are no safetensors, or hold NaN, do not load even with the right digest."""
    (folder / "weights.safetensors").write_bytes(b"\x80\x04\x95 not tensors")
    reseal(folder)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_artifact(folder)


def test_nan_weights_are_refused(trained: Trained, tmp_path: Path) -> None:
    """A predictor never answers NaN, since such weights do not load."""
    weights = dict(trained[0].weights)
    weights["level"] = np.full_like(weights["level"], np.nan)
    with pytest.raises(ArtifactError, match="'level' holds NaN"):
        save_artifact(tmp_path / "nan", trained[0].config, weights, "card")


def test_shapes_and_features_are_checked(trained: Trained, tmp_path: Path) -> None:
    """Consistent files with other shapes, missing weights or other features are refused by the predictor."""
    artifact = trained[0]
    clipped = {**artifact.weights, "dual": artifact.weights["dual"][:-1]}
    with pytest.raises(ArtifactError, match="dual has shape"):
        QualityPredictor(save_artifact(tmp_path / "a", artifact.config, clipped, "card"))
    fewer = {name: array for name, array in artifact.weights.items() if name != "anchors"}
    with pytest.raises(ArtifactError, match="anchors"):
        QualityPredictor(save_artifact(tmp_path / "b", artifact.config, fewer, "card"))
    config = {**artifact.config, "features": ["words"]}
    with pytest.raises(ArtifactError, match="features are not those of this version"):
        QualityPredictor(save_artifact(tmp_path / "c", config, artifact.weights, "card"))


def test_saving_replaces_as_a_whole_and_leaves_nothing_behind(trained: Trained, folder: Path) -> None:
    """After an overwrite there is the new artefact, and no temporary folder beside it."""
    save_artifact(folder, trained[0].config, trained[0].weights, "a new card")
    assert load_artifact(folder).card == "a new card"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_with_other_files_is_not_overwritten(trained: Trained, tmp_path: Path) -> None:
    """A typo in the path does not delete somebody's work."""
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(ArtifactError, match="choose an empty folder"):
        save_artifact(tmp_path, trained[0].config, trained[0].weights, "card")
    assert (tmp_path / "thesis.tex").exists()
