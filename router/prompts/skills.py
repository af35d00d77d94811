"""What a prompt asks for, as trained heads: one logistic regression a skill on embedding and lexical features.

    text_rendering, counting, attribute_binding, spatial_relation, negation, several_objects       each in 0..1

They were trained on the categories of public prompt sets (benchmarks/router_skills/training.py; their card has the
held-out figures) and come with Triptych in `router/artifacts/skills`. A quality predictor carries a copy of the heads
that its features come from, so both always fit one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.prompts.lexical import FEATURES, SIGNALS, skill_signals
from router.prompts.scaling import Scaler, feature_rows
from router.registry.artifact import load_artifact

Array = NDArray[np.float64]
FORMAT = "triptych-skill-heads"
FOLDER = Path(__file__).resolve().parents[1] / "artifacts" / "skills"
SKILLS = SIGNALS[:-1]  # without complexity, which is made of them
PREFIX = "skill_"

LOADS = {
    "several_objects": 0.6, "spatial_relation": 0.6, "counting": 0.6, "attribute_binding": 0.6, "negation": 0.7,
    "text_rendering": 0.9,
}  # fmt: skip
WORDS = 60.0  # so many words weigh as much as one unit of load


@dataclass(frozen=True)
class SkillHeads:
    """scaler: of the lexical features and rule signals; slope (d + f, k), level (k,): of the skills, in logits."""

    scaler: Scaler
    slope: Array
    level: Array

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[Any]]) -> SkillHeads:
        """The heads within an artefact's weights. Raises `KeyError` or `ValueError` if they are not there or wrong."""
        mean, std, slope, level = (
            np.asarray(weights[PREFIX + n], np.float64) for n in ("mean", "std", "slope", "level")
        )
        if mean.shape != (width := (len(INPUTS),)) or std.shape != width or level.shape != (len(SKILLS),):
            raise ValueError(f"the skill heads are for {mean.shape} features, this version has {width}")
        if slope.ndim != 2 or slope.shape[0] <= len(INPUTS) or slope.shape[1] != len(SKILLS):
            raise ValueError(f"the skill heads' slope has shape {slope.shape}")
        return cls(Scaler(mean, std, 1.0), slope, level)

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The same heads for an artefact."""
        parts = {"mean": self.scaler.mean, "std": self.scaler.std, "slope": self.slope, "level": self.level}
        return {PREFIX + name: np.asarray(part, np.float32) for name, part in parts.items()}

    def signals(self, features: Mapping[str, float], embedding: NDArray[np.float32]) -> dict[str, float]:
        """The skills of `SIGNALS`, each in 0..1; complexity is 1 - exp(-load) with the load of `LOADS` and `WORDS`."""
        rows = self.scaler.join(embedding[None].astype(np.float64), head_inputs([features]))
        odds = (rows @ self.slope + self.level)[0]
        found = 1 / (1 + np.exp(-np.minimum(np.maximum(odds, -30), 30)))
        skills = dict(zip(SKILLS, found.tolist(), strict=True))
        return {**skills, "complexity": complexity(skills, features["words"])}


INPUTS = (*FEATURES, *(f"rule_{name}" for name in SIGNALS))


def head_inputs(features: list[Mapping[str, float]]) -> Array:
    """Rows (n, len(INPUTS)) of lexical features and of the signals that rules read from them."""
    ruled = list(map(skill_signals, features))
    return np.concatenate([feature_rows(features, FEATURES), feature_rows(ruled, SIGNALS)], axis=1)


def complexity(skills: Mapping[str, float], words: float) -> float:
    """How much has to be got right at once, 0..1: each skill that is asked for adds its load, and so does length."""
    load = sum([weight * skills[name] for name, weight in LOADS.items()]) + words / WORDS
    return float(1 - np.exp(-load / 1.2))


def load_skills(path: str | Path = FOLDER) -> SkillHeads:
    """The trained heads in folder `path`. Raises `ArtifactError` if they are missing, tampered with, or do not fit."""
    artifact = load_artifact(path, form=FORMAT)
    if tuple(artifact.config.get("skills", ())) != SKILLS or tuple(artifact.config.get("inputs", ())) != INPUTS:
        raise ArtifactError(f"{path} was trained on other features or skills; train the heads again with this version")
    try:
        return SkillHeads.of(artifact.weights)
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not complete ({error}); train the heads again") from error
