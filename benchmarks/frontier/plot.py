"""Draws frontier.svg from frontier.json: exact marks against CPU-seconds.

    python -m benchmarks.frontier.plot [--quick]

Five lines at most. A recipe's bar is the 95 % interval of its own marks, by a bootstrap over the prompts of
`outcomes_test.csv`. A line's bars are, at half, seven tenths and all of the best single model's cost, the 95 % interval
of its *distance from random mixing* (from frontier.json), so a bar that keeps clear of the dotted line is a difference.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.command import is_full, parser, results
from benchmarks.frontier.run import OUTCOMES, RESAMPLES, Array
from router.bootstrap.dial import hull

HERE = Path(__file__).resolve().parent
INCHES = (7.3, 5.6)  # 700 pixels of 96 to the inch
SHARES = {
    0.5: "points over random mixing at half of it",
    0.7: "points over random mixing at seven tenths of it",
    1.0: "points over random mixing at that cost",
}
"""Share of the best single model's cost: the comparison of frontier.json that holds there."""


@dataclass(frozen=True)
class Line:
    """A strategy: its curve in frontier.json, its name in the legend, and how it is drawn."""

    curve: str
    name: str
    colour: str
    style: Any = "-"
    aside: float | None = None
    """What its bars' places are multiplied by, so that bars at one cost do not hide one another; None: it has none."""


LINES = (
    Line("oracle", "best recipe of each prompt", "#8a8f98", (0, (5, 2))),
    Line("router + verify and escalate", "router and verification", "#c02618", aside=1.0),
    Line("cascade", "cascade, the best if doubtful", "#23803a", aside=1.035),
    Line("always", "random mixing of recipes", "#111111", (0, (1, 1.2))),
    Line("router", "router alone", "#1f5fbf", aside=0.965),
)
NAMES = {
    "sd15@1:guidance_scale=1,style=lcm*1": ("SD1.5, LCM", "left", (8, -4)),
    "sd15": ("SD1.5", "right", (-8, -4)),
    "sdxl": ("SDXL", "left", (9, 4)),
    "sdxl-turbo": ("SDXL-Turbo", "left", (8, -13)),
    "flux": ("FLUX", "right", (-12, -4)),
    "sd15@8:scheduler=dpmsolver++": ("SD1.5, 8 steps of DPM-Solver++", "left", (8, -4)),
    "sdxl-turbo>sdxl-refiner:strength=0.3": ("Turbo,\nrefined", "center", (3, -42)),
    "sdxl>sdxl-refiner:from=0.8": ("SDXL, refined", "left", (8, -2)),
    "flux>sdxl-refiner:strength=0.25": ("FLUX,\nrefined", "left", (9, -14)),
}
"""Recipe of frontier.json: its name, on which side of the point it begins, and how far from it in points. Others have
their key to their right."""
SPLIT = 0.84
"""Marks below this are drawn on the lower scale."""
INK, PAPER = "#111111", "#ffffff"


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    chosen = made.parse_args(argv)
    with results(chosen, HERE, is_full(made, chosen)) as out, plt.rc_context():
        plot(out / "frontier.svg")


def plot(file: Path) -> None:
    """Both scales of the committed figures."""
    found = json.loads((HERE / "frontier.json").read_text(encoding="utf-8"))
    best = found["learned"]["best single model"]
    plt.rcParams.update({"svg.hashsalt": "triptych", "font.size": 9.5})
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=INCHES, sharex=True, height_ratios=(4, 1), facecolor=PAPER, gridspec_kw={"hspace": 0.06}
    )
    for axes in (upper, lower):
        axes.grid(color="#e4e6ea", lw=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        points(axes, found["points"], intervals(), best)
    for line in LINES:
        draw(upper, line, found["points"], found["comparison"][best][line.curve], best)
    upper.legend(loc="upper center", ncols=3, columnspacing=1.2, frameon=False, fontsize=8, handlelength=1.8)
    alone = [p for p in found["points"] if p["curve"] == "always"]
    costs, low = [p["cpu_s"] for p in alone], [p["exact"] for p in alone if p["exact"] < SPLIT]
    upper.set(ylim=(SPLIT, 1.02), xscale="log", xlim=(0.85 * min(costs), 1.6 * max(costs)))
    lower.set(ylim=(min(low, default=SPLIT - 0.1) - 0.06, max(low, default=SPLIT) + 0.06))
    upper.set_yticks([0.85, 0.9, 0.95, 1.0], ["85 %", "90 %", "95 %", "100 %"])
    ticks = [tick for tick in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8) if lower.get_ylim()[0] < tick < lower.get_ylim()[1]]
    lower.set_yticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    upper.tick_params(axis="x", which="both", length=0)
    lower.set_xticks([0.02, 0.03, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.03", "0.05", "0.1", "0.2", "0.5"])
    lower.set_xticks([], minor=True)
    upper.set_title(
        "Pictures with everything right that the prompt asks for, against what they cost\n", loc="left", fontsize=11.5
    )
    upper.text(
        0, 1.035, f"{found['prompts']} held-out prompts, {found['seeds']} pictures each; bars: 95 % intervals",
        transform=upper.transAxes, color="#5a606b",
    )  # fmt: skip
    lower.set_xlabel("CPU-seconds a picture, checks included (one thread, log scale)")
    figure.text(0.985, 0.254, "below: another scale", ha="right", color="#5a606b", fontsize=8.5)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.885, bottom=0.09)
    figure.savefig(file, metadata={"Date": None}, facecolor=PAPER)


def draw(axes: Axes, line: Line, points: Sequence[Mapping[str, Any]], compared: Mapping[str, Any], best: str) -> None:
    """The hull of a strategy's operating points, and its distance from random mixing with intervals."""
    x, y = curve(points, line.curve)
    cost = next(p["cpu_s"] for p in points if p["curve"] == "always" and p["setting"] == best)
    axes.plot(x, y, color=line.colour, ls=line.style, lw=1.4 if line.aside is None else 2.0, label=line.name, zorder=3)
    # Whoever may spend more than a strategy can use has what it reaches at most.
    if line.curve != "oracle" and x[-1] < 1.05 * cost:
        axes.plot([x[-1], 1.05 * cost], [y[-1]] * 2, color=line.colour, ls=line.style, lw=0.9, zorder=3)
    if line.aside is None:
        return
    mixing_x, mixing_y = curve(points, "always")
    for share, key in SHARES.items():
        base = float(np.interp(share * cost, mixing_x, mixing_y))
        value, low, high = (base + compared[key][name] / 100 for name in ("value", "low", "high"))
        bars, at = [[value - low], [high - value]], share * cost * line.aside
        axes.errorbar(at, value, bars, color=line.colour, capsize=2.5, lw=1.3, zorder=4)


def points(axes: Axes, points: Sequence[Mapping[str, Any]], bars: Mapping[str, tuple[float, float]], best: str) -> None:
    """Every recipe alone, by name, with the interval of its marks; the best single model is ringed."""
    for p in (p for p in points if p["curve"] == "always"):
        x, y, (low, high) = p["cpu_s"], p["exact"], bars[p["setting"]]
        name, side, away = NAMES.get(p["setting"], (p["setting"], "left", (8, -4)))
        model = ">" not in p["setting"]
        axes.errorbar(x, y, [[y - low], [high - y]], color=INK, lw=1, capsize=2, zorder=4)
        axes.plot(x, y, "s" if model else "D", color=INK, ms=6 if model else 4.5, zorder=5)
        if p["setting"] == best:
            axes.plot(x, y, "o", mfc="none", mec=INK, ms=15, mew=1.5, zorder=5)
            name = f"{name}, the best\nsingle model"
        axes.annotate(
            name, (x, y), away, textcoords="offset points", ha=side, fontsize=9, zorder=6, annotation_clip=True,
            fontweight="bold" if p["setting"] == best else None,
        )  # fmt: skip


def curve(points: Sequence[Mapping[str, Any]], name: str) -> tuple[Array, Array]:
    """(CPU-seconds, share) along the upper hull of a strategy's operating points."""
    mine = [p for p in points if p["curve"] == name]
    return hull(np.array([p["cpu_s"] for p in mine]), np.array([p["exact"] for p in mine]))


def intervals() -> dict[str, tuple[float, float]]:
    """95 % intervals of each recipe's share of exact marks, from resampling prompts."""
    marks: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (OUTCOMES / "outcomes_test.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            marks[row["recipe"]][row["prompt"]].append(float(row["exact"]))
    rng = np.random.default_rng(0)
    found = {}
    for recipe, prompts in marks.items():
        means = np.array([np.mean(seeds) for seeds in prompts.values()])
        drawn = means[rng.integers(len(means), size=(RESAMPLES, len(means)))].mean(axis=1)
        found[recipe] = (float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5)))
    return found


if __name__ == "__main__":
    main()
