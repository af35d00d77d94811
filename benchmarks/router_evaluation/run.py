"""Judges the router on public ratings of real models, and stores figures and plots.

    python -m benchmarks.router_evaluation.run FOLDER [STUDY ...]
    python -m benchmarks.router_evaluation.run --quick [STUDY ...]

FOLDER holds the rated sets (sets.py). Each study writes `results/<study>.json`; all say what they held out.

    genai     5 grouped folds on GenAI-Bench, ten seeds; with and without prompts about negation
    control   the same on labels that were shuffled, a dozen times: what the luck of a shuffle does around chance
    pqpp      trained on the official training and validation parts of PQPP, judged on its test part and on GenAI-Bench
    leave     GenAI-Bench, each skill left out of training as a whole
    transfer  trained on GenAI-Bench, judged on PQPP's test part
    anchors   a model of GenAI-Bench is added from a few anchors to an artefact of the others, by number of anchors
    ablation  what embedding, features, skills by rules or by heads, and n-grams add, on the folds of `genai`
    evalmi    the artefact `real` on EvalMi, which it was not trained on; and, as an upper line, folds of EvalMi itself
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from benchmarks.router_evaluation.ablation import ablation
from benchmarks.router_evaluation.sets import SETS, Row, add_folder, ratings, rows_of, tables
from router.learning.evaluation import apgr, curve, evaluate, evaluate_pair, pair_of, pearson, shuffled
from router.learning.new_model import add_model
from router.learning.pairs import predict_table
from router.learning.plots import plot_pairs
from router.learning.ratings import Rating, tabulate
from router.learning.training import HeldOutScores, predict_held_out, split_groups, train
from router.prompts.embedding import MiniLMEmbedder
from router.quality.kernel_ridge import Hyperparameters
from router.quality.predictor import QualityPredictor
from router.quality.ratings_table import RatingsTable, Scale
from router.registry.artifact import load_artifact

RESULTS = Path(__file__).resolve().parent / "results"
REAL = Path(__file__).resolve().parents[2] / "router" / "artifacts" / "real"
SEEDS = tuple(range(10))  # of the folds: over three of them the mean still moves by .004
SHUFFLES = 12
WANTED = Hyperparameters(feature_weight=1.0, gamma=0.7, share=0.8)  # by the first three seeds of the study genai
DRAWS = 4
GENAI_PAIRS = [("sd_v2_1", "dalle3"), ("sdxl_base", "dalle3"), ("sdxl_base", "midjourney_v6")]
EMBEDDER = MiniLMEmbedder(cache_size=50_000)


@dataclass(frozen=True)
class Size:
    """How much is done: seeds of the folds, shuffles of the labels, draws of anchors, numbers of anchors, skills left
    out, models added; and where plots go, of every study or of the first alone."""

    out: Path
    seeds: tuple[int, ...] = SEEDS
    shuffles: int = SHUFFLES
    draws: int = DRAWS
    anchors: tuple[int, ...] = (20, 40, 80, 160, 320)
    left_out: tuple[str, ...] = ("negation", "counting", "spatial relation")
    added: tuple[str, ...] = ("midjourney_v6", "dalle3")
    plots: bool = True


def genai(folder: Path, size: Size) -> dict[str, Any]:
    rows = rows_of(folder, "genai_bench")
    table = tabulate(ratings(rows), SETS["genai_bench"].scale)
    negated = {row.prompt for row in rows if "negation" in row.categories}
    plain = np.array([prompt not in negated for prompt in table.prompts])
    report: dict[str, Any] = {"seeds": {}}
    for seed in size.seeds:
        held_out, _ = predict_held_out(table, EMBEDDER, seed=seed)
        whole = evaluate(table, held_out, GENAI_PAIRS)
        without = {
            f"{a} -> {b}": evaluate_pair(pair_of(table.only(plain), _only(held_out, plain), a, b))
            for a, b in GENAI_PAIRS
        }
        report["seeds"][str(seed)] = {"all": whole, "without negation": {"pairs": without}}
    plot_pairs(report["seeds"]["0"]["all"], size.out, "GenAI-Bench")
    return report


def control(folder: Path, size: Size) -> dict[str, Any]:
    """APGR of each pair by shuffle: trained on shuffled labels, judged on the true ones. The hyperparameters are those
    that the true labels want, so that only the labels differ. The 95 % interval of the mean is Student's over shuffles,
    which are independent of one another."""
    from scipy.stats import t

    table = tabulate(ratings(rows_of(folder, "genai_bench")), SETS["genai_bench"].scale)
    found: dict[str, list[float]] = {f"{a} -> {b}": [] for a, b in GENAI_PAIRS}
    for seed in tqdm(range(size.shuffles), desc="shuffle"):
        blind, _ = predict_held_out(shuffled(table, seed), EMBEDDER, choice=WANTED)
        for a, b in GENAI_PAIRS:
            pair = pair_of(table, blind, a, b)
            found[f"{a} -> {b}"].append(apgr(curve(pair.gain, pair.strong - pair.cheap, pair.split)))
    report: dict[str, Any] = {}
    for name, values in found.items():
        mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
        half = float(t.ppf(0.975, size.shuffles - 1)) * spread / size.shuffles**0.5
        report[name] = {"apgr": values, "mean": mean, "std": spread, "mean_95": [mean - half, mean + half]}
    return report


def pqpp(folder: Path, size: Size) -> dict[str, Any]:
    """Also judged on GenAI-Bench, by the model that both rate: how well SDXL's score is foreseen in another set."""
    rows = rows_of(folder, "pqpp")
    learned, tested = ([row for row in rows if (row.part == "test") == test] for test in (False, True))
    table = tabulate(ratings(tested), SETS["pqpp"].scale)
    other = tabulate(ratings(rows_of(folder, "genai_bench")), SETS["genai_bench"].scale)
    held_out, foreign = _trained_elsewhere(ratings(learned), (table, other), SETS["pqpp"].scale)
    report = evaluate(table, held_out, [("glide", "sdxl_base")])
    if size.plots:
        plot_pairs(report, size.out, "PQPP test")
    return {"test": report, "on genai_bench": {"sdxl_base": evaluate(other, foreign, [])["columns"]["sdxl_base"]}}


def leave(folder: Path, size: Size) -> dict[str, Any]:
    rows = rows_of(folder, "genai_bench")
    report = {}
    for skill in tqdm(size.left_out, desc="skill left out"):
        out = [row for row in rows if skill in row.categories]
        groups = {row.group for row in out}
        learned = [row for row in rows if row.group not in groups]
        table = tabulate(ratings(out), SETS["genai_bench"].scale)
        (held_out,) = _trained_elsewhere(ratings(learned), (table,), SETS["genai_bench"].scale)
        report[skill] = evaluate(table, held_out, GENAI_PAIRS)
        if size.plots:
            plot_pairs(report[skill], size.out, f"GenAI-Bench, {skill} left out of training")
    return report


def transfer(folder: Path, size: Size) -> dict[str, Any]:
    """The other way round: GenAI-Bench to PQPP's test part."""
    tested = [row for row in rows_of(folder, "pqpp") if row.part == "test"]
    table = tabulate(ratings(tested), SETS["pqpp"].scale)
    learned = ratings(rows_of(folder, "genai_bench"))
    (held_out,) = _trained_elsewhere(learned, (table,), SETS["genai_bench"].scale)
    return {"on pqpp": {"sdxl_base": evaluate(table, held_out, [])["columns"]["sdxl_base"]}}


def anchors(folder: Path, size: Size) -> dict[str, Any]:
    """Pearson of the added column on a fifth of the prompts, never trained on: mean and least of the draws."""
    rows = rows_of(folder, "genai_bench")
    whole = tabulate(ratings(rows), SETS["genai_bench"].scale)
    out = split_groups(whole.groups, 5, seed=0) == 0
    tested = {prompt for prompt, held in zip(whole.prompts, out, strict=True) if held}
    learned = [rating for rating in ratings(rows) if rating.prompt not in tested]
    table = tabulate([rating for rating in ratings(rows) if rating.prompt in tested], SETS["genai_bench"].scale)
    report: dict[str, Any] = {}
    (whole_said,) = _trained_elsewhere(learned, (table,), SETS["genai_bench"].scale)
    for new in tqdm(size.added, desc="model added"):
        own = [rating for rating in learned if rating.recipe == new]
        report[new] = {}
        with tempfile.TemporaryDirectory() as scratch:
            others = [rating for rating in learned if rating.recipe != new]
            base, _ = train(others, Path(scratch) / "base", "base", "-", "-", EMBEDDER, scale=SETS["genai_bench"].scale)
            for count in (*size.anchors, len(own)):
                found = []
                for draw in range(1 if count == len(own) else size.draws):
                    picked = np.random.default_rng(draw).permutation(len(own))[:count]
                    added, _ = add_model(base, [own[k] for k in picked], Path(scratch) / "added", EMBEDDER)
                    said = predict_table(QualityPredictor(added), EMBEDDER, table)
                    column = table.columns.index(new)
                    known = np.isfinite(table.scores[:, column])
                    found.append(pearson(table.scores[known, column], said.mean[known, column]))
                report[new][str(count)] = {"draws": len(found), "mean": float(np.mean(found)), "least": min(found)}
        report[new]["trained with all"] = pearson(table.scores[known, column], whole_said.mean[known, column])
    return report


def inputs(folder: Path, size: Size) -> dict[str, Any]:
    table = tabulate(ratings(rows_of(folder, "genai_bench")), SETS["genai_bench"].scale)
    return ablation(table, EMBEDDER, WANTED, GENAI_PAIRS, size.seeds[:3])


def evalmi(folder: Path, size: Size) -> dict[str, Any]:
    names = {"sd_v2_1": "sd15", "sdxl_base": "sdxl", "flux_schnell": "flux"}
    rows = [_renamed(row, names) for row in rows_of(folder, "evalmi50k")]
    table = tabulate(ratings(rows), SETS["evalmi50k"].scale)
    pairs = [("sd15", "flux"), ("sdxl", "flux")]
    elsewhere = predict_table(QualityPredictor(load_artifact(REAL)), EMBEDDER, table)
    own, _ = predict_held_out(table, EMBEDDER)
    report = {"real": evaluate(table, elsewhere, pairs), "trained on EvalMi (not shipped)": evaluate(table, own, pairs)}
    if size.plots:
        plot_pairs(report["real"], size.out, "EvalMi by the artefact real")
    return report


STUDIES: dict[str, Callable[[Path, Size], dict[str, Any]]] = {
    "genai": genai, "control": control, "pqpp": pqpp, "leave": leave, "transfer": transfer,
    "anchors": anchors, "ablation": inputs, "evalmi": evalmi,
}  # fmt: skip


READS = {"pqpp": ("pqpp", "genai_bench"), "transfer": ("pqpp", "genai_bench"), "evalmi": ("evalmi50k",)}
"""The sets that a study reads; the others read GenAI-Bench."""


def _trained_elsewhere(learned: list[Rating], tables: Sequence[RatingsTable], scale: Scale) -> list[HeldOutScores]:
    """Predictions for `tables` by an artefact trained on other rows, as it would serve."""
    with tempfile.TemporaryDirectory() as folder:
        artifact, _ = train(learned, Path(folder) / "artefact", "elsewhere", "-", "-", EMBEDDER, scale=scale)
        return [predict_table(QualityPredictor(artifact), EMBEDDER, table) for table in tables]


def _only(held_out: HeldOutScores, rows: np.ndarray) -> HeldOutScores:
    return HeldOutScores(held_out.mean[rows], held_out.std[rows], held_out.split[rows])


def _renamed(row: Row, names: dict[str, str]) -> Row:
    return replace(row, scores={names[model]: score for model, score in row.scores.items()})


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    made.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)} (default: all)")
    chosen = made.parse_args(argv)
    if chosen.quick and str(chosen.folder) in STUDIES:  # --quick needs no folder, so the first word may be a study
        chosen.studies, chosen.folder = [str(chosen.folder), *chosen.studies], None
    if unknown := [name for name in chosen.studies if name not in STUDIES]:
        made.error(f"there is no study {', '.join(unknown)}; known: {', '.join(STUDIES)}")
    asked = chosen.studies or list(STUDIES)
    read = dict.fromkeys(name for study in asked for name in READS.get(study, ("genai_bench",)))
    with tables(made, chosen, read) as folder, results(chosen, RESULTS, is_full(made, chosen)) as out:
        size = Size(out)
        if chosen.quick:
            few = {"shuffles": 2, "draws": 1, "anchors": (20,), "left_out": ("counting",), "added": ("dalle3",)}
            size = replace(size, seeds=(0,), plots=False, **few)
        for name in asked:
            report = STUDIES[name](folder, size)
            (out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main()
