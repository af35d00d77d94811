"""Trains the embedded router artefact on `outcomes_train.csv`, judges it on `outcomes_test.csv`, prompts it never saw.

    python -m benchmarks.embedded_outcomes.train_router [--quick]

The quality of a picture is its exact mark (0 or 1), so what is predicted is the chance that a picture is right.

Writes `router/artifacts/embedded/` and `judged.json`: for each recipe the Pearson correlation of the predicted with the
measured quality, and the squared error beside that of always predicting the recipe's mean in
training, with 95 % bootstrap intervals over prompts. `--quick` takes a few of the prompts.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import shipped
from deployments.settings import ROOT
from router.learning.intervals import resampled
from router.learning.ratings import Rating
from router.learning.training import train
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features
from router.quality.predictor import QualityPredictor
from router.types import PromptView

HERE = Path(__file__).resolve().parent
ARTIFACT = ROOT / "router" / "artifacts" / "embedded"


def read(path: Path) -> dict[tuple[str, str], list[float]]:
    """Exact marks by (prompt, recipe), one for each seed."""
    marks: dict[tuple[str, str], list[float]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            marks[row["prompt"], row["recipe"]].append(float(row["exact"]))
    return marks


def some(marks: dict[tuple[str, str], list[float]], prompts: int) -> dict[tuple[str, str], list[float]]:
    """The marks of so many of the prompts."""
    kept = set(sorted({prompt for prompt, _ in marks})[:: max(1, len({p for p, _ in marks}) // prompts)][:prompts])
    return {cell: found for cell, found in marks.items() if cell[0] in kept}


def ratings(marks: dict[tuple[str, str], list[float]]) -> list[Rating]:
    """One rating a prompt and recipe: the mean over its seeds, weighted by their number."""
    return [
        Rating(prompt, recipe, float(np.mean(seeds)), prompt, float(len(seeds)))
        for (prompt, recipe), seeds in marks.items()
    ]


def evaluate(predictor: QualityPredictor, marks: dict[tuple[str, str], list[float]], means: dict[str, float]) -> Any:
    """Held-out figures by recipe key."""
    _, recipes = shipped()
    prompts = sorted({prompt for prompt, _ in marks})
    embeddings = MiniLMEmbedder().embed(prompts)
    predicted: dict[str, list[float]] = defaultdict(list)
    measured: dict[str, list[float]] = defaultdict(list)
    for prompt, embedding in zip(prompts, embeddings, strict=True):
        features = lexical_features(prompt)
        view = PromptView(prompt, features, predictor.signals(features, embedding), embedding)
        for key, quality in predictor.predict(view, recipes).items():
            if (prompt, key) in marks:
                predicted[key].append(quality.mean)
                measured[key].append(float(np.mean(marks[prompt, key])))
    report = {}
    for key in measured:
        p, m = np.array(predicted[key]), np.array(measured[key])
        missed, spread = (m - p) ** 2, (m - means[key]) ** 2
        report[key] = {
            "prompts": len(m),
            "mean": float(m.mean()),
            "pearson": float(np.corrcoef(p, m)[0, 1]) if m.std() and p.std() else 0.0,
            "mse": float(((m - p) ** 2).mean()),
            "mse_constant": float(((m - means[key]) ** 2).mean()),
            "explained_95": resampled(
                len(m),
                lambda rows, a=missed, b=spread: 1 - a[rows].mean() / b[rows].mean(),
                resamples=2_000,
            ),
        }
    return report


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    chosen = made.parse_args(argv)
    learned, asked = read(HERE / "outcomes_train.csv"), read(HERE / "outcomes_test.csv")
    if chosen.quick:
        learned, asked = some(learned, 60), some(asked, 20)
    with results(chosen, HERE, is_full(made, chosen)) as out:
        study(ratings(learned), asked, ARTIFACT if out == HERE else out / "embedded", out)


def study(learned: Sequence[Rating], asked: dict[tuple[str, str], list[float]], folder: Path, out: Path) -> None:
    """Train into `folder`, judge on the marks `asked`, write `judged.json`."""
    source = "exact marks by the checker of the captioned world (benchmarks/embedded_outcomes)"
    artifact, _ = train(learned, folder, "embedded", source, "Apache-2.0")
    means: dict[str, float] = {}
    for key in {rating.recipe for rating in learned}:
        means[key] = float(np.mean([rating.score for rating in learned if rating.recipe == key]))
    report = evaluate(QualityPredictor(artifact, shipped()[0]), asked, means)
    for key, figures in report.items():
        low, high = figures["explained_95"]
        print(f"{key:60s} mean {figures['mean']:.2f}  r {figures['pearson']:.2f}  explained [{low:.2f}, {high:.2f}]")
    (out / "judged.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
