"""What an artefact says of prompts, for files, pipes and evaluation; and the pairs of models that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np

from router.errors import ArtifactError, did_you_mean
from router.learning.ratings import common_prompts
from router.learning.training import HeldOutScores
from router.prompts.embedding import Embedder
from router.prompts.lexical import lexical_features
from router.quality.predictor import QualityPredictor
from router.quality.ratings_table import RatingsTable
from router.types import PromptView


def view_of(predictor: QualityPredictor, embedder: Embedder, prompt: str) -> PromptView:
    """The prompt as this predictor sees it."""
    return predictor.view(prompt, lexical_features(prompt), embedder.embed([prompt])[0])


def ask(predictor: QualityPredictor, embedder: Embedder, prompt: str) -> dict[str, Any]:
    """quality: {model: mean}; interval: {model: [low, high]}, of 90 %; signals: {skill: 0..1}; in_domain: 0..1; basis:
    "learned", "rule" if a hand-written rule sets the columns apart, or "prior" for a prompt so unlike the training
    prompts that the columns' means weigh more."""
    view = view_of(predictor, embedder, prompt)
    known, scale = predictor.rated(view), predictor.scale
    basis = {quality.basis for quality in known.values()}
    return {
        "prompt": prompt,
        "quality": {name: scale.score(quality.mean) for name, quality in known.items()},
        "interval": {name: [scale.score(end) for end in predictor.interval(q)] for name, q in known.items()},
        "signals": dict(view.signals),
        "familiarity": view.familiarity,
        "in_domain": view.familiarity,  # its name until 0.2
        "basis": next(one for one in ("prior", "rule", "learned") if one in basis),
    }


def predict_table(predictor: QualityPredictor, embedder: Embedder, table: RatingsTable) -> HeldOutScores:
    """What an artefact says of the prompts of a table that it was not trained on; NaN for columns that it lacks."""
    mean, std = (np.full_like(table.scores, np.nan) for _ in range(2))
    for row, prompt in enumerate(table.prompts):
        known = predictor.rated(view_of(predictor, embedder, prompt))
        for column, name in enumerate(table.columns):
            if name in known:
                mean[row, column], std[row, column] = known[name].mean, known[name].std
    return HeldOutScores(mean, std, np.zeros(len(table.prompts), dtype=np.int64))


def named_pair(text: str, columns: Sequence[str]) -> tuple[str, str]:
    """The two models of "cheap:expensive"; a model's own name may have colons, too."""
    cuts = [k for k, character in enumerate(text) if character == ":"]
    if not cuts:
        raise ArtifactError(
            f"--pair {text}: two models are compared; write cheap:expensive, such as {':'.join(columns[:2])}"
        )
    splits = [(text[:k], text[k + 1 :]) for k in cuts]
    cheap, strong = next((pair for pair in splits if set(pair) <= set(columns)), splits[0])
    for name in (cheap, strong):
        if name not in columns:
            raise ArtifactError(f"--pair {text}: the table has no model {name!r}{did_you_mean(name, columns)}")
    if cheap == strong:
        raise ArtifactError(f"--pair {text}: a model is not compared with itself; name another one")
    return cheap, strong


def widest_pair(table: RatingsTable) -> tuple[str, str]:
    """The worst and the best column by mean, of those that are rated on enough prompts together."""
    means = dict(zip(table.columns, np.nanmean(table.scores, axis=0), strict=True))
    by_gap = sorted(permutations(table.columns, 2), key=lambda pair: means[pair[0]] - means[pair[1]])
    refused = []
    for pair in by_gap:
        try:
            common_prompts(table, *pair)
            return pair
        except ArtifactError as error:
            refused.append(error)
    raise refused[0]
