"""The card of a trained predictor: written from the run, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.prompts.familiarity import NEIGHBOURS
from router.quality.ratings_table import Scale


@dataclass(frozen=True)
class ColumnReport:
    """Held-out figures of one recipe, on 0..1. mse_constant: of always predicting the mean; coverage: of 90 %
    intervals."""

    recipe: str
    prompts: int
    mean: float
    pearson: float
    mse: float
    mse_constant: float
    coverage: float


def predictor_card(
    config: Mapping[str, Any], reports: Sequence[ColumnReport], source: str, licence: str, notes: str
) -> str:
    """Markdown: where it is from, what it is, how good it is on prompts that it did not see."""
    scale = Scale(**config["scale"])
    rows = "\n".join(
        f"| `{r.recipe}` | {r.prompts} | {scale.score(r.mean):.3f} | {r.pearson:.3f} | {r.mse:.4f} "
        f"| {r.mse_constant:.4f} | {r.coverage:.3f} |"
        for r in reports
    )
    rules = ", ".join(f"{key} {value:.3g}" for key, value in config["composition"].items())
    mixture = "the kernel alone" if config["share"] == 1 else f"{config['share']:.0%} kernel, the rest n-grams"
    return f"""# Quality predictor `{config["name"]}`

Trained on: {source}. Licence of the ratings: {licence}.

Scores from {scale.low:g} to {scale.high:g}, which are 0 and 1 of Triptych's quality. Kernel ridge on the embedding of
{config["embedding"]["model"]} and {len(config["features"])} features and skill signals (gamma {config["gamma"]:.3g},
weight of the features {config["feature_weight"]}), mixed with a ridge on word and character n-grams: {mixture}.
{config["training"]["prompts"]} prompts, seed {config["training"]["seed"]}. Composition: {rules}.

Held-out figures (grouped folds; calibration fitted without the own fold; errors on the 0..1 scale). `constant` always
predicts the column's mean; coverage is that of the 90 % intervals and should be near 0.90.

| recipe | prompts | mean score | Pearson | MSE | MSE constant | coverage |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

A prompt unlike the training prompts (mean cosine to its {NEIGHBOURS} nearest anchors below
{config["domain"]["near"]:.2f}) is predicted towards the column's mean with a wider interval, wholly so at half of that.
{notes}"""
