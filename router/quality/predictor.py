"""Predicted quality of each recipe on a prompt: a trained artefact, blended towards its prior off its domain."""

from __future__ import annotations

import copy
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from itertools import repeat
from typing import Literal

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.planning.recipes import resolve
from router.prompts.familiarity import UNSAID, Domain, unsaid, vocabulary_of
from router.prompts.lexical import FEATURES, SIGNALS
from router.prompts.scaling import feature_rows
from router.prompts.skills import SkillHeads
from router.quality.calibration import MIN_STD, Calibration, Z
from router.quality.composition import Composition, Outline, Record, elsewhere, outline
from router.quality.contrasts import Contrasts
from router.quality.kernel_ridge import Mixture, Prompts
from router.quality.ratings_table import Scale
from router.quality.residual import Adapter
from router.quality.rule import RulePart, rule_of
from router.registry.artifact import Artifact
from router.types import Catalogue, PromptView, Quality, Recipe

Array = NDArray[np.float64]
REMEMBERED = 1024  # prompts whose predictions are kept
POLICIES = 64  # sets of recipes whose outlines are kept


class QualityPredictor:
    """Serves one artefact (router/learning/training.py makes them) to any number of threads. A prompt is taken to
    always have the same embedding, so the last predictions are remembered by prompt.

    digest: of the artefact;   base: of the one that was there before any feedback (router/quality/residual.py)
    """

    def __init__(self, artifact: Artifact, catalogue: Catalogue | None = None) -> None:
        """With a `catalogue`, settings that equal a card's defaults count as not given (router/planning/recipes.py).

        Raises `ArtifactError` if the artefact lacks something or was trained on other features.
        """
        self.digest = artifact.digest
        self._catalogue = catalogue
        self._vocabulary = vocabulary_of(catalogue)
        self._lock = threading.Lock()
        self._outlines: LRUCache[tuple[str | int, ...], tuple[dict[str, Recipe], dict[str, Outline]]] = LRUCache(
            POLICIES
        )
        self._bases: LRUCache[str, Array] = LRUCache(REMEMBERED)
        self._known: LRUCache[tuple[str, float | None], dict[str, Quality]] = LRUCache(REMEMBERED)
        try:
            self._take(artifact)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            where = artifact.path or "the artefact"
            raise ArtifactError(f"{where} is not complete ({error!r}); train it again with this version") from error

    def predict(
        self,
        view: PromptView,
        recipes: Mapping[str, Recipe],
        only: Collection[str] | None = None,
        known: Mapping[str, Quality] | None = None,
        apart: Mapping[str, float] | None = None,
    ) -> dict[str, Quality]:
        """Quality of each of `recipes` (of `only` those, if given; fusions may name any of them). known: of the
        columns, if not as `rated` says; nothing is remembered then. apart: how far the size of each answer is from that
        at which the recipe was rated (`router.planning.sizes.apart`)."""
        self._checked(view.embedding)
        wanted = [name for name in recipes if only is None or name in only]
        outlines = self._outlined(recipes, wanted)
        known = self.rated(view) if known is None else known
        found: dict[str, Quality] = {}
        for name in wanted:
            one = outlines[name]
            if one.column is not None and one.distance is None:  # it was rated itself: the common case
                found[name] = known[one.column]
            else:
                found[name] = one.quality(known, self._prior, self._rules)
            if apart and (distance := apart.get(name, 0.0)):
                found[name] = elsewhere(found[name], distance, self._rules)
        return found

    def _outlined(self, recipes: Mapping[str, Recipe], names: Sequence[str]) -> dict[str, Outline]:
        """How each of `names` follows from the columns; of a policy's recipes, remembered from request to request."""
        # A policy's recipes are the same objects each time, and so are they as one shape of request asks for them.
        key: tuple[str | int, ...] = (*recipes, *map(id, recipes.values()))
        with self._lock:
            kept = self._outlines.get(key)
            if kept is None or kept[0] != recipes:
                kept = self._outlines[key] = (dict(recipes), {})
        known = kept[1]
        for name in names:
            if name not in known:
                known[name] = outline(
                    resolve(recipes[name], recipes, (name,)), self._names, self._catalogue, self._record
                )
        return known

    def familiarity(self, embedding: NDArray[np.float32], prompt: str = "") -> float:
        """0..1, how near a prompt's embedding is to the training prompts, less if it says what no caption of the models
        did (where their cards list that, and its text is known); see router/prompts/familiarity.py."""
        strange = unsaid(prompt, self._vocabulary) if self._vocabulary else ()
        return self._domain.familiarity(self._checked(embedding)) * UNSAID ** len(strange)

    @property
    def columns(self) -> tuple[str, ...]:
        """Keys of the recipes that were rated."""
        return self._names

    @property
    def width(self) -> int:
        """Numbers of an embedding that it takes."""
        return self._width

    def signals(self, features: Mapping[str, float], embedding: NDArray[np.float32]) -> dict[str, float]:
        """The skills that a prompt asks for, each in 0..1; see router/prompts/skills.py."""
        return self._heads.signals(features, self._checked(embedding))

    def view(self, prompt: str, features: Mapping[str, float], embedding: NDArray[np.float32]) -> PromptView:
        """A prompt as this predictor sees it, from its `lexical_features` and its embedding (d,)."""
        signals = self.signals(features, embedding)
        strange = unsaid(prompt, self._vocabulary) if self._vocabulary else ()
        familiarity = self._domain.familiarity(embedding) * UNSAID ** len(strange)
        view = PromptView(prompt, features, signals, embedding, familiarity, strange)
        if prompt:  # while the signals are at hand
            means = self._base_means(view, signals)
            with self._lock:
                self._bases[prompt] = means
        return view

    def rated(self, view: PromptView) -> dict[str, Quality]:
        """Quality of each rated recipe: with trust t, a mixture of prediction (t) and column prior (1 - t)."""
        key = view.prompt, view.familiarity
        with self._lock:
            known = self._known.get(key)
        if known is None:
            self._checked(view.embedding)
            known = self.adapted(view, self.base_means(view))
            with self._lock:
                self._known[key] = known
        return known

    def base_means(self, view: PromptView) -> Array:
        """The calibrated mean (c,) of each column before feedback and the prior of the column have their say.

        Of a prompt whose text is not known (""), the words cannot be looked at: the kernel alone predicts.
        """
        with self._lock:
            means = self._bases.get(view.prompt)
        if means is None or not view.prompt:
            means = self._base_means(view, self.signals(view.features, view.embedding))
            if view.prompt:
                with self._lock:
                    self._bases[view.prompt] = means
        return means

    def _base_means(self, view: PromptView, signals: Mapping[str, float]) -> Array:
        prompts = self._prompts_of(view, signals)
        mixture = self._mixture if view.prompt else replace(self._mixture, grams=None)
        raw = mixture.predict(prompts)[0]
        means = np.empty(len(raw))
        for k, knots in enumerate(self._knots):
            means[k] = np.interp(raw[k], *knots)
        means = np.minimum(np.maximum(means, 0.0), 1.0)
        means = means if self._contrasts is None else self._contrasts.shrunk(means)
        return means if self._rule is None else self._rule.added(means, rule_of(view.features))

    def base_std(self, means: Array) -> Array:
        """The deviations (c,) that go with `base_means`."""
        return np.sqrt(np.maximum(self._spread * means * (1 - means) + self._floor, MIN_STD**2))

    def adapted(self, view: PromptView, base: Array) -> dict[str, Quality]:
        """Quality of each rated recipe from its `base_means` (c,)."""
        means, stds, priors = base, self.base_std(base), self._column_mean
        if (adapter := self._adapter) is not None:
            means = np.clip(base + adapter.shift(self.inputs(view))[0], 0.0, 1.0)
            priors = np.clip(priors + adapter.level, 0.0, 1.0)
            stds = stds * adapter.widen
        trust = (
            self._domain.familiarity(self._checked(view.embedding)) if view.familiarity is None else view.familiarity
        )
        # The mixture's variance also holds the distance between the two means.
        blended = trust * means + (1 - trust) * priors
        variance = trust * stds**2 + (1 - trust) * self._column_std**2 + trust * (1 - trust) * (means - priors) ** 2
        learned: Literal["learned", "rule"] = "rule" if self._rule is not None and self._rule.alone else "learned"
        basis: Literal["learned", "rule", "prior"] = learned if trust >= 0.5 else "prior"
        qualities = map(Quality, blended.tolist(), np.sqrt(variance).tolist(), repeat(basis))
        return dict(zip(self._names, qualities, strict=True))

    def inputs(self, view: PromptView) -> Array:
        """What the regression sees of a prompt, shape (1, d)."""
        prompts = self._prompts_of(view, self.signals(view.features, view.embedding))
        return self._mixture.scaler.join(prompts.embeddings, prompts.features)

    def with_adapter(self, adapter: Adapter | None) -> QualityPredictor:
        """The same columns with other feedback on top. Only for trying out: it has the digest of this one."""
        other = copy.copy(self)
        other._adapter = adapter
        other._lock, other._known = threading.Lock(), LRUCache(REMEMBERED)
        return other

    @property
    def adapter(self) -> Adapter | None:
        """The feedback on top, if there is any."""
        return self._adapter

    @property
    def gamma(self) -> float:
        """Width of the kernel, for adapters."""
        return self._mixture.kernel.gamma

    def _prompts_of(self, view: PromptView, signals: Mapping[str, float]) -> Prompts:
        rows = [feature_rows([view.features], FEATURES), feature_rows([signals], SIGNALS)]
        return Prompts((view.prompt,), view.embedding[None].astype(np.float64), np.concatenate(rows, axis=1))

    def interval(self, quality: Quality) -> tuple[float, float]:
        """The 90 % interval of one score of this quality, within 0..1."""
        return max(0.0, quality.mean - Z * quality.std), min(1.0, quality.mean + Z * quality.std)

    @property
    def scale(self) -> Scale:
        """What 0 and 1 of the qualities are on the scale of the ratings."""
        return self._scale

    def _checked(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        if embedding.shape != (self._width,):
            raise ArtifactError(
                f"the artefact was trained on {self._model_name} ({self._width} numbers), but the embedder gives "
                f"shape {embedding.shape}; use the same embedder"
            )
        return embedding

    def _take(self, artifact: Artifact) -> None:
        config, weights = artifact.config, artifact.weights
        if tuple(config["features"]) != (*FEATURES, *SIGNALS):
            raise ValueError("its features are not those of this version")
        self._names: tuple[str, ...] = tuple(config["columns"])
        # What the models' cards said when they were rated; artefacts of before 0.2 do not know.
        self._record: Record = {str(model): dict(card) for model, card in config.get("cards", {}).items()}
        self._width = int(config["embedding"]["width"])
        self._model_name = str(config["embedding"]["model"])
        self._scale = Scale(float(config["scale"]["low"]), float(config["scale"]["high"]))
        self._heads = SkillHeads.of(weights)
        self._mixture = Mixture.of(config, weights, len(self._names))
        self._adapter = Adapter.of(config, weights)
        self.base = self._adapter.base if self._adapter else self.digest
        self._calibrations = [
            Calibration(np.array(c["knots"], np.float64).reshape(-1, 2), float(c["spread"]), float(c["floor"]))
            for c in config["calibration"]
        ]
        self._domain = Domain(np.asarray(weights["anchors"], np.float32), float(config["domain"]["near"]))
        self._column_mean = np.asarray(weights["column_mean"], np.float64)
        self._column_std = np.asarray(weights["column_std"], np.float64)
        # One law a column, as rows: a decision applies all of them at once.
        self._contrasts = Contrasts.of(config)
        self._rule = RulePart.of(config)
        self._knots = [(c.knots[:, 0].copy(), c.knots[:, 1].copy()) for c in self._calibrations]
        self._spread = np.array([c.spread for c in self._calibrations])
        self._floor = np.array([c.floor for c in self._calibrations])
        self._prior = Quality(float(config["prior"]["mean"]), float(config["prior"]["std"]), "prior")
        self._rules = Composition(**{f.name: float(config["composition"][f.name]) for f in fields(Composition)})
        columns = (len(self._names),)
        if not columns == self._column_mean.shape == self._column_std.shape == (len(self._calibrations),):
            raise ValueError(f"column_mean, column_std and calibration are not for {columns[0]} columns")
        if self._domain.references.shape[1:] != (self._width,):
            raise ValueError(f"anchors has shape {self._domain.references.shape}, expected rows of {self._width}")
