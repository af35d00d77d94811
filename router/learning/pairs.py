"""What an artefact says of a prompt, as builtins on the scale of its ratings: for files, pipes and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    "learned", or "prior" for a prompt so unlike the training prompts that the columns' means weigh more."""
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
        "basis": "prior" if "prior" in basis else "learned",
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
