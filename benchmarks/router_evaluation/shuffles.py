"""Why one shuffle of the labels says little: a thousand of them, by a kernel ridge alone.

    python -m benchmarks.router_evaluation.shuffles FOLDER
    python -m benchmarks.router_evaluation.shuffles --quick

On GenAI-Bench's grouped folds, the gain of a pair is predicted by kernel ridge with a fixed penalty, which is linear in
the labels: one matrix a fold answers for all shuffles. APGR on the true labels, by shuffled training labels, has a mean
and a spread; beside it is the spread of orders that are drawn prompt by prompt. The mean says whether anything leaks.
The spread is larger than that of drawn orders: a smooth predictor moves whole kinds of prompts together, up or down.
Writes `results/shuffles.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.run import EMBEDDER, GENAI_PAIRS, RESULTS, WANTED
from benchmarks.router_evaluation.sets import SETS, add_folder, ratings, rows_of, tables
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


def study(folder: Path, shuffles: int) -> dict[str, Any]:
    table = tabulate(ratings(rows_of(folder, "genai_bench")), SETS["genai_bench"].scale)
    prompts = prompts_of(table.prompts, EMBEDDER.embed(table.prompts), load_skills())
    split = split_groups(table.groups, 5, seed=0)
    report: dict[str, Any] = {"shuffles": shuffles}
    for penalty in PENALTIES:
        matrices = hats(prompts, split, penalty)
        for cheap, strong in GENAI_PAIRS:
            gain = table.scores[:, table.columns.index(strong)] - table.scores[:, table.columns.index(cheap)]
            gain = np.where(np.isnan(gain), np.nanmean(gain), gain)
            rng = np.random.default_rng(0)
            blind = [
                apgr(curve(predicted(gain[rng.permutation(len(gain))], split, matrices), gain, split))
                for _ in range(shuffles)
            ]
            drawn = [apgr(curve(rng.standard_normal(len(gain)), gain, split)) for _ in range(shuffles)]
            report[f"{cheap} -> {strong}, penalty {penalty:g}"] = {
                "true labels": apgr(curve(predicted(gain, split, matrices), gain, split)),
                "mean": float(np.mean(blind)),
                "standard error": float(np.std(blind) / shuffles**0.5),
                "std": float(np.std(blind)),
                "middle 95 %": [float(x) for x in np.percentile(blind, [2.5, 97.5])],
                "std of drawn orders": float(np.std(drawn)),
            }
    return report


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    chosen = made.parse_args(argv)
    with tables(made, chosen, ("genai_bench",)) as folder, results(chosen, RESULTS, is_full(made, chosen)) as out:
        report = study(folder, 10 if chosen.quick else SHUFFLES)
        (out / "shuffles.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
