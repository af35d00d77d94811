"""From no ratings to a router: how many pictures it takes, chosen or swept, judged by the verifier. Nothing is drawn.

    python -m benchmarks.bootstrap.run       # replays stored outcomes; writes run.json
    python -m benchmarks.bootstrap.plot      # draws run.svg

Each picture that a bootstrap would draw is one of `outcomes_train.csv` (one picture of a prompt by each recipe) or
`outcomes_test.csv` (other prompts, four pictures of each by each recipe), and what is learned from it is
the verifier's score, or that score as 100 labels by a person with slips calibrate it; the checker's exact marks only
judge the outcome, but for the person, who has them with one slip in twenty. Each set is parted at random, again and
again: two thirds of its prompts are there to draw from, on the others the artefact routes. `full` is an artefact that
learned from the exact marks of every stored picture of the first part.

The gain is in points of exact marks: over mixing the recipes at random at the same seconds, on average from the
cheapest recipe's to the best one's (`mixing`); and, mixing included, over the best single model at its own seconds
(`model`). Intervals are 95 %, from resampling the parts, paired.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from router.bootstrap.beliefs import Beliefs, Seen, Variances, fit_variances
from router.bootstrap.choosing import Cell, swept, valuable
from router.bootstrap.dial import costs_between, height, hull, picks, prices_of
from router.bootstrap.labels import calibrate
from router.learning.intervals import resampled
from router.learning.ratings import Rating
from router.learning.training import train
from router.prompts.embedding import MiniLMEmbedder
from router.prompts.lexical import lexical_features
from router.prompts.scaling import Scaler
from router.prompts.skills import load_skills
from router.quality.kernel_ridge import Hyperparameters, prompts_of
from router.quality.predictor import QualityPredictor
from router.quality.ratings_table import Scale

HERE = Path(__file__).resolve().parent
OUTCOMES = HERE.parent / "embedded_outcomes"
Array = NDArray[np.float64]
SURVEYED, ROUND = 24, 32
SIZES = (300, 600, 1200, 2000)
LABELS, SLIP = 100, 0.05
CHOICE = Hyperparameters(0.6, 1.0, 0.8)
"""One for all, so that no artefact here has more to choose from than another, and hundreds are fitted in minutes."""
WORLDS = {"one picture of a prompt": "train", "four pictures of a prompt": "test"}
"""What is told of a stored set -> its name."""


@dataclass(frozen=True)
class World:
    """exact, score: (prompts, recipes, seeds);   seconds: (recipes,), a look included;   models: numbers of the recipes
    that are one model alone"""

    prompts: tuple[str, ...]
    recipes: tuple[str, ...]
    exact: Array = field(repr=False)
    score: Array = field(repr=False)
    seconds: Array
    embeddings: NDArray[np.float32] = field(repr=False)
    inputs: Array = field(repr=False)

    @property
    def models(self) -> list[int]:
        return [k for k, key in enumerate(self.recipes) if key.replace("-turbo", "").isalnum()]


class Known:
    """An embedder of the prompts of a world, which were embedded before."""

    def __init__(self, world: World) -> None:
        self._rows = {prompt: row for row, prompt in enumerate(world.prompts)}
        self._embeddings = world.embeddings

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d)"""
        return self._embeddings[[self._rows[prompt] for prompt in prompts]]


def read(split: str, prompts: int | None = None) -> World:
    """A stored set; of recipes that draw one picture. prompts: only so many."""
    cells: dict[str, dict[tuple[str, int], tuple[float, float]]] = defaultdict(dict)
    recipes: dict[str, None] = {}
    with (OUTCOMES / f"outcomes_{split}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if "(" not in row["recipe"]:
                recipes[row["recipe"]] = None
                cells[row["prompt"]][row["recipe"], int(row["seed"])] = float(row["exact"]), float(row["score"])
    seeds = 1 + max(seed for some in cells.values() for _, seed in some)
    whole = [prompt for prompt, some in cells.items() if len(some) == seeds * len(recipes)][:prompts]
    cube = np.array([[[cells[p][r, s] for s in range(seeds)] for r in recipes] for p in whole])
    taken = json.loads((OUTCOMES / "seconds.json").read_text(encoding="utf-8"))
    seconds = np.array([taken[recipe]["median"] + taken["alignment"]["median"] for recipe in recipes])
    embeddings = MiniLMEmbedder().embed(whole)
    analysed = prompts_of(whole, embeddings, load_skills())
    inputs = Scaler.fit(analysed.features, 0.6).join(analysed.embeddings, analysed.features)
    return World(tuple(whole), tuple(recipes), cube[..., 0], cube[..., 1], seconds, embeddings, np.asarray(inputs))


def chosen(world: World, pool: NDArray[np.int64], most: int, seed: int) -> list[Cell]:
    """The pictures that `--choose value` draws, in their order."""
    recipes, seeds = len(world.recipes), world.score.shape[2]
    made = swept(pool, recipes, seeds, seed)[: SURVEYED * recipes]
    variances: Variances | None = None
    fitted_on = 0
    while len(made) < most:
        prompt, recipe, number = cells(made)
        seen = Seen.of(prompt, recipe, world.score[prompt, recipe, number])
        if variances is None or len(made) > 1.5 * fitted_on:
            variances, fitted_on = fit_variances(world.inputs, seen), len(made)
        beliefs = Beliefs.of(world.inputs, seen, variances)
        new = valuable(beliefs, pool, world.seconds, set(made), ROUND, seeds, seed + len(made))
        if not new:
            break
        made += new
    return made[:most]


def cells(made: Sequence[Cell]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Prompts, recipes and seeds, (n,) each."""
    prompt, recipe, seed = np.array([(c.prompt, c.recipe, c.seed) for c in made]).T
    return prompt, recipe, seed


def labelled(world: World, made: Sequence[Cell], seed: int) -> Array:
    """The scores of pictures as `LABELS` labels calibrate them, by a rater who slips; what teaches most comes first."""
    rng = np.random.default_rng(seed)
    prompt, recipe, number = cells(made)
    score, right = world.score[prompt, recipe, number], world.exact[prompt, recipe, number] == 1
    keys = [world.recipes[k] for k in recipe]
    rows: list[int] = []
    said: list[bool] = []
    fitted = calibrate(score[:0], [], right[:0], world.recipes, SLIP)
    while len(rows) < min(LABELS, len(made)):
        worth = fitted.worth(score, keys)
        worth[rows] = -1.0
        for row in np.argsort(-worth)[:10].tolist():
            rows.append(row)
            said.append(bool(right[row]) ^ (rng.random() < SLIP))
        fitted = calibrate(score[rows], [keys[row] for row in rows], np.array(said), world.recipes, SLIP)
    return fitted.probability(score, keys)


def predicted(world: World, made: Sequence[Cell], values: Array, asked: NDArray[np.int64]) -> Array:
    """What an artefact that learned from these pictures expects of prompts, (prompts, recipes)."""
    embedder = Known(world)
    ratings = [
        Rating(world.prompts[c.prompt], world.recipes[c.recipe], float(v)) for c, v in zip(made, values, strict=True)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        artifact, _ = train(ratings, Path(scratch) / "one", "one", "", "", embedder, scale=Scale(), choice=CHOICE)
    predictor = QualityPredictor(artifact)
    found = []
    for row in asked:
        text = world.prompts[row]
        known = predictor.rated(predictor.view(text, lexical_features(text), world.embeddings[row]))
        found.append([known[key].mean for key in world.recipes])
    return np.array(found)


def gains(world: World, expected: Array, asked: NDArray[np.int64]) -> dict[str, float]:
    """Points of exact marks over random mixing, and over the best single model at its seconds."""
    exact, seconds = world.exact[asked].mean(axis=2), world.seconds
    taken = [picks(expected, seconds, float(price)) for price in prices_of(seconds, 33)]
    every = np.arange(len(asked))
    costs = np.array([seconds[pick].mean() for pick in taken])
    marks = np.array([exact[every, pick].mean() for pick in taken])
    order = np.argsort(costs, kind="stable")
    levels = exact.mean(axis=0)
    mix_x, mix_y = hull(seconds, levels)
    at = costs_between(float(seconds.min()), float(mix_x[-1]))
    above = np.interp(at, costs[order], marks[order]) - np.interp(at, mix_x, mix_y)
    best = max(world.models, key=lambda k: (levels[k], -seconds[k]))
    there = height(np.concatenate([costs, seconds]), np.concatenate([marks, levels]), seconds[[best]])[0]
    return {"mixing": 100 * float(above.mean()), "model": 100 * float(there - levels[best])}


def one_part(world: World, sizes: Sequence[int], seed: int) -> dict[str, dict[str, float]]:
    """Every way of choosing and judging, at every size, on one parting of the prompts."""
    order = np.random.default_rng(seed).permutation(len(world.prompts))
    asked, pool = order[: len(order) // 3], order[len(order) // 3 :]
    recipes, seeds = len(world.recipes), world.score.shape[2]
    everything = swept(pool, recipes, seeds, seed)
    found = {}
    for name, values in (("full, exact marks", world.exact), ("full, judged", world.score)):
        found[name] = gains(world, predicted(world, everything, values[cells(everything)], asked), asked)
    found["oracle"] = gains(world, world.exact[asked].mean(axis=2), asked)
    for how, made in (("uniform", everything), ("value", chosen(world, pool, max(sizes), seed))):
        for size in sizes:
            some = made[:size]
            plain = gains(world, predicted(world, some, world.score[cells(some)], asked), asked)
            told = gains(world, predicted(world, some, labelled(world, some, seed), asked), asked)
            spent = float(world.seconds[cells(some)[1]].sum())
            found[f"{how}, {size}"] = {**plain, "seconds": spent}
            found[f"{how}, {size}, labelled"] = {**told, "seconds": spent}
    return found


def summed_up(parts: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Means over the parts with intervals, and each mean's share of that of `full, exact marks`."""
    report: dict[str, Any] = {}
    for name in parts[0]:
        report[name] = {}
        for what in parts[0][name]:
            mine = np.array([part[name][what] for part in parts])
            report[name][what] = _figure(mine, None)
            if what != "seconds":
                full = np.array([part["full, exact marks"][what] for part in parts])
                report[name][f"{what}, share of full"] = _figure(mine, full)
    return report


def _figure(mine: Array, full: Array | None) -> dict[str, float]:
    def value(rows: NDArray[np.int64]) -> float:
        whole = 1.0 if full is None else float(full[rows].mean())
        return float(mine[rows].mean()) / whole if whole else float("nan")

    low, high = resampled(len(mine), value, resamples=2000)
    return {"value": round(value(np.arange(len(mine))), 4), "low": round(low, 4), "high": round(high, 4)}


def study(parts: int, sizes: Sequence[int], prompts: int | None) -> dict[str, Any]:
    """Both worlds."""
    found = {}
    for name, split in WORLDS.items():
        world = read(split, prompts)
        each = [one_part(world, sizes, seed) for seed in tqdm(range(parts), desc=name, disable=None)]
        found[name] = {"prompts": len(world.prompts), "parts": parts, "found": summed_up(each)}
    return found


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--parts", type=int, default=4, help="how often the prompts are parted")
    asked = made.parse_args(argv)
    with results(asked, HERE, is_full(made, asked)) as out:
        found = study(1, (240,), 60) if asked.quick else study(asked.parts, SIZES, None)
        (out / "run.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, world in found.items():
        for what, figures in world["found"].items():
            line = ", ".join(f"{k} {f['value']:.2f} [{f['low']:.2f}, {f['high']:.2f}]" for k, f in figures.items())
            print(f"{name}: {what}: {line}")


if __name__ == "__main__":
    main()
