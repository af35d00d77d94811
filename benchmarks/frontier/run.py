"""What routing buys on the embedded family: exact marks against CPU-seconds, every strategy beside its baselines.

    python -m benchmarks.frontier.run     # reads benchmarks/embedded_outcomes, writes frontier.json; --quick: of a few
    python -m benchmarks.frontier.plot    # draws frontier.svg

Nothing is generated here: a strategy is replayed on the stored outcomes of `outcomes_test.csv` (each recipe with four
seeds on each prompt), and pays for every picture and every look of the verifier at the prices of `seconds.json`. What
is learned (chances by the embedded router artefact, what a verdict is worth, how strongly failures repeat) comes from
`outcomes_train.csv`, other prompts. Intervals are 95 %, from a bootstrap over prompts.

A curve is the upper hull of its operating points: what lies between two of them is had by mixing them at random. So is
`random mixing`, the hull of always taking one recipe: the line that a router has to beat at the same cost.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import SCORER, shipped
from benchmarks.embedded_outcomes.train_router import ratings
from benchmarks.embedded_outcomes.train_router import read as read_marks
from deployments.settings import ROOT
from router.bootstrap.dial import hull
from router.learning.training import train as train_artifact
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features
from router.quality.predictor import QualityPredictor
from router.registry.artifact import Artifact, load_artifact
from router.types import Fuse, Generate, Prices, PromptView, Resources
from router.verification.score_calibration import fit_score_model, fit_strength
from router.verification.value_of_information import Option, ScoreModel, weigh

HERE = Path(__file__).resolve().parent
OUTCOMES = HERE.parent / "embedded_outcomes"
Array = NDArray[np.float64]
PRICES = np.geomspace(0.005, 20, 28)
"""How much probability of a right picture one CPU-second is worth: the dial of every learned strategy."""
RESAMPLES = 1000
DISTILLED = "sdxl-turbo"
"""So cheap for its marks that it is the reference of one comparison and left out as reference of the other."""


@dataclass(frozen=True)
class Outcomes:
    """exact, score: (prompts, recipes, seeds); seconds: (recipes,) of a picture; check_s: of a look of the verifier."""

    prompts: tuple[str, ...]
    tiers: tuple[str, ...]
    recipes: tuple[str, ...]
    exact: Array
    score: Array
    seconds: Array
    check_s: float

    def where(self, rows: NDArray[np.bool_]) -> Outcomes:
        """Some of the prompts."""
        kept = np.flatnonzero(rows)
        prompts, tiers = tuple(self.prompts[k] for k in kept), tuple(self.tiers[k] for k in kept)
        return replace(self, prompts=prompts, tiers=tiers, exact=self.exact[kept], score=self.score[kept])

    def at(self, recipe: str) -> int:
        """The column of a recipe."""
        return self.recipes.index(recipe)


@dataclass(frozen=True)
class Point:
    """One strategy at one setting of its dial: mean exact mark and CPU-seconds of each prompt, (prompts,) each."""

    curve: str
    setting: str
    exact: Array
    cost: Array


def read(split: str, recipes: Sequence[str]) -> Outcomes:
    """The stored outcomes of a split, prompts with every recipe and seed only."""
    rows: dict[str, dict[tuple[str, int], tuple[float, float]]] = defaultdict(dict)
    tiers: dict[str, str] = {}
    with (OUTCOMES / f"outcomes_{split}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["recipe"] in recipes:
                cell = float(row["exact"]), float(row["score"])
                rows[row["prompt"]][row["recipe"], int(row["seed"])] = cell
                tiers[row["prompt"]] = row["tier"]
    seeds = 1 + max(seed for cells in rows.values() for _, seed in cells)
    whole = [prompt for prompt, cells in rows.items() if len(cells) == len(recipes) * seeds]
    cube = np.array([[[rows[p][r, s] for s in range(seeds)] for r in recipes] for p in whole])
    prices = json.loads((OUTCOMES / "seconds.json").read_text(encoding="utf-8"))
    seconds = np.array([prices[recipe]["median"] for recipe in recipes])
    order = tuple(tiers[p] for p in whole)
    return Outcomes(tuple(whole), order, tuple(recipes), cube[..., 0], cube[..., 1], seconds, prices[SCORER]["median"])


def measured(recipes: Collection[str]) -> list[str]:
    """Those of the recipes that have outcomes in both splits and a price; the others are named."""
    there = set(json.loads((OUTCOMES / "seconds.json").read_text(encoding="utf-8")))
    for split in ("train", "test"):
        with (OUTCOMES / f"outcomes_{split}.csv").open(newline="", encoding="utf-8") as file:
            there &= {row["recipe"] for row in csv.DictReader(file)}
    if missing := [name for name in recipes if name not in there]:
        print(f"without {', '.join(missing)}: no outcomes yet (benchmarks.embedded_outcomes.run)")
    return [name for name in recipes if name in there]


def chances(outcomes: Outcomes, artifact: Artifact) -> Array:
    """An artefact's probability that one picture is right, (prompts, recipes)."""
    catalogue, recipes = shipped()
    predictor = QualityPredictor(artifact, catalogue)
    kept = {name: recipes[name] for name in outcomes.recipes}
    rows = []
    for prompt, embedding in zip(outcomes.prompts, MiniLMEmbedder().embed(list(outcomes.prompts)), strict=True):
        features = lexical_features(prompt)
        found = predictor.predict(PromptView(prompt, features, predictor.signals(features, embedding), embedding), kept)
        rows.append([found[name].mean for name in outcomes.recipes])
    return np.array(rows)


# ------------------------------------------------------------------------------------------------------- strategies


def always(outcomes: Outcomes) -> list[Point]:
    """Every recipe for every prompt."""
    n = len(outcomes.prompts)
    return [
        Point("always", name, outcomes.exact[:, k].mean(1), np.full(n, outcomes.seconds[k]))
        for k, name in enumerate(outcomes.recipes)
    ]


def chosen(outcomes: Outcomes, curve: str, value: Array, columns: Sequence[int], prices: Array = PRICES) -> list[Point]:
    """One picture by the recipe of the highest `value` (prompts, recipes) minus price times seconds."""
    points, every = [], np.arange(len(outcomes.prompts))
    for price in prices:
        pick = np.array(columns)[(value[:, columns] - price * outcomes.seconds[columns]).argmax(1)]
        points.append(Point(curve, f"{price:.3g}/s", outcomes.exact[every, pick].mean(1), outcomes.seconds[pick]))
    return points


def by_length(outcomes: Outcomes, cheap: int, strong: int) -> list[Point]:
    """The expensive model for prompts of more words than a bound."""
    words = np.array([len(prompt.split()) for prompt in outcomes.prompts])
    points, every = [], np.arange(len(words))
    for bound in range(words.min() - 1, words.max() + 1):
        pick = np.where(words > bound, strong, cheap)
        seconds = outcomes.seconds[pick]
        points.append(Point("prompt length", f"over {bound} words", outcomes.exact[every, pick].mean(1), seconds))
    return points


def best_of_n(outcomes: Outcomes, column: int) -> list[Point]:
    """n pictures by one recipe, the verifier keeps one; averaged over which seeds come first."""
    seeds = outcomes.exact.shape[2]
    points = []
    for n in range(2, seeds + 1):
        marks = []
        for start in range(seeds):
            drawn = [(start + k) % seeds for k in range(n)]
            best = outcomes.score[:, column][:, drawn].argmax(1)
            marks.append(outcomes.exact[np.arange(len(best)), column, np.array(drawn)[best]])
        cost = n * (outcomes.seconds[column] + outcomes.check_s)
        name = f"{outcomes.recipes[column]} x{n}"
        points.append(Point("best of n", name, np.mean(marks, 0), np.full(len(outcomes.prompts), cost)))
    return points


def cascade(outcomes: Outcomes, verdicts: Array, cheap: int, strong: int) -> list[Point]:
    """The cheap model first; the expensive one, once, when the verifier's verdict is below a bound."""
    seeds = outcomes.exact.shape[2]
    points = []
    for bound in np.linspace(0, 1, 21):
        again = verdicts[:, cheap] < bound
        better = verdicts[:, strong] > verdicts[:, cheap]
        exact = np.where(again & better, outcomes.exact[:, strong], outcomes.exact[:, cheap])
        cost = outcomes.seconds[cheap] + outcomes.check_s + again * (outcomes.seconds[strong] + outcomes.check_s)
        setting = f"{outcomes.recipes[strong]} below {bound:.2f}"
        points.append(Point("cascade", setting, exact.mean(1), cost.reshape(-1, seeds).mean(1)))
    return points


def next_attempt(
    options: Sequence[Option],
    verdicts: Mapping[str, Sequence[float]],
    score_model: ScoreModel,
    quality_per_s: float,
    most: int = 4,
) -> str | None:
    """The recipe to try next, or None to keep the best picture so far: `weigh` where only seconds have a price."""
    found = weigh(options, verdicts, score_model, Prices(quality_per_s), most)
    return found.recipe if found is not None and found.worth_it else None


def search(
    outcomes: Outcomes,
    curve: str,
    chance: Array,
    score_model: ScoreModel,
    strength: float,
    columns: Sequence[int],
    prices: Array = PRICES,
) -> list[Point]:
    """`router.verification`: try, check, and try again while the expected gain is worth the seconds."""
    prompts, _, seeds = outcomes.exact.shape
    points = []
    for price in prices:
        exact, cost = np.zeros(prompts), np.zeros(prompts)
        for i in range(prompts):
            options = [
                Option(str(c), float(chance[i, c]), strength, Resources(float(outcomes.seconds[c] + outcomes.check_s)))
                for c in columns
            ]
            for start in range(seeds):
                mark, spent = _one_search(options, outcomes.exact[i], outcomes.score[i], score_model, price, start)
                exact[i] += mark / seeds
                cost[i] += spent / seeds
        points.append(Point(curve, f"{price:.3g}/s", exact, cost))
    return points


def _one_search(
    options: Sequence[Option], exact: Array, score: Array, score_model: ScoreModel, price: float, start: int
) -> tuple[float, float]:
    """(mark, seconds) of one request; pictures are those of the stored seeds, from `start` on."""
    seeds = exact.shape[1]
    named = {option.recipe: option for option in options}
    made: dict[str, list[float]] = {}
    best, mark, spent = -1.0, 0.0, 0.0
    while name := next_attempt(options, made, score_model, price, most=seeds):
        before = made.setdefault(name, [])
        seed = (start + len(before)) % seeds
        verdict = score_model.verdict(named[name].after(before), float(score[int(name), seed]))
        before.append(verdict)
        spent += named[name].takes.latency_s
        if verdict > best:
            best, mark = verdict, float(exact[int(name), seed])
    return mark, spent


# ---------------------------------------------------------------------------------------------- learned from training


def learn_judge(train: Outcomes) -> tuple[ScoreModel, float]:
    """What the verifier's score is worth beside a predicted chance, and how many pictures such a chance is worth.

    The chances are of a router that was trained on two thirds of the prompts, for the other third.
    """
    kept = np.random.default_rng(0).random(len(train.prompts)) < 2 / 3
    seen = {prompt for prompt, keep in zip(train.prompts, kept, strict=True) if keep}
    marks = {cell: found for cell, found in read_marks(OUTCOMES / "outcomes_train.csv").items() if cell[0] in seen}
    with tempfile.TemporaryDirectory() as folder:
        artifact, _ = train_artifact(ratings(marks), Path(folder) / "part", "part", "two thirds", "Apache-2.0")
    rest = train.where(~kept)
    chance = chances(rest, artifact)
    before = np.broadcast_to(chance[..., None], rest.score.shape)
    right = rest.exact == 1
    score_model = fit_score_model(before.ravel(), rest.score.ravel(), right.ravel())
    # Two pictures of each prompt and recipe stand next to each other.
    pairs = [(k, k + 1) for k in range(0, right.size, right.shape[2])]
    return score_model, fit_strength(before.ravel(), right.ravel(), pairs)


# -------------------------------------------------------------------------------------------------------- comparison


def compare(points: Sequence[Point], best: str, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every curve against one model (`best`) and against random mixing, with bootstrap intervals."""
    rng = np.random.default_rng(0)
    n = len(points[0].exact)
    weights = np.concatenate(([np.full(n, 1 / n)], rng.multinomial(n, np.full(n, 1 / n), resamples) / n))
    exact = np.array([p.exact for p in points]) @ weights.T
    cost = np.array([p.cost for p in points]) @ weights.T
    rows = {
        name: [k for k, p in enumerate(points) if p.curve == name] for name in dict.fromkeys(p.curve for p in points)
    }
    single = next(k for k, p in enumerate(points) if p.curve == "always" and p.setting == best)
    report: dict[str, Any] = {}
    for name, members in rows.items():
        draws: dict[str, list[float]] = defaultdict(list)
        for b in range(len(weights)):
            x, y = hull(cost[members, b], exact[members, b])
            mix_x, mix_y = hull(cost[rows["always"], b], exact[rows["always"], b])
            at, mark = cost[single, b], exact[single, b]
            # Below its cheapest point a curve has no value.
            there = np.interp(at, x, y, left=np.nan)
            half, most = np.interp(at / 2, x, y, left=np.nan), np.interp(0.7 * at, x, y, left=np.nan)
            draws["points over the model at its cost"].append(100 * (there - mark))
            draws["points over random mixing at that cost"].append(100 * (there - np.interp(at, mix_x, mix_y)))
            draws["points over random mixing at half of it"].append(100 * (half - np.interp(at / 2, mix_x, mix_y)))
            mixed = np.interp(0.7 * at, mix_x, mix_y)
            draws["points over random mixing at seven tenths of it"].append(100 * (most - mixed))
            near = float(np.interp(mark - 0.03, y, x) / at) if y[-1] >= mark - 0.03 else np.nan
            draws["share of its cost for three points less"].append(near)
            reaches = y[-1] >= mark
            draws["share of its cost for its quality"].append(float(np.interp(mark, y, x) / at) if reaches else np.nan)
        report[name] = {key: _summary(values) for key, values in draws.items()}
    return report


def _summary(values: list[float]) -> dict[str, float | None]:
    drawn = np.array(values[1:])
    known = drawn[np.isfinite(drawn)]
    if not np.isfinite(values[0]) or len(known) < 0.5 * len(drawn):
        return {"value": None, "low": None, "high": None}
    low, high = np.percentile(known, [2.5, 97.5])
    return {"value": round(values[0], 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def tiers_of(outcomes: Outcomes) -> dict[str, dict[str, float]]:
    """Mean exact mark of each recipe by tier, for the reader."""
    order = np.array(outcomes.tiers)
    return {
        name: {tier: round(float(outcomes.exact[order == tier, k].mean()), 4) for tier in dict.fromkeys(outcomes.tiers)}
        for k, name in enumerate(outcomes.recipes)
    }


def all_points(
    test: Outcomes, train: Outcomes, bases: Sequence[str], prices: Array = PRICES
) -> tuple[list[Point], dict[str, Any]]:
    """Every strategy on the test prompts, and what was learned for them."""
    predicted = chances(test, load_artifact(ROOT / "router" / "artifacts" / "embedded"))
    score_model, strength = learn_judge(train)
    constant = np.broadcast_to(train.exact.mean((0, 2)), predicted.shape)
    verdicts = np.vectorize(score_model.verdict)(constant[..., None], test.score)
    columns = list(range(len(test.recipes)))
    marks = test.exact.mean((0, 2))
    best = max(map(test.at, bases), key=lambda k: (marks[k], -test.seconds[k]))
    undistilled = max((k for k in map(test.at, bases) if test.recipes[k] != DISTILLED), key=lambda k: marks[k])
    cheap = min(map(test.at, bases), key=lambda k: test.seconds[k])
    whole = max(columns, key=lambda k: (marks[k], -test.seconds[k]))
    points = [
        *always(test),
        *by_length(test, cheap, best),
        *chosen(test, "router", predicted, columns, prices),
        *chosen(test, "oracle", test.exact.mean(2), columns, prices),
        *(point for column in columns for point in best_of_n(test, column)),
        *(point for strong in dict.fromkeys((best, whole)) for point in cascade(test, verdicts, cheap, strong)),
        *search(test, "verify and escalate, no router", constant, score_model, strength, columns, prices),
        *search(test, "router + verify and escalate", predicted, score_model, strength, columns, prices),
    ]
    learned = {
        "best single model": test.recipes[best],
        "best model that is not distilled": test.recipes[undistilled],
        "best recipe": test.recipes[whole],
        "cheapest model": test.recipes[cheap],
        "judge": asdict(score_model),
        "strength": strength,
    }
    return points, learned


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    asked = made.parse_args(argv)
    with results(asked, HERE, is_full(made, asked)) as out:
        study(out, *((40, PRICES[::9], 20) if asked.quick else (None, PRICES, RESAMPLES)))


def study(out: Path, prompts: int | None, prices: Array, resamples: int) -> None:
    """Every strategy, compared; prompts: only so many of each split."""
    _, recipes = shipped()
    # A fusion is several pictures; the strategies here make their own.
    kept = [name for name in measured(recipes) if not isinstance(recipes[name], Fuse)]
    bases = [name for name in kept if isinstance(recipes[name], Generate)]
    test, train = read("test", kept), read("train", kept)
    if prompts is not None:
        test = test.where(np.arange(len(test.prompts)) < prompts)
        train = train.where(np.arange(len(train.prompts)) < 4 * prompts)
    points, learned = all_points(test, train, bases, prices)
    references = dict.fromkeys(
        learned[kind] for kind in ("best single model", "best model that is not distilled", "best recipe")
    )
    report = {name: compare(points, name, resamples) for name in references}
    found: Mapping[str, Any] = {
        "prompts": len(test.prompts),
        "seeds": test.exact.shape[2],
        "training prompts": len(train.prompts),
        "seconds": dict(zip(test.recipes, test.seconds.round(4).tolist(), strict=True)) | {SCORER: test.check_s},
        "tiers": tiers_of(test),
        "learned": learned,
        "points": [
            {"curve": p.curve, "setting": p.setting, "exact": round(float(p.exact.mean()), 5)}
            | {"cpu_s": round(float(p.cost.mean()), 5)}
            for p in points
        ],
        "comparison": report,
    }
    (out / "frontier.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for reference, curves in report.items():
        for name, figures in curves.items():
            print(f"{name}, against {reference}")
            for key, one in figures.items():
                print(f"    {key}: {one['value']} [{one['low']}, {one['high']}]")


if __name__ == "__main__":
    main()
