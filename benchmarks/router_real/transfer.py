"""Which hyperparameters carry over from one set of ratings to another: the choice behind the artefact `real`.

    python -m benchmarks.router_real.transfer FOLDER
    python -m benchmarks.router_real.transfer --quick

FOLDER holds the rated sets (benchmarks/router_evaluation/sets.py). Within one set, folds choose what foretells that
set; the artefact is asked about prompts of none. So each setting is fitted to one set that is large enough to learn
from (GenAI-Bench; PQPP's training and validation parts) and judged on every *other* set that may be learned from; sets
that may only judge are not read. Between sets, a model stands for the nearest one of its tier (`JUDGED`).

The rule, fixed after a first look at the transfer from GenAI-Bench and before the rest: the Pearson correlation of
predicted and rated gain, averaged over the pairs of a judged set, then over the judged sets by their numbers of
prompts, then over the two learned ones; the greatest wins. Writes `transfer.json` with all of it, APGR beside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.sets import SETS, add_folder, ratings, rows_of, tables
from router.learning.evaluation import apgr, curve, pearson
from router.learning.ratings import tabulate
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import Hyperparameters, Prompts, fit_mixture, prompts_of
from router.quality.kernels import MAX_LANDMARKS
from router.quality.ratings_table import RatingsTable

HERE = Path(__file__).resolve().parent
FEATURE_WEIGHTS = (0.3, 1.0, 2.0)
GAMMAS = (0.15, 0.4, 0.7, 1.5)
FIRMNESS = (1.0, 4.0)
SHARES = (1.0, 0.8, 0.65, 0.5)
LANDMARKS = {"genai_bench": MAX_LANDMARKS, "pqpp": 800}


@dataclass(frozen=True)
class Pair:
    """cheap, expensive: columns of the judged set; stand_ins: the columns of the learned set that speak for them."""

    cheap: str
    strong: str
    stand_ins: tuple[str, str]


JUDGED: dict[str, dict[str, tuple[Pair, ...]]] = {
    "genai_bench": {
        "pqpp": (Pair("glide", "sdxl_base", ("sd_v2_1", "sdxl_base")),),
        "agiqa3k": (
            Pair("sd_v1_5", "midjourney_v5", ("sd_v2_1", "midjourney_v6")),
            Pair("sdxl_2_2", "midjourney_v5", ("sdxl_base", "midjourney_v6")),
        ),
        "geneval_human": (Pair("sd_v2_1", "deepfloyd_if_xl", ("sd_v2_1", "deepfloyd_if_xl")),),
        "tifa160": (Pair("sd_v1_5", "sd_v2_1", ("sd_v2_1", "sdxl_base")),),
    },
    "pqpp": {
        "genai_bench": (
            Pair("sd_v2_1", "dalle3", ("glide", "sdxl_base")),
            Pair("sdxl_base", "dalle3", ("glide", "sdxl_base")),
            Pair("sdxl_base", "midjourney_v6", ("glide", "sdxl_base")),
        ),
        "agiqa3k": (Pair("sd_v1_5", "midjourney_v5", ("glide", "sdxl_base")),),
        "geneval_human": (Pair("sd_v2_1", "deepfloyd_if_xl", ("glide", "sdxl_base")),),
        "tifa160": (Pair("sd_v1_5", "sd_v2_1", ("glide", "sdxl_base")),),
    },
}


SETTINGS = tuple(product(FEATURE_WEIGHTS, GAMMAS, FIRMNESS))
READS = tuple(dict.fromkeys([*JUDGED, *(other for judged in JUDGED.values() for other in judged)]))


def study(folder: Path, settings: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    sets = _read(folder)
    found = []
    for weight, gamma, firmness in tqdm(settings, desc="setting"):
        parts = [_judged(sets, learned, Hyperparameters(weight, gamma, SHARES[-1], firmness)) for learned in JUDGED]
        for share in SHARES:
            by_set = {learned: said[share] for learned, said in zip(JUDGED, parts, strict=True)}
            chosen = Hyperparameters(weight, gamma, share, firmness)
            found.append({**asdict(chosen), "criterion": _criterion(sets, by_set), "learned from": by_set})
    found.sort(key=lambda row: -row["criterion"])
    return {"prompts": {name: len(table.prompts) for name, (table, _) in sets.items()}, "settings": found}


def _read(folder: Path) -> dict[str, tuple[RatingsTable, Prompts]]:
    embedder, heads, sets = MiniLMEmbedder(), load_skills(), {}
    for name in READS:
        assert SETS[name].may == "train"
        table = tabulate(ratings([row for row in rows_of(folder, name) if row.part != "test"]), SETS[name].scale)
        sets[name] = table, prompts_of(table.prompts, embedder.embed(table.prompts), heads)
    return sets


def _judged(
    sets: dict[str, tuple[RatingsTable, Prompts]], learned: str, choice: Hyperparameters
) -> dict[float, dict[str, dict[str, dict[str, float]]]]:
    """By share of the kernel, judged set and pair: Pearson of the gain, and APGR."""
    table, prompts = sets[learned]
    fitted = fit_mixture(prompts, table, choice, 0, LANDMARKS[learned], with_grams=True)
    report: dict[float, dict[str, dict[str, dict[str, float]]]] = {share: {} for share in SHARES}
    for name, pairs in JUDGED[learned].items():
        other, asked = sets[name]
        kernel = replace(fitted, grams=None).predict(asked)
        grams = replace(fitted, share=0.0).predict(asked)
        for share, pair in product(SHARES, pairs):
            raw = share * kernel + (1 - share) * grams
            cheap, strong = (raw[:, table.columns.index(column)] for column in pair.stand_ins)
            gain = other.scores[:, other.columns.index(pair.strong)] - other.scores[:, other.columns.index(pair.cheap)]
            rated = np.isfinite(gain)
            said, gain = (strong - cheap)[rated], gain[rated]
            figures = {"pearson": pearson(said, gain), "apgr": apgr(curve(said, gain, np.zeros(len(gain), np.int64)))}
            report[share].setdefault(name, {})[f"{pair.cheap} -> {pair.strong}"] = figures
    return report


def _criterion(
    sets: dict[str, tuple[RatingsTable, Prompts]], by_set: dict[str, dict[str, dict[str, dict[str, float]]]]
) -> float:
    scores = []
    for judged in by_set.values():
        means = [np.mean([figures["pearson"] for figures in pairs.values()]) for pairs in judged.values()]
        scores.append(np.average(means, weights=[len(sets[name][0].prompts) for name in judged]))
    return float(np.mean(scores))


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    chosen = made.parse_args(argv)
    with tables(made, chosen, READS) as folder, results(chosen, HERE, is_full(made, chosen)) as out:
        report = study(folder, SETTINGS[:1] if chosen.quick else SETTINGS)
        (out / "transfer.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for row in report["settings"]:
        print({key: round(value, 4) for key, value in row.items() if isinstance(value, float)})


if __name__ == "__main__":
    main()
