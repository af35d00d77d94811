"""Routers to compare with: length, the hand rule, nearest neighbours, ridge, and the predictor that is served.

Each is made by `learn` from a table, for its columns, and, where that makes sense, by `carry` from other sets, for a
cheap and a strong recipe.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from router.bench.tasks import Task
from router.learning.training import train
from router.prompts.embedding import Embedder, MiniLMEmbedder
from router.prompts.lexical import FEATURES, lexical_features
from router.prompts.scaling import Scaler, feature_rows
from router.quality.predictor import QualityPredictor
from router.quality.ratings_table import RatingsTable
from router.quality.rule import hand_rule, places

if TYPE_CHECKING:
    from sklearn.base import RegressorMixin

Array = NDArray[np.float64]
NEIGHBOURS = 30
MOST = 1_500  # prompts of one set that are carried to another, so that a large set does not drown the others
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


class Remembering:
    """An embedder that embeds each text once."""

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder, self._known = embedder, dict[str, NDArray[np.float32]]()

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d)"""
        if new := [text for text in dict.fromkeys(prompts) if text not in self._known]:
            self._embedder = self._embedder or MiniLMEmbedder()
            self._known.update(zip(new, self._embedder.embed(new), strict=True))
        return np.stack([self._known[text] for text in prompts])


EMBEDDER = Remembering()
"""Shared by all, since everything is asked about the same prompts."""


@dataclass(frozen=True)
class HandRule:
    """The hand-written rule: what it says counts for a recipe as far as that is a strong one. place (c,): 0 to 1"""

    level: Array
    place: Array

    @classmethod
    def learn(cls, table: RatingsTable) -> Self:
        level = np.nanmean(table.scores, axis=0)
        return cls(level, places(level))

    @classmethod
    def carry(cls, tasks: Sequence[Task], pair: tuple[str, str]) -> Self:
        return cls(np.zeros(2), np.array([0.0, 1.0]))

    def score(self, prompts: Sequence[str]) -> Array:
        return self.level + self.said(prompts)[:, None] * self.place

    def said(self, prompts: Sequence[str]) -> Array:
        """How much a prompt wants the better model, (n,)."""
        return np.array([hand_rule(prompt) for prompt in prompts])


@dataclass(frozen=True)
class Length(HandRule):
    """Longer prompts want the better model."""

    def said(self, prompts: Sequence[str]) -> Array:
        return np.array([float(len(prompt)) for prompt in prompts])


@dataclass(frozen=True)
class Fitted(ABC):
    """A regression of scikit-learn on embeddings and counts, or of gains if it was carried."""

    model: RegressorMixin = field(repr=False)
    scaler: Scaler = field(repr=False)
    gains: bool
    WEIGHT: ClassVar[float] = 1.0

    @classmethod
    def learn(cls, table: RatingsTable) -> Self:
        level = np.nanmean(table.scores, axis=0)
        return cls._fit(table.prompts, np.where(np.isnan(table.scores), level, table.scores), gains=False)

    @classmethod
    def carry(cls, tasks: Sequence[Task], pair: tuple[str, str]) -> Self:
        prompts, gains = pooled_gains(tasks)
        return cls._fit(prompts, gains, gains=True)

    def score(self, prompts: Sequence[str]) -> Array:
        said = np.asarray(self.model.predict(inputs_of(prompts, self.scaler)), np.float64)
        return np.stack([np.zeros(len(said)), said], axis=1) if self.gains else said

    @classmethod
    def _fit(cls, prompts: Sequence[str], targets: Array, gains: bool) -> Self:
        scaler = Scaler.fit(features_of(prompts), cls.WEIGHT)
        return cls(cls.regression(len(prompts)).fit(inputs_of(prompts, scaler), targets), scaler, gains)

    @staticmethod
    @abstractmethod
    def regression(prompts: int) -> RegressorMixin:
        """What is fitted to so many prompts."""


class Nearest(Fitted):
    """The mean of the nearest rated prompts."""

    @staticmethod
    def regression(prompts: int) -> RegressorMixin:
        from sklearn.neighbors import KNeighborsRegressor

        return KNeighborsRegressor(n_neighbors=min(NEIGHBOURS, prompts), weights="distance")


class Ridge(Fitted):
    """Linear in embedding and counts, each column with the penalty that left-out prompts ask for."""

    @staticmethod
    def regression(prompts: int) -> RegressorMixin:
        from sklearn.linear_model import RidgeCV

        return RidgeCV(PENALTIES)


@dataclass(frozen=True)
class Trained:
    """What `triptych router train` makes of a table, asked as it would be when serving. From other sets it knows what
    the artefact `real` does: the hand rule."""

    predictor: QualityPredictor = field(repr=False)

    @classmethod
    def learn(cls, table: RatingsTable) -> Self:
        from router.learning.ratings import Rating

        rows = [
            Rating(prompt, column, table.scale.score(float(score)), group)
            for prompt, group, scores in zip(table.prompts, table.groups, table.scores, strict=True)
            for column, score in zip(table.columns, scores, strict=True)
            if np.isfinite(score)
        ]
        with tempfile.TemporaryDirectory(prefix="triptych-bench-") as folder:
            artifact, _ = train(rows, Path(folder) / "one", "bench", "", "", EMBEDDER, scale=table.scale)
        return cls(QualityPredictor(artifact))

    @staticmethod
    def carry(tasks: Sequence[Task], pair: tuple[str, str]) -> HandRule:
        return HandRule.carry(tasks, pair)

    def score(self, prompts: Sequence[str]) -> Array:
        views = [
            self.predictor.view(text, lexical_features(text), embedding)
            for text, embedding in zip(prompts, EMBEDDER.embed(prompts), strict=True)
        ]
        return np.array([[quality.mean for quality in self.predictor.rated(view).values()] for view in views])


def pooled_gains(tasks: Sequence[Task], seed: int = 0) -> tuple[list[str], Array]:
    """Prompts of all tasks, and the gain (n,) of the strong recipe over the cheap one on each: in deviations from its
    mean in standard deviations, on average over the task's pairs. Of large sets `MOST` prompts, drawn at random."""
    prompts: list[str] = []
    gains: list[float] = []
    for task in tasks:
        found = np.stack([task.gain(pair) for pair in task.pairs], axis=1)
        unit = (found - np.nanmean(found, axis=0)) / np.maximum(np.nanstd(found, axis=0), 1e-9)
        rows = np.flatnonzero(np.isfinite(unit).any(axis=1))
        for row in np.sort(np.random.default_rng(seed).permutation(rows)[:MOST]):
            prompts.append(task.table.prompts[row])
            gains.append(float(np.nanmean(unit[row])))
    return prompts, np.array(gains)


def features_of(prompts: Sequence[str]) -> Array:
    """The lexical counts, (n, f)."""
    return feature_rows([lexical_features(text) for text in prompts], FEATURES)


def inputs_of(prompts: Sequence[str], scaler: Scaler) -> Array:
    """Embeddings and scaled counts, (n, d + f)."""
    return scaler.join(EMBEDDER.embed(prompts), features_of(prompts))
