"""Why one shuffle of the labels says little: a thousand of them, by a kernel ridge alone.

    python -m benchmarks.router_evaluation.shuffles FOLDER

On GenAI-Bench's grouped folds, the gain of a pair is predicted by kernel ridge with a fixed penalty, which is linear in
the labels: one matrix a fold answers for all shuffles. APGR on the true labels, by shuffled training labels, has a mean
and a spread; beside it is the spread of orders that are drawn prompt by prompt. The mean says whether anything leaks.
The spread is larger than that of drawn orders: a smooth predictor moves whole kinds of prompts together, up or down.
Writes `results/shuffles.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.router_evaluation.run import EMBEDDER, GENAI_PAIRS, RESULTS, WANTED
from benchmarks.router_evaluation.sets import SETS, ratings, rows_of
from router.learning.evaluation import apgr, curve
from router.learning.ratings import tabulate
from router.learning.training import split_groups
from router.prompts.scaling import Scaler
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import Prompts, prompts_of
from router.quality.kernels import rbf

Array = NDArray[np.float64]
SHUFFLES = 1_000
PENALTIES = (2.0, 16.0)  # the range that the directions of GenAI-Bench get from left-out groups


def hats(prompts: Prompts, split: NDArray[np.int64], penalty: float) -> dict[int, Array]:
    """By fold, the matrix (held out, others) that takes centred labels to predictions."""
    found = {}
    for fold in np.unique(split):
        out = split == fold
        scaler = Scaler.fit(prompts.features[~out], WANTED.feature_weight)
        inputs = scaler.join(prompts.embeddings, prompts.features)
        kernel = rbf(inputs[~out], inputs[~out], WANTED.gamma) + penalty * np.eye(int((~out).sum()))
        found[int(fold)] = rbf(inputs[out], inputs[~out], WANTED.gamma) @ np.linalg.inv(kernel)
    return found


def predicted(labels: Array, split: NDArray[np.int64], matrices: dict[int, Array]) -> Array:
    """Held-out predictions (n,)."""
    said = np.empty_like(labels)
    for fold, matrix in matrices.items():
        out = split == fold
        level = labels[~out].mean()
        said[out] = level + matrix @ (labels[~out] - level)
    return said


def study(folder: Path) -> dict[str, Any]:
    table = tabulate(ratings(rows_of(folder, "genai_bench")), SETS["genai_bench"].scale)
    prompts = prompts_of(table.prompts, EMBEDDER.embed(table.prompts), load_skills())
    split = split_groups(table.groups, 5, seed=0)
    report: dict[str, Any] = {"shuffles": SHUFFLES}
    for penalty in PENALTIES:
        matrices = hats(prompts, split, penalty)
        for cheap, strong in GENAI_PAIRS:
            gain = table.scores[:, table.columns.index(strong)] - table.scores[:, table.columns.index(cheap)]
            gain = np.where(np.isnan(gain), np.nanmean(gain), gain)
            rng = np.random.default_rng(0)
            blind = [
                apgr(curve(predicted(gain[rng.permutation(len(gain))], split, matrices), gain, split))
                for _ in range(SHUFFLES)
            ]
            drawn = [apgr(curve(rng.standard_normal(len(gain)), gain, split)) for _ in range(SHUFFLES)]
            report[f"{cheap} -> {strong}, penalty {penalty:g}"] = {
                "true labels": apgr(curve(predicted(gain, split, matrices), gain, split)),
                "mean": float(np.mean(blind)),
                "standard error": float(np.std(blind) / SHUFFLES**0.5),
                "std": float(np.std(blind)),
                "middle 95 %": [float(x) for x in np.percentile(blind, [2.5, 97.5])],
                "std of drawn orders": float(np.std(drawn)),
            }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    report = study(parser.parse_args().folder)
    (RESULTS / "shuffles.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
