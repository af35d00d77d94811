"""Raw predictions of all columns: a kernel ridge on what a prompt means, mixed with a ridge on the words it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.prompts.lexical import FEATURES, SIGNALS, lexical_features
from router.prompts.scaling import Scaler, feature_rows
from router.prompts.skills import SkillHeads
from router.quality.blocks import blocks_of
from router.quality.kernels import MAX_LANDMARKS, KernelRidge, choose_landmarks, fit_kernel_ridge
from router.quality.ngrams import KINDS, GramRidge, fit_grams
from router.quality.ratings_table import RatingsTable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters: weight of the features against the embedding, width of the kernel, share of the kernel in the
    mixture (the n-grams have the rest), and how many times heavier than left-out groups ask the penalties are: groups
    of one set say what foretells that set, which is more than what carries over to other prompts."""

    feature_weight: float
    gamma: float
    share: float = 1.0
    firmness: float = 1.0


@dataclass(frozen=True)
class Prompts:
    """Prompts as the regression sees them: texts, embeddings (n, d), and features with signals (n, f)."""

    texts: tuple[str, ...]
    embeddings: Array
    features: Array

    def only(self, rows: NDArray[np.bool_]) -> Prompts:
        """Some of them."""
        texts = tuple(text for text, kept in zip(self.texts, rows, strict=True) if kept)
        return Prompts(texts, self.embeddings[rows], self.features[rows])


def prompts_of(texts: Sequence[str], embeddings: NDArray[np.float32], heads: SkillHeads) -> Prompts:
    """Texts and their embeddings (n, d), analysed."""
    features = [lexical_features(text) for text in texts]
    signals = [heads.signals(row, embedding) for row, embedding in zip(features, embeddings, strict=True)]
    rows = np.concatenate([feature_rows(features, FEATURES), feature_rows(signals, SIGNALS)], axis=1)
    return Prompts(tuple(texts), embeddings.astype(np.float64), rows)


@dataclass(frozen=True)
class Mixture:
    """The two regressions and the share (0..1] of the kernel's. With share 1 there are no n-grams."""

    scaler: Scaler
    kernel: KernelRidge
    grams: GramRidge | None
    share: float

    def predict(self, prompts: Prompts) -> Array:
        """Raw predictions (n, c)."""
        first = self.kernel.predict(self.scaler.join(prompts.embeddings, prompts.features))
        if self.grams is None:
            return first
        return self.share * first + (1 - self.share) * (self.kernel.level + self.grams.predict(prompts.texts))

    def mixed(self, shares: Array) -> Mixture:
        """Predictions of other columns (s), the means of these with `shares` (c, s): both regressions are linear."""
        kernel = replace(self.kernel, dual=self.kernel.dual @ shares, level=self.kernel.level @ shares)
        grams = replace(self.grams, slope=tuple(slope @ shares for slope in self.grams.slope)) if self.grams else None
        return replace(self, kernel=kernel, grams=grams)

    @property
    def weights(self) -> dict[str, NDArray[Any]]:
        """The numbers for an artefact."""
        content: dict[str, NDArray[Any]] = {
            "support": self.kernel.support, "dual": self.kernel.dual, "level": self.kernel.level,
            "feature_mean": self.scaler.mean, "feature_std": self.scaler.std,
        }  # fmt: skip
        for k, kind in enumerate(KINDS if self.grams else ()):
            assert self.grams is not None
            content |= {f"{kind}_idf": self.grams.idf[k], f"{kind}_slope": self.grams.slope[k]}
        content = {name: np.asarray(array, np.float32) for name, array in content.items()}
        for k, kind in enumerate(KINDS if self.grams else ()):
            assert self.grams is not None
            content[f"{kind}_keys"] = self.grams.keys[k]
        return content

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]], columns: int) -> Mixture:
        """The mixture within an artefact. Raises `KeyError` or `ValueError` if something is missing or misshapen."""
        width, f = int(config["embedding"]["width"]), len(FEATURES) + len(SIGNALS)
        share = float(config["share"])
        due = {
            "support": (len(weights["support"]), width + f), "dual": (len(weights["support"]), columns),
            "level": (columns,), "feature_mean": (f,), "feature_std": (f,),
        }  # fmt: skip
        for kind in KINDS if share < 1 else ():
            g = len(weights[f"{kind}_keys"])
            due |= {f"{kind}_keys": (g,), f"{kind}_idf": (g,), f"{kind}_slope": (g, columns)}
        for name, shape in due.items():
            if weights[name].shape != shape:
                raise ValueError(f"{name} has shape {weights[name].shape}, expected {shape}")
        real = {name: np.asarray(weights[name], np.float64) for name in due if not name.endswith("_keys")}
        support = np.asarray(weights["support"], np.float32)  # half of what each decision has to read
        grams = None
        if share < 1:
            grams = GramRidge(
                tuple(np.asarray(weights[f"{kind}_keys"], np.uint32) for kind in KINDS),
                tuple(real[f"{kind}_idf"] for kind in KINDS),
                tuple(real[f"{kind}_slope"] for kind in KINDS),
            )
        scaler = Scaler(real["feature_mean"], real["feature_std"], float(config["feature_weight"]))
        kernel = KernelRidge(support, real["dual"], real["level"], float(config["gamma"]))
        return cls(scaler, kernel, grams, share)


def fit_mixture(
    prompts: Prompts,
    table: RatingsTable,
    choice: Hyperparameters,
    seed: int,
    landmarks: int = MAX_LANDMARKS,
    with_grams: bool | None = None,
) -> Mixture:
    """Fit both regressions to a table (the n-grams only if they have a share, or on request)."""
    scaler = Scaler.fit(prompts.features, choice.feature_weight)
    level, blocks = blocks_of(table.scores, table.weights)
    rows = choose_landmarks(table.groups, seed, landmarks)
    inputs = scaler.join(prompts.embeddings, prompts.features)
    kernel, penalties = fit_kernel_ridge(inputs, blocks, level, table.groups, choice.gamma, rows, choice.firmness)
    grams = None
    if choice.share < 1 if with_grams is None else with_grams:
        grams = fit_grams(table.prompts, blocks, len(level), penalties)
    return Mixture(scaler, kernel, grams, choice.share)
