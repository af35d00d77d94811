"""How often a candidate that is no better is taken if one looks again and again, and how soon one that is better.

    python -m benchmarks.learning_from_use.sequential [--quick] [--out FOLDER]

A life is a log that grows: an application with five recipes explores at 2 %, and after every 2,000 rated decisions the
candidate is judged. It takes another recipe than the incumbent on half of the prompts; the model of the rewards praises
that recipe by .1 too much. Under the null it is worth the same, either on every prompt or on the average of prompts
where it is .05 better and .05 worse. Else it is .1 better on its half, so .05 on average. Ratings are 1 to 5 (0, .25 ..
1, binomial) or right and wrong (0, 1), both with the means .75 and more.

What a decision says of the difference is what `router.learning.off_policy.increments` says, and the interval that is
valid at every look lies above zero where `router.learning.intervals.log_capital` reaches log(40). Beside it stands the
fixed-sample interval of the same increments (mean - 1.96 standard errors), which is what percentiles of a bootstrap
come to; both with the floor of 20 effective decisions on the candidate's side. There are only some dozens of different
decisions (kind of prompt, recipe, rating), so a stretch of the log is drawn as the numbers of each. Writes
`sequential.json` and `sequential.svg`; with --quick, few lives.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from benchmarks.command import is_full, parser, results
from router.learning.intervals import TAIL, log_capital
from router.learning.off_policy import MIN_EVIDENCE, LoggedChoices, increments

HERE = Path(__file__).resolve().parent
Array = NDArray[np.float64]

KINDS, OPTIONS, RATE = 4, 5, 0.02
PRAISE = 0.1
BETWEEN = 2_000  # rated decisions between two looks
LIVES, LOOKS, LONG = 2_000, 30, 300
SEED = 20_261_126  # of the verdict; the script was written with others
STEPS = {"ratings": 4, "marks": 1}
WORLDS = {
    "null: equal on every prompt": (0.0, 0.0),
    "null: better and worse": (0.05, -0.05),
    "better": (0.1, 0.1),
}
"""Gain of the candidate's recipe on the two kinds of prompts where it decides otherwise."""


@dataclass(frozen=True)
class World:
    """What a decision may be, cells of (kind, option, rating) with their probability, and what each says."""

    probability: Array
    x: Array
    bound: float
    favoured: NDArray[np.bool_]

    @classmethod
    def of(cls, gains: tuple[float, float], steps: int) -> World:
        """steps: of the scale of rewards, 0 to 1."""
        taken = np.array([[1, 1, 0, 0], [0, 0, 0, 0]])  # by the candidate and the incumbent, for each kind
        means = np.full((KINDS, OPTIONS), 0.6)
        means[:, 0] = 0.75
        means[:2, 1] = 0.75 + np.array(gains)
        modelled = means.copy()
        modelled[:2, 1] += PRAISE
        after, before = (RATE / OPTIONS + (1 - RATE) * np.eye(OPTIONS)[options] for options in taken)
        kind, option, reward = (a.ravel() for a in np.indices((KINDS, OPTIONS, steps + 1)))
        probability = before[kind, option] / KINDS * binom.pmf(reward, steps, means[kind, option])
        logged = LoggedChoices(
            option, before[kind, option], reward / steps, np.clip(modelled, 0, 1)[kind], ["-"] * len(kind), before[kind]
        )
        said = increments(logged, before[kind], after[kind])
        truth = float((probability * said.x).sum())
        assert abs(truth - sum(gains) / KINDS * (1 - RATE)) < 1e-9, truth
        return cls(probability, said.x, said.bound, after[kind, option] > before[kind, option])


@dataclass(frozen=True)
class Looks:
    """Lives (l) by looks (k): whether each test would take the candidate."""

    fixed: NDArray[np.bool_]
    always: NDArray[np.bool_]


def looked_at(world: World, lives: int, looks: int, rng: np.random.Generator) -> Looks:
    """Lives of the world, each looked at `looks` times."""
    fixed, always = (np.empty((lives, looks), np.bool_) for _ in range(2))
    count = BETWEEN * np.arange(1.0, looks + 1)
    for life in range(lives):
        times = np.cumsum(rng.multinomial(BETWEEN, world.probability, size=looks), axis=0, dtype=np.float64)
        mean = times @ world.x / count
        error = np.sqrt(np.maximum(times @ world.x**2 / count - mean**2, 0.0) / count)
        enough = times @ world.favoured >= MIN_EVIDENCE  # their weights are equal, so that is their effective number
        fixed[life] = (mean - 1.96 * error > 0) & enough
        always[life] = (log_capital(world.x, world.bound, times=times) >= -np.log(TAIL)) & enough
    return Looks(fixed, always)


def share(hits: Any) -> dict[str, float]:
    """A share of lives (l,), each a hit or none, with its 95 % interval (Clopper and Pearson)."""
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci()
    return {"share": float(hits.mean()), "low": float(ends.low), "high": float(ends.high)}


def ever(hits: NDArray[np.bool_]) -> Array:
    """The share of lives in which the candidate was taken at one of the looks until then, (k,)."""
    return np.asarray(np.maximum.accumulate(hits, axis=1).mean(axis=0))


def decisions_until(reached: Array, part: float) -> int | None:
    """After how many decisions that part of the lives has been reached; None if it never was."""
    found = np.flatnonzero(reached >= part)
    return int((found[0] + 1) * BETWEEN) if len(found) else None


def measured(lives: int, looks: int, long: int, seed: int) -> dict[str, Any]:
    """Everything that the files show."""
    found: dict[str, Any] = {
        "lives": lives, "looks": looks, "decisions_between_looks": BETWEEN, "rate": RATE, "recipes": OPTIONS,
        "seed": seed, "worlds": [],
    }  # fmt: skip
    seeds = np.random.SeedSequence(seed).spawn(len(STEPS) * len(WORLDS))
    for number, (rewards, (name, gains)) in enumerate((r, w) for r in STEPS for w in WORLDS.items()):
        world = World.of(gains, STEPS[rewards])
        tried = looked_at(world, lives, long, np.random.default_rng(seeds[number]))
        entry: dict[str, Any] = {"rewards": rewards, "world": name, "bound": world.bound}
        for test, hits in (("fixed", tried.fixed), ("always", tried.always)):
            entry[test] = {
                "one_look": share(hits[:, looks - 1]),
                "looks": share(hits[:, :looks].any(axis=1)),
                "long": share(hits.any(axis=1)),
                "curve": [round(float(value), 5) for value in ever(hits)],
            }
        if name == "better":
            single = tried.fixed.mean(axis=0)  # one look, after so many decisions
            entry["until"] = {
                f"{part:.0%}": {
                    "fixed_one_look": decisions_until(np.asarray(single), part),
                    "always": decisions_until(ever(tried.always), part),
                }
                for part in (0.5, 0.8)
            }
            entry["fixed"]["single"] = [round(float(value), 5) for value in single]
        found["worlds"].append(entry)
    return found


def draw(found: dict[str, Any], file: Path) -> None:
    """False swaps against looks, and the share of lives that took a better candidate against decisions."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "triptych", "axes.spines.top": False})
    plt.rcParams["axes.spines.right"] = False
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.3, 3.5), layout="constrained")  # 700 px of 96 to the inch
    red, blue = "#c02618", "#1f5fbf"
    of = {(entry["rewards"], entry["world"]): entry for entry in found["worlds"]}
    names = list(WORLDS)
    looks = np.arange(1, len(of["ratings", names[0]]["always"]["curve"]) + 1)
    for rewards, style in (("ratings", "-"), ("marks", (0, (4, 2)))):
        for test, colour in (("fixed", red), ("always", blue)):
            left.plot(looks, 100 * np.array(of[rewards, names[0]][test]["curve"]), color=colour, ls=style, lw=1.6)
    left.text(1.05, 23, "interval of one look,\nlooked at again", color=red, fontsize=9)
    left.text(34, 3.2, "valid at every look", color=blue, fontsize=9)
    left.text(1, 2.7, "2.5 %", color="#666666", fontsize=8)
    left.axhline(2.5, color="#888888", lw=0.8, ls=":")
    left.axvline(found["looks"], color="#888888", lw=0.8, ls=":")
    left.set(xscale="log", xlabel=f"looks, one every {BETWEEN:,} rated decisions", ylim=(0, None))
    left.set_xticks([1, 3, 10, 30, 100, 300], ["1", "3", "10", "30", "100", "300"])
    left.minorticks_off()
    left.set_title("taken though no better, % of lives", loc="left", fontsize=10)
    thousands = looks * BETWEEN / 1000
    for rewards, style in (("ratings", "-"), ("marks", (0, (4, 2)))):
        entry = of[rewards, "better"]
        label = "1 to 5" if rewards == "ratings" else "right or wrong"
        right.plot(thousands, 100 * np.array(entry["fixed"]["single"]), color=red, ls=style, lw=1.6,
                   label=f"one look, {label}")  # fmt: skip
        right.plot(thousands, 100 * np.array(entry["always"]["curve"]), color=blue, ls=style, lw=1.6,
                   label=f"every look, {label}")  # fmt: skip
    right.set(xlabel="thousand rated decisions", ylim=(0, 101), xlim=(0, min(300, thousands[-1])))
    right.set_title("taken, .05 better, % of lives", loc="left", fontsize=10)
    right.legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--seed", type=int, default=SEED)
    asked = made.parse_args(argv)
    began = time.process_time()
    found = measured(*((60, 20, 40) if asked.quick else (LIVES, LOOKS, LONG)), asked.seed)
    with results(asked, HERE, is_full(made, asked)) as out:
        (out / "sequential.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(found, out / "sequential.svg")
    for entry in found["worlds"]:
        print(f"{entry['rewards']}, {entry['world']} {entry.get('until', '')}")
        for test in ("fixed", "always"):
            one, some, all_of_them = (entry[test][key] for key in ("one_look", "looks", "long"))
            print(
                f"  {test}: {one['share']:.2%} at look {found['looks']}, {some['share']:.2%} "
                f"({some['low']:.2%} to {some['high']:.2%}) at any until then, {all_of_them['share']:.2%} at any"
            )
    print(f"{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
