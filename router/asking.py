"""What an artefact says of a prompt, as builtins on the scale of its ratings: for files, pipes and evaluation."""

from __future__ import annotations

from typing import Any

from router.embedding import Embedder
from router.features import lexical_features
from router.predictors import QualityPredictor
from router.types import PromptView


def view_of(predictor: QualityPredictor, embedder: Embedder, prompt: str) -> PromptView:
    """The prompt as this predictor sees it."""
    features, embedding = lexical_features(prompt), embedder.embed([prompt])[0]
    signals = predictor.signals(features, embedding)
    return PromptView(prompt, features, signals, embedding, predictor.familiarity(embedding))


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
        "in_domain": view.in_domain,
        "basis": "prior" if "prior" in basis else "learned",
    }
