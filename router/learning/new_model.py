"""A new model without retraining everything: rated on a few anchor prompts, its column is fitted from the others.

    prediction(new) = level(new) + sum over known columns c of w_c (prediction(c) - level(c))

The weights w are pulled towards the plain mean of the known columns (what is hard for all is hard for the new one), as
strongly as leaving anchors out says. Everything else of the artefact stays as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.learning.ratings import MIN_PROMPTS, Rating, normal_group
from router.learning.report import ColumnReport
from router.learning.training import split_groups
from router.prompts.embedding import Embedder, MiniLMEmbedder
from router.prompts.skills import SkillHeads
from router.quality.calibration import Z, fit_calibration
from router.quality.kernel_ridge import Mixture, prompts_of
from router.quality.kernels import fit_ridge
from router.quality.ngrams import KINDS
from router.quality.ratings_table import Scale
from router.registry.artifact import Artifact, save_artifact

Array = NDArray[np.float64]
FOLDS = 5

# What a new model is rated on: easy to hard, every skill in turn.
PLAIN = (
    "a lighthouse on a cliff", "a bowl of ramen", "an old fisherman mending a net", "a fox asleep in the snow",
    "a red bicycle", "a street market at dusk", "a glass of water on a table", "a violinist on a rooftop",
)  # fmt: skip
SKILLS: dict[str, tuple[str, ...]] = {
    "text": ('{} beside a wooden sign that says "OPEN"', '{}, with the word "HOPE" painted across the sky'),
    "counting": ("{} and exactly four paper lanterns", "{} with seven birds overhead"),
    "attributes": (
        "{} next to a blue metal chair and a yellow velvet cushion",
        "{} between a tiny green door and a huge white one",
    ),
    "places": ("{} to the left of a tall clock", "{} below a hanging umbrella and in front of a stone wall"),
    "negation": ("{} without any people", "{}, but nothing red in the picture"),
    "everything": ('{}, three black cats on the right, no trees, and a banner reading "NORTH"',),
}  # fmt: skip


def anchor_prompts() -> list[str]:
    """The prompts, always the same, in an order in which any beginning holds every skill."""
    patterns = ["{}", *(pattern for patterns in SKILLS.values() for pattern in patterns)]
    return [
        patterns[(row + column) % len(patterns)].format(PLAIN[column])
        for row in range(len(patterns))
        for column in range(len(PLAIN))
    ]


def add_model(
    artifact: Artifact, ratings: Iterable[Rating], path: str | Path, embedder: Embedder | None = None
) -> tuple[Artifact, ColumnReport]:
    """Save to folder `path` the artefact with one more column, from `ratings` of that one model on the anchors.

    Raises `ArtifactError` if the ratings are of several models, of one that is there, too few, or off the scale.
    """
    name, prompts, groups, scores = _anchors(artifact, list(ratings))
    heads = SkillHeads.of(artifact.weights)
    mixture = Mixture.of(artifact.config, artifact.weights, len(artifact.config["columns"]))
    raw = mixture.predict(prompts_of(prompts, (embedder or MiniLMEmbedder()).embed(prompts), heads))
    inputs = raw - mixture.kernel.level
    split = split_groups(groups, FOLDS, seed=0)
    held_out = np.empty(len(scores))
    for fold in range(FOLDS):
        out = split == fold
        level, weights = fit_weights(inputs[~out], scores[~out], [g for g, o in zip(groups, out, strict=True) if not o])
        held_out[out] = level + inputs[out] @ weights
    calibration, crossed = fit_calibration(held_out, scores, np.ones(len(scores)), split)
    level, weights = fit_weights(inputs, scores, groups)
    inside = np.abs(scores - crossed.mean) <= Z * crossed.std
    report = ColumnReport(
        name,
        len(scores),
        float(scores.mean()),
        float(np.nan_to_num(np.corrcoef(crossed.mean, scores)[0, 1])) if crossed.mean.std() * scores.std() > 0 else 0.0,
        float(((scores - crossed.mean) ** 2).mean()),
        float(scores.var()),
        float(inside.mean()),
    )
    config: dict[str, Any] = copy.deepcopy(dict(artifact.config))
    config["columns"].append(name)
    curve = {"knots": calibration.knots.round(6).tolist(), "spread": calibration.spread, "floor": calibration.floor}
    config["calibration"].append(curve)
    config["training"]["held_out"].append(asdict(report))
    return save_artifact(path, config, _widened(artifact, weights, level, report), _card(artifact, report)), report


def fit_weights(inputs: Array, scores: Array, groups: list[str]) -> tuple[float, Array]:
    """Level and weights (c,) of a new column on the known columns' centred predictions (n, c)."""
    prior = np.full(inputs.shape[1], 1.0 / inputs.shape[1])
    centre = inputs.mean(axis=0)
    rest = scores - scores.mean() - (inputs - centre) @ prior
    slope, _ = fit_ridge(inputs - centre, rest[:, None], np.ones(len(scores)), groups)
    weights = prior + slope[:, 0]
    return float(scores.mean() - centre @ weights), weights


def _anchors(artifact: Artifact, ratings: list[Rating]) -> tuple[str, list[str], list[str], Array]:
    """Name of the model, prompts, groups and scores on 0..1, each prompt once."""
    names = {rating.recipe for rating in ratings}
    if len(names) != 1:
        raise ArtifactError(f"the anchors rate {len(names)} models ({', '.join(sorted(names))}); add one at a time")
    name = names.pop()
    if name in artifact.config["columns"]:
        raise ArtifactError(f"the artefact has a column {name!r} already; choose another name, or train it anew")
    scale = Scale(**artifact.config["scale"])
    rated: dict[str, list[Rating]] = {}
    for rating in ratings:
        if not scale.low <= rating.score <= scale.high:
            raise ArtifactError(
                f"score {rating.score:g} of {rating.prompt[:60]!r} is outside {scale.low:g}..{scale.high:g}, the scale "
                "of the artefact; rate the anchors on the same scale"
            )
        rated.setdefault(rating.prompt, []).append(rating)
    if len(rated) < MIN_PROMPTS:
        raise ArtifactError(f"{len(rated)} anchors are too few; rate {name!r} on at least {MIN_PROMPTS} prompts")
    scores = [np.average([r.score for r in rows], weights=[r.weight for r in rows]) for rows in rated.values()]
    groups = [rows[0].group or normal_group(prompt) for prompt, rows in rated.items()]
    return name, list(rated), groups, np.array([scale.unit(float(score)) for score in scores])


def _widened(artifact: Artifact, weights: Array, level: float, report: ColumnReport) -> dict[str, NDArray[Any]]:
    """The artefact's arrays with one more column."""
    arrays = dict(artifact.weights)
    for name in ("dual", *(f"{kind}_slope" for kind in KINDS)):
        if name in arrays:
            arrays[name] = np.concatenate([arrays[name], (arrays[name] @ weights)[:, None]], axis=1).astype(np.float32)
    if "feedback_dual" in arrays:  # nothing was said of the new model yet
        none = np.zeros((len(arrays["feedback_dual"]), 1), np.float32)
        arrays["feedback_dual"] = np.concatenate([arrays["feedback_dual"], none], axis=1)
        arrays["feedback_level"] = np.append(arrays["feedback_level"], np.float32(0))
    spread = max(float(np.sqrt(report.mse_constant)), float(artifact.config["prior"]["std"]))
    for name, value in (("level", level), ("column_mean", report.mean), ("column_std", spread)):
        arrays[name] = np.append(arrays[name], value).astype(np.float32)
    return arrays


def _card(artifact: Artifact, report: ColumnReport) -> str:
    scale = Scale(**artifact.config["scale"])
    found = replace(report, mean=scale.score(report.mean))
    return f"""{artifact.card.rstrip()}

## Added: `{report.recipe}`

Fitted from {found.prompts} anchor prompts as a mixture of the columns above. Held-out anchors: mean score
{found.mean:.3f}, Pearson {found.pearson:.3f}, MSE {found.mse:.4f} (constant {found.mse_constant:.4f}), coverage of
90 % intervals {found.coverage:.3f}.
"""
