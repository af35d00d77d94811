"""What fitting columns together is worth, and what reading the served ones off all that is rated costs.

    python -m benchmarks.router_real.columns FOLDER
    python -m benchmarks.router_real.columns --quick

APGR on five grouped folds of GenAI-Bench, two seeds, with the hyperparameters of `real`: three pairs of its models,
fitted together and each column apart; and `real`'s own pairs, learned from the served columns only, with and without
`sdxl-turbo`, and read off all six models. Writes `columns.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.sets import SETS, add_folder, tables
from benchmarks.router_real.train import CHOICE, READS, SERVED, real_ratings
from router.learning.evaluation import apgr, curve, pearson
from router.learning.ratings import shares_of, tabulate
from router.learning.training import crossed, split_groups
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import prompts_of
from router.quality.ratings_table import RatingsTable

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1)
MODELS = (("sd15", "dalle3"), ("sdxl", "dalle3"), ("sdxl", "midjourney_v6"))
OWN = (("sd15", "flux"), ("sdxl", "flux"))
Gains = dict[tuple[str, str], NDArray[np.float64]]


def study(folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    rated = tabulate(real_ratings(folder)[0], SETS["genai_bench"].scale)
    prompts = prompts_of(rated.prompts, MiniLMEmbedder().embed(rated.prompts), load_skills())
    own = rated.mixed(tuple(SERVED), shares_of(rated.columns, SERVED))
    found: dict[str, dict[str, list[float]]] = {}
    changed: dict[str, list[float]] = {}
    for seed in seeds:
        split = split_groups(rated.groups, 5, seed)
        together = crossed(prompts, rated, split, CHOICE, seed)
        apart = np.hstack([crossed(prompts, _only(rated, [c]), split, CHOICE, seed) for c in rated.columns])
        few = _only(own, [column for column in own.columns if column != "sdxl-turbo"])
        said = {
            "without sdxl-turbo": _gains(few.columns, crossed(prompts, few, split, CHOICE, seed), OWN),
            "with sdxl-turbo": _gains(own.columns, crossed(prompts, own, split, CHOICE, seed), OWN),
            "read off six": _gains(own.columns, together @ shares_of(rated.columns, SERVED), OWN),
        }
        for name, gains, table in (
            ("together", _gains(rated.columns, together, MODELS), rated),
            ("apart", _gains(rated.columns, apart, MODELS), rated),
            *((name, gains, own) for name, gains in said.items()),
        ):
            for pair, gain in gains.items():
                true = _gains(table.columns, table.scores, [pair])[pair]
                known = np.isfinite(true)
                value = apgr(curve(gain[known], true[known], split[known]))
                found.setdefault(name, {}).setdefault(" -> ".join(pair), []).append(value)
        for pair in OWN:
            both = said["without sdxl-turbo"][pair], said["with sdxl-turbo"][pair]
            changed.setdefault(" -> ".join(pair), []).append(pearson(*both))
    return {"apgr by seed": found, "correlation of gains with and without sdxl-turbo": changed}


def _only(table: RatingsTable, columns: Sequence[str]) -> RatingsTable:
    return table.mixed(columns, shares_of(table.columns, {column: {column: 1.0} for column in columns}))


def _gains(columns: Sequence[str], scores: NDArray[np.float64], pairs: Sequence[tuple[str, str]]) -> Gains:
    return {(a, b): scores[:, columns.index(b)] - scores[:, columns.index(a)] for a, b in pairs}


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    chosen = made.parse_args(argv)
    with tables(made, chosen, READS) as folder, results(chosen, HERE, is_full(made, chosen)) as out:
        report = study(folder, SEEDS[:1] if chosen.quick else SEEDS)
        (out / "columns.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
