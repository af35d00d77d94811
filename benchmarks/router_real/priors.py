"""Before any rating of one's own: what orders prompts best on sets that were left out; and how ratings then move it.

    python -m benchmarks.router_real.priors FOLDER     # writes priors.json and priors.svg
    python -m benchmarks.router_real.priors --quick

FOLDER holds the rated sets (benchmarks/router_evaluation/sets.py). Two questions:

left out   Each candidate learns from all sets that may be learned from but one, and orders the prompts of that one
           (`PAIRS` of benchmarks/leaderboard/tasks.py). Figures are APGR and lift (router/bench/figures.py: area over
           random mixing in standard deviations of the gain, which does not divide by the gap); each set counts as one,
           being the mean of its pairs. Intervals are 95 %, from resampling groups of near-duplicates within the sets,
           paired with the hand rule. Set before the first run: a candidate is shipped if its lift over the hand rule is
           above zero with its interval. EvalMi, which may not be learned from, only judges, beside.
own        Of GenAI-Bench (three models) and PQPP (two), a third of the groups judge, and so many ratings of the others
           are learned from, drawn at random: as `triptych router train` does, with the rule as prior and without.
           Intervals over the draws.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from benchmarks.leaderboard.tasks import PAIRS, task_of
from benchmarks.router_evaluation.sets import add_folder, tables
from router.bench import Carry, HandRule, Length, Nearest, Ridge, Task, difference, judge, left_out, mean_of
from router.bench.baselines import EMBEDDER, MOST, features_of, inputs_of, pooled_gains
from router.learning.intervals import resampled_mean
from router.learning.ratings import Rating
from router.learning.training import train
from router.prompts.lexical import lexical_features
from router.prompts.scaling import Scaler
from router.quality.kernels import rbf
from router.quality.predictor import QualityPredictor
from router.quality.rule import hand_rule
from router.registry.artifact import Artifact

HERE = Path(__file__).resolve().parent
Array = NDArray[np.float64]
GAMMA, WEIGHT, OWN, NOISE = 0.4, 1.0, 1.0, 4.0
RULE = (1.0, 1.0, 1.0, 1.0, -1.5)
FREELY = 0.25  # deviation of a part's weight around the rule's, in standard deviations of the gain
RATINGS = (60, 100, 200, 500, 1000, 2000)
OWN_MODELS = {"genai_bench": ("sd_v2_1", "sdxl_base", "dalle3"), "pqpp": ("glide", "sdxl_base")}
JUDGED = 700  # groups, at most


def parts_of(prompts: Sequence[str]) -> Array:
    """What the rule sums up, (n, 5), and the logarithm of the words, (n,), as one array."""
    rows = []
    for text in prompts:
        f = lexical_features(text)
        rows.append([
            min(1.0, f["quoted_spans"] + f["writing_words"]), min(2.0, f["numbers"]),
            min(1.0, f["spatial_words"] + f["spatial_phrases"]), float(f["distinct_colours"] >= 2),
            min(1.0, f["negations"]), float(np.log1p(f["words"])),
        ])  # fmt: skip
    return np.array(rows)


@dataclass(frozen=True)
class Weighed:
    """The rule's parts and the number of words, each with the weight that the sets say (random effects by DerSimonian
    and Laird), drawn towards the rule's own as far as they disagree."""

    weights: Array

    @classmethod
    def carry(cls, tasks: Sequence[Task], pair: tuple[str, str]) -> Self:
        found = []
        for task in tasks:
            texts, gains = pooled_gains([task])
            x = parts_of(texts)
            x -= x.mean(axis=0)
            inverse = np.linalg.inv(x.T @ x + 1e-3 * np.eye(x.shape[1]))
            mean = inverse @ x.T @ gains
            error = np.diag(inverse) * float((gains - x @ mean).var())
            found.append((mean, np.where(x.std(axis=0) < 1e-6, 1e6, error)))
        rule = 0.12 * np.array([*RULE, 0.0])
        means, errors = (np.stack([one[k] for one in found]) for k in (0, 1))
        firm = 1 / (errors + between(means, errors))
        return cls(((firm * means).sum(axis=0) + rule / FREELY**2) / (firm.sum(axis=0) + 1 / FREELY**2))

    def score(self, prompts: Sequence[str]) -> Array:
        return two(parts_of(prompts) @ self.weights)


def between(means: Array, errors: Array) -> Array:
    """The variance (d,) between sets of estimates (sets, d) with these error variances."""
    w = 1 / errors
    mean = (w * means).sum(axis=0) / w.sum(axis=0)
    excess = (w * (means - mean) ** 2).sum(axis=0) - (len(means) - 1)
    room = w.sum(axis=0) - (w**2).sum(axis=0) / w.sum(axis=0)
    return np.where(room > 1e-9, np.maximum(0.0, excess) / np.maximum(room, 1e-9), 0.0)


@dataclass(frozen=True)
class Kernel:
    """A Gaussian process over all sets, with a part that they share, which is what carries over, and one of each set's
    own. Of the gain, or of how hard a prompt is for all models, which then weighs on the cheap one."""

    support: Array
    dual: Array
    scaler: Scaler

    @classmethod
    def fit(cls, texts: Sequence[str], targets: Array, of_set: NDArray[np.int64]) -> Self:
        scaler = Scaler.fit(features_of(texts), WEIGHT)
        inputs = inputs_of(texts, scaler)
        near = np.asarray(rbf(inputs, inputs, GAMMA), np.float64)
        covariance = near * (1 + OWN * (of_set[:, None] == of_set[None])) + NOISE * np.eye(len(near))
        return cls(inputs, np.linalg.solve(covariance, targets), scaler)

    @classmethod
    def gains(cls, tasks: Sequence[Task], pair: tuple[str, str]) -> Kernel:
        return _fitted_once("gains", tasks, lambda task: pooled_gains([task]))

    @classmethod
    def difficulty(cls, tasks: Sequence[Task], pair: tuple[str, str]) -> Kernel:
        return _fitted_once("difficulty", tasks, difficulty_of)

    def score(self, prompts: Sequence[str]) -> Array:
        near = rbf(inputs_of(prompts, self.scaler), self.support, GAMMA)
        return two(near @ self.dual)


_FITTED: dict[tuple[str, ...], Kernel] = {}


def _fitted_once(what: str, tasks: Sequence[Task], targets: Callable[[Task], tuple[list[str], Array]]) -> Kernel:
    """The same for all pairs of a left-out set."""
    key = what, *(f"{task.name} {len(task.table.prompts)}" for task in tasks)
    if key not in _FITTED:
        _FITTED[key] = Kernel.fit(*_joined([targets(task) for task in tasks]))
    return _FITTED[key]


@dataclass(frozen=True)
class WithRule:
    """Pooled difficulty and the hand rule, each in units of its spread on the prompts that are asked about."""

    kernel: Kernel

    @classmethod
    def carry(cls, tasks: Sequence[Task], pair: tuple[str, str]) -> Self:
        return cls(Kernel.difficulty(tasks, pair))

    def score(self, prompts: Sequence[str]) -> Array:
        both = self.kernel.score(prompts)[:, 1], np.array([hand_rule(text) for text in prompts])
        return two(np.sum([one / max(float(one.std()), 1e-9) for one in both], axis=0))


CANDIDATES: dict[str, Carry] = {
    "hand rule": HandRule.carry,
    "prompt length": Length.carry,
    "rule's parts, weighed by the sets": Weighed.carry,
    "kernel: pooled gains": Kernel.gains,
    "kernel: pooled difficulty": Kernel.difficulty,
    "pooled difficulty and hand rule": WithRule.carry,
    "ridge on pooled gains": Ridge.carry,
    "nearest neighbours, pooled gains": Nearest.carry,
}


def two(gain: Array) -> Array:
    """Scores of a cheap recipe and a strong one from their difference."""
    return np.stack([np.zeros(len(gain)), gain], axis=1)


def difficulty_of(task: Task) -> tuple[list[str], Array]:
    """Prompts and how far below their means all models are rated, in their standard deviations."""
    scores = task.table.scores
    unit = (scores - np.nanmean(scores, axis=0)) / np.maximum(np.nanstd(scores, axis=0), 1e-9)
    rows = np.sort(np.random.default_rng(0).permutation(len(unit))[:MOST])
    return [task.table.prompts[row] for row in rows], -np.nanmean(unit[rows], axis=1)


def _joined(some: Sequence[tuple[list[str], Array]]) -> tuple[list[str], Array, NDArray[np.int64]]:
    texts = [text for one, _ in some for text in one]
    return texts, np.concatenate([t for _, t in some]), np.repeat(np.arange(len(some)), [len(one) for one, _ in some])


def left_out_study(tasks: Sequence[Task]) -> dict[str, Any]:
    """Every candidate on every set, and its mean over those that may be learned from beside the hand rule's."""
    judged: dict[str, dict[str, Any]] = {}
    report: dict[str, Any] = {}
    for name, carry in tqdm(CANDIDATES.items(), desc="candidates", disable=None):
        judged[name] = {}
        for task in tasks:
            said = left_out(tasks, carry, task.name)
            judged[name][task.name] = mean_of([judge(task, pair, scores) for pair, scores in said.items()])
        mine, rule = judged[name], judged["hand rule"]
        learned = [task.name for task in tasks if task.learn]
        report[name] = {
            "sets": {k: {"apgr": one.apgr.rounded, "lift": one.lift.rounded} for k, one in mine.items()},
            "over the hand rule": {k: difference(mine[k], rule[k]).rounded for k in mine},
            "mean lift": mean_of([mine[k] for k in learned]).lift.rounded,
            "mean lift over the hand rule": difference(
                mean_of([mine[k] for k in learned]), mean_of([rule[k] for k in learned])
            ).rounded,
        }
    return report


def amounts(tasks: Sequence[Task]) -> dict[str, list[float]]:
    """By set: what a unit of the rule adds to the gain, in its standard deviations, and that figure's error."""
    found = {}
    for task in tasks:
        texts, gains = pooled_gains([task])
        rule = np.array([hand_rule(text) for text in texts])
        rule -= rule.mean()
        mass = max(float(rule @ rule), 1e-9)
        found[task.name] = [round(float(rule @ gains) / mass, 3), round(float(gains.std()) / mass**0.5, 3)]
    return found


def own_study(task: Task, sizes: Sequence[int], draws: int) -> dict[str, Any]:
    """APGR, mean over the pairs, by number of ratings: with the rule as prior, without, and the rule alone."""
    columns = [task.table.columns.index(name) for name in OWN_MODELS[task.name]]
    pairs = [pair for pair in task.pairs if set(pair) <= set(OWN_MODELS[task.name])]
    whole = np.isfinite(task.table.scores[:, columns]).all(axis=1)
    groups = np.array(task.table.groups)
    found: dict[str, dict[int, list[float]]] = {"prior and data": {}, "data alone": {}, "hand rule": {}}
    for draw in tqdm(range(draws), desc=task.name, disable=None):
        rng = np.random.default_rng(draw)
        names = rng.permutation(np.unique(groups[whole]))
        judging = names[: min(JUDGED, len(names) // 3)]
        asked = whole & np.isin(groups, judging)
        pool = rng.permutation(np.flatnonzero(whole & ~asked))
        part = replace(task, table=task.table.only(asked))

        def value(said: Array, part: Task = part) -> float:
            return mean_of([judge(part, pair, said, resamples=2) for pair in pairs]).apgr.value

        rule = HandRule.learn(part.table).score(part.table.prompts)
        found["hand rule"].setdefault(0, []).append(value(rule))
        for size in sizes:
            rows = pool[: size // len(columns)]
            if len(rows) * len(columns) < size - len(columns):
                continue
            ratings = [
                Rating(task.table.prompts[row], task.table.columns[k], float(task.table.scores[row, k]), groups[row])
                for row in rows
                for k in columns
            ]
            for name, said in _trained(ratings, part).items():
                found[name].setdefault(size, []).append(value(said))
    return {
        name: {
            str(size): {
                "apgr": round(float(np.mean(v)), 4),
                "apgr_95": np.round(resampled_mean(np.array(v)), 4).tolist(),
            }
            for size, v in by_size.items()
        }
        | _differences(by_size, found, name)
        for name, by_size in found.items()
    }


def _differences(
    by_size: Mapping[int, list[float]], found: Mapping[str, Mapping[int, list[float]]], name: str
) -> dict[str, Any]:
    if name != "prior and data":
        return {}
    report: dict[str, Any] = {}
    for other, of in (
        ("data alone", lambda size: found["data alone"][size]),
        ("hand rule", lambda _: found["hand rule"][0]),
    ):
        report[f"over {other}"] = {
            str(size): [round(float(np.mean(d)), 4), *np.round(resampled_mean(d), 4).tolist()]
            for size, values in by_size.items()
            for d in [np.array(values) - np.array(of(size))]
        }
    return report


def _trained(ratings: Sequence[Rating], part: Task) -> dict[str, Array]:
    """Predictions (n, columns of the task) with the rule as prior, and by the same artefact without it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="triptych-priors-") as folder:
        artifact, _ = train(ratings, Path(folder) / "one", "own", "", "", EMBEDDER, scale=None)
    config = {key: value for key, value in artifact.config.items() if key != "rule"}
    without: Artifact = replace(artifact, config=config)
    texts = part.table.prompts
    found = {}
    for name, one in (("prior and data", artifact), ("data alone", without)):
        predictor = QualityPredictor(one)
        said = np.zeros((len(texts), len(part.table.columns)))
        places = [part.table.columns.index(column) for column in predictor.columns]
        for row, (text, embedding) in enumerate(zip(texts, EMBEDDER.embed(texts), strict=True)):
            base = predictor.base_means(predictor.view(text, lexical_features(text), embedding))
            said[row, places] = base
        found[name] = said
    return found


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    add_folder(made)
    made.add_argument("--draws", type=int, default=6, help="of one's own ratings")
    chosen = made.parse_args(argv)
    with tables(made, chosen, tuple(PAIRS)) as folder, results(chosen, HERE, is_full(made, chosen)) as out:
        names = ("genai_bench", "drawbench", "evalmi50k") if chosen.quick else tuple(PAIRS)
        tasks = [task_of(folder, name) for name in names]
        sizes, draws = ((60,), 1) if chosen.quick else (RATINGS, chosen.draws)
        report = {
            "prompts": {task.name: len(task.table.prompts) for task in tasks},
            "what a unit of the rule adds": amounts(tasks),
            "left out": left_out_study(tasks),
            "own": {task.name: own_study(task, sizes, draws) for task in tasks if task.name in OWN_MODELS},
            "draws": draws,
        }
        (out / "priors.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        draw(report, out / "priors.svg")
    for name, one in report["left out"].items():
        print(f"{name}: mean lift {one['mean lift']}, over the hand rule {one['mean lift over the hand rule']}")
    for name, one in report["own"].items():
        print(name, json.dumps(one))


def draw(report: Mapping[str, Any], file: Path) -> None:
    """Two panels: lift over the hand rule on the left-out sets, and the curves of one's own ratings."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "triptych"  # same figures, same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(
        1, 1 + len(report["own"]), figsize=(5 + 4 * len(report["own"]), 3.9), layout="constrained"
    )
    rows = {k: v["mean lift over the hand rule"] for k, v in report["left out"].items() if k != "hand rule"}
    for y, (value, low, high) in enumerate(rows.values()):
        panels[0].errorbar([value], [y], xerr=[[value - low], [high - value]], fmt="o", color="#0b6e4f", markersize=4)
    panels[0].axvline(0, color="black", linewidth=0.8)
    panels[0].set_yticks(range(len(rows)), rows, fontsize=7)
    panels[0].set_title("left-out sets: mean lift over the hand rule", fontsize=9)
    styles = {"prior and data": ("#0b6e4f", "-"), "data alone": ("#c77b0a", "--")}
    for axes, (name, curves) in zip(panels[1:], report["own"].items(), strict=True):
        axes.axhline(curves["hand rule"]["0"]["apgr"], color="#888888", linestyle=":", label="hand rule, no rating")
        for what, (colour, line) in styles.items():
            points = {int(k): v for k, v in curves[what].items() if k.isdigit()}
            middle = [v["apgr"] for v in points.values()]
            bars = [
                [v["apgr"] - v["apgr_95"][0] for v in points.values()],
                [v["apgr_95"][1] - v["apgr"] for v in points.values()],
            ]
            axes.errorbar(
                list(points), middle, yerr=bars, color=colour, linestyle=line, marker="o", markersize=3, label=what
            )
        axes.set(xscale="log", xlabel="ratings of one's own", ylabel="APGR")
        axes.set_title(f"{name} ({report['draws']} draws)", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
