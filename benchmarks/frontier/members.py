"""Does each family earn its place? Marks, costs and choices of SD1.5, SDXL and FLUX, against the bars that were set.

    python -m benchmarks.frontier.members [--quick] [--into docs/evidence.md]

Nothing is drawn: what each recipe did with four seeds on each prompt of `outcomes_test.csv` is replayed at the prices
of `seconds.json`, with what the router and its verifier learned from other prompts, as benchmarks.frontier.run does. A
recipe is of the family of the model that draws it; without a family, every recipe that needs a model of it is gone.
Intervals are 95 %, by a bootstrap over prompts. Where the best of several settings is reported, it was chosen on one
half of the prompts, and the figure is of the other half. Writes `members.json`; with `--into` what stands between
`<!-- members -->` and `<!-- /members -->` of a page is written anew from it. A bar that is missed is said to be
missed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import shipped
from benchmarks.frontier.run import (
    OUTCOMES,
    PRICES,
    RESAMPLES,
    ROOT,
    Array,
    Outcomes,
    Point,
    always,
    chances,
    chosen,
    learn_judge,
    measured,
    read,
    search,
)
from benchmarks.serving.report import table
from models.catalogue import Catalogue
from router.bootstrap.dial import hull
from router.planning.recipes import models_of, stages_of
from router.registry.artifact import load_artifact
from router.types import Fuse, Recipe
from router.verification.value_of_information import ScoreModel

HERE = Path(__file__).resolve().parent
FAMILIES = {"sd15": "SD1.5", "sdxl": "SDXL", "flux": "FLUX"}
LCM = "sd15@1:guidance_scale=1,style=lcm*1"
BY_COST = {LCM: "SD1.5 with LCM", "sdxl-turbo": "SDXL-Turbo", "sdxl": "SDXL", "flux": "FLUX"}
"""What is to cost more from one to the next, and to draw better on hard prompts."""
HARD = ("relation", "counts")
WITHIN = np.linspace(0, 0.5, 26)
"""Dials of `cheapest_within`, the objective of `balanced`."""
BUDGETS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of the best recipe's cost."""


@dataclass(frozen=True)
class Bar:
    """A figure with its interval, and what was wanted of it: `at_least`, and, if `surely`, that `low` is above zero.

    unit: `points` of exact marks, `times`, or `% of prompts`;   where: the setting at which it was found
    most: what a chooser without the verifier would reach at best who knew the marks of every recipe on every prompt; no
        router can be asked for more. It is a little too high, since the same pictures tell it and count for it
    """

    name: str
    value: float
    low: float
    high: float
    at_least: float
    unit: str
    surely: bool = False
    where: str = ""
    most: float | None = None

    @property
    def held(self) -> bool:
        return self.value >= self.at_least and (self.low > 0 or not self.surely)


@dataclass(frozen=True)
class Known:
    """What the replay goes by: predicted chances (prompts, recipes), and what a verdict of the verifier is worth."""

    predicted: Array
    score_model: ScoreModel
    strength: float


def interval(values: Array) -> tuple[float, float, float]:
    """Mean of values (n,), and its 95 % interval by a bootstrap."""
    rng = np.random.default_rng(0)
    drawn = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def at_budgets(points: Sequence[Point], budgets: Sequence[float] | Array, weights: Array) -> Array:
    """Marks (k, budgets) that the hull of points reaches, for each row of prompt weights (k, prompts); NaN below it."""
    exact, cost = (np.array([getattr(point, name) for point in points]) @ weights.T for name in ("exact", "cost"))
    hulls = (hull(cost[:, k], exact[:, k]) for k in range(len(weights)))
    return np.array([np.interp(budgets, x, y, left=np.nan) for x, y in hulls])


def bootstrap(n: int, resamples: int) -> Array:
    """Prompt weights (1 + resamples, n): all alike, then drawn with replacement."""
    rng = np.random.default_rng(0)
    return np.concatenate(([np.full(n, 1 / n)], rng.multinomial(n, np.full(n, 1 / n), resamples) / n))


def points_over(values: Array) -> tuple[float, float, float]:
    """The first value and the 95 % interval of the others, in points."""
    known = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return 100 * float(values[0]), 100 * float(low), 100 * float(high)


# ------------------------------------------------------------------------------------------------------ marks, costs


def marks_and_costs(test: Outcomes, times: Mapping[str, Array]) -> list[Bar]:
    """FLUX against SDXL where prompts are hard, and whether costs and marks rise from one model to the next."""
    hard = np.isin(np.array(test.tiers), HARD)
    marks = {name: test.exact[hard, test.at(name)].mean(1) for name in BY_COST if name in test.recipes}
    bars = [Bar("FLUX over SDXL, relation and counts", *_scaled(marks["flux"] - marks["sdxl"]), 5, "points", True)]
    for less, more in pairwise(marks):
        title = f"{BY_COST[more]} over {BY_COST[less]}"
        if (less, more) != ("sdxl", "flux"):
            bars.append(Bar(f"{title}, relation and counts", *_scaled(marks[more] - marks[less]), 0, "points"))
        bars.append(Bar(f"{title}, seconds", *_ratio(times[more], times[less]), 1, "times"))
    first, *_, last = marks
    title = f"{BY_COST[last]} over {BY_COST[first]}, seconds"
    return [*bars, Bar(title, *_ratio(times[last], times[first]), 10, "times")]


def _scaled(values: Array) -> tuple[float, float, float]:
    mean, low, high = interval(values)
    return 100 * mean, 100 * low, 100 * high


def _ratio(above: Array, below: Array) -> tuple[float, float, float]:
    """Of medians; both are of the same prompts, in turns."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(above), size=(RESAMPLES, len(above)))
    low, high = np.percentile(np.median(above[rows], 1) / np.median(below[rows], 1), [2.5, 97.5])
    return float(np.median(above) / np.median(below)), float(low), float(high)


# ----------------------------------------------------------------------------------------------------------- choices


def shares(test: Outcomes, predicted: Array, family: Sequence[str]) -> list[dict[str, float]]:
    """At each dial of `cheapest_within`: the share of prompts by family, mean marks and seconds."""
    every, names, rows = np.arange(len(test.prompts)), np.array(family), []
    for within in WITHIN:
        able = predicted >= predicted.max(1, keepdims=True) - within
        pick = np.where(able, test.seconds, np.inf).argmin(1)
        row = {name: float((names[pick] == name).mean()) for name in FAMILIES}
        found = {"exact": float(test.exact[every, pick].mean()), "cpu_s": float(test.seconds[pick].mean())}
        rows.append({"cheapest_within": float(within), **row, **found})
    return rows


def share_bars(test: Outcomes, known: Known, family: Sequence[str]) -> list[Bar]:
    """Of each family the largest share along the dial, chosen on the even prompts and counted on the odd ones."""
    even = np.arange(len(test.prompts)) % 2 == 0
    choosing = shares(test.where(even), known.predicted[even], family)
    odd, bars = test.where(~even), []
    for name, title in FAMILIES.items():
        within = max(choosing, key=lambda row: row[name])["cheapest_within"]
        predicted = known.predicted[~even]
        able = predicted >= predicted.max(1, keepdims=True) - within
        pick = np.where(able, odd.seconds, np.inf).argmin(1)
        chose = 100.0 * (np.array(family)[pick] == name)
        bars.append(Bar(f"{title} chosen", *interval(chose), 10, "% of prompts", where=f"cheapest_within {within:.2f}"))
    return bars


def routed(test: Outcomes, known: Known, columns: Sequence[int], prices: Array) -> list[Point]:
    """Router and verification with some of the recipes."""
    return search(test, "routed", known.predicted, known.score_model, known.strength, columns, prices)


def without_each(
    test: Outcomes,
    known: Known,
    needs: Sequence[set[str]],
    everything: Sequence[Point],
    budgets: Array,
    prices: Array,
    resamples: int,
) -> tuple[dict[str, list[dict[str, float | None]]], list[Bar]]:
    """What is lost at each budget without a family; and the largest loss, its budget chosen on even prompts.

    everything: what router and verification reach with all of them
    """
    weights, curves, bars = bootstrap(len(test.prompts), resamples), {}, []
    every, even = range(len(needs)), np.arange(len(test.prompts)) % 2 == 0
    halves = (even / even.sum())[None, :], weights * ~even / (weights * ~even).sum(1, keepdims=True)
    for name, title in FAMILIES.items():
        kept = [k for k, need in enumerate(needs) if name not in need]
        left = routed(test, known, kept, prices)
        lost, on_even, on_odd = (
            at_budgets(everything, budgets, by) - at_budgets(left, budgets, by) for by in (weights, *halves)
        )
        curves[name] = [
            {"cpu_s": float(budget), **_known(*points_over(lost[:, k]))} for k, budget in enumerate(budgets)
        ]
        worst = int(np.argmax(np.nan_to_num(on_even[0], nan=-1)))
        where = f"{budgets[worst]:.3f} CPU-s a picture"
        most = 100 * float(np.nanmax(oracle(test, every, prices, budgets) - oracle(test, kept, prices, budgets)))
        bars.append(Bar(f"lost without {title}", *points_over(on_odd[:, worst]), 1, "points", where=where, most=most))
    return curves, bars


def _known(value: float, low: float, high: float) -> dict[str, float | None]:
    return {k: round(v, 3) if np.isfinite(v) else None for k, v in (("lost", value), ("low", low), ("high", high))}


def oracle(test: Outcomes, columns: Sequence[int], prices: Array, budgets: Array) -> Array:
    """Marks (budgets,) of choosing among some recipes by the marks that they turn out to have."""
    made = chosen(test, "oracle", test.exact.mean(2), columns, prices)
    return at_budgets(made, budgets, bootstrap(len(test.prompts), 0))[0]


def best_recipe(test: Outcomes) -> int:
    """The column of the recipe with the best marks; of equals the cheapest."""
    return max(range(len(test.recipes)), key=lambda k: (test.exact[:, k].mean(), -test.seconds[k]))


def against_best(test: Outcomes, known: Known, everything: Sequence[Point], prices: Array, resamples: int) -> list[Bar]:
    """Router and verification, and the router alone, against the best fixed recipe and random mixing."""
    every, best = list(range(len(test.recipes))), best_recipe(test)
    budgets, weights = test.seconds[best] * np.array([0.5, 1]), bootstrap(len(test.prompts), resamples)
    mark = weights @ test.exact[:, best].mean(1)
    alone = at_budgets(chosen(test, "router", known.predicted, every, prices), budgets, weights)
    knowing = at_budgets(chosen(test, "oracle", test.exact.mean(2), every, prices), budgets, weights)
    mixed = at_budgets(always(test), budgets, weights)
    looked, over, most = at_budgets(everything, budgets, weights), alone - mixed, 100 * (knowing - mixed)[0]
    title, lone = "router and verification over the best recipe", "router alone over random mixing"
    return [
        Bar(f"{title}, at half of its cost", *points_over(looked[:, 0] - mark), 0, "points"),
        Bar(f"{title}, at its cost", *points_over(looked[:, 1] - mark), 3, "points", True),
        Bar(f"{lone}, at half of that cost", *points_over(over[:, 0]), 3, "points", True, most=float(most[0])),
        Bar(f"{lone}, at that cost", *points_over(over[:, 1]), 0, "points", most=float(most[1])),
        Bar(
            "oracle of single pictures over the router alone, at that cost",
            *points_over(knowing[:, 1] - alone[:, 1]),
            *(0, "points"),
        ),
    ]


# ------------------------------------------------------------------------------------------------------------ report


def needs_of(recipe: Recipe, catalogue: Catalogue) -> set[str]:
    """The families without which a recipe cannot be made."""
    return {catalogue[model].family for model in models_of(recipe)}


def draws_of(recipe: Recipe, catalogue: Catalogue) -> str:
    """The family of the model that draws."""
    return catalogue[next(models_of(stages_of(recipe)[0]))].family


def study(prompts: int | None, prices: Array, resamples: int) -> dict[str, Any]:
    """All of it; prompts: only so many of each split."""
    catalogue, recipes = shipped()
    kept = {name: recipes[name] for name in measured(recipes) if not isinstance(recipes[name], Fuse)}
    told = json.loads((OUTCOMES / "seconds.json").read_text(encoding="utf-8"))
    test, train = read("test", list(kept)), read("train", list(kept))
    if prompts is not None:
        some = np.arange(len(test.prompts)) < prompts
        test, train = test.where(some), train.where(np.arange(len(train.prompts)) < 4 * prompts)
    score_model, strength = learn_judge(train)
    known = Known(chances(test, load_artifact(ROOT / "router" / "artifacts" / "embedded")), score_model, strength)
    times = {name: np.array(told[name]["all"]) for name in test.recipes}
    family = [draws_of(kept[name], catalogue) for name in test.recipes]
    best = test.recipes[best_recipe(test)]
    everything = routed(test, known, range(len(test.recipes)), prices)
    compared = against_best(test, known, everything, prices, resamples)
    budgets = np.unique(np.concatenate((test.seconds, np.array(BUDGETS) * test.seconds[test.at(best)])))
    needs = [needs_of(kept[name], catalogue) for name in test.recipes]
    curves, lost = without_each(test, known, needs, everything, budgets, prices, resamples)
    bars = [*marks_and_costs(test, times), *share_bars(test, known, family), *lost, *compared]
    return {
        "prompts": len(test.prompts),
        "seeds": test.exact.shape[2],
        "recipes": dict(zip(test.recipes, family, strict=True)),
        "best recipe": best,
        "bars": [{**asdict(bar), "held": bar.held} for bar in bars],
        "shares": shares(test, known.predicted, family),
        "without": curves,
    }


def page(found: Mapping[str, Any]) -> str:
    """The bars as a Markdown table, and how many are held."""
    rows = []
    for bar in found["bars"]:
        digits = ".0f" if bar["unit"].startswith("%") else ".1f"
        value, low, high = (format(bar[key], digits).replace("-", "−") for key in ("value", "low", "high"))
        wanted = f"≥ {bar['at_least']:g}{', surely above 0' if bar['surely'] else ''}"
        verdict = "held" if bar["held"] else "**missed**"
        most = "" if bar["most"] is None else f"{bar['most']:.1f}".replace("-", "−")
        rows.append((bar["name"], f"{value} ({low} to {high}) {bar['unit']}", wanted, verdict, most, bar["where"]))
    held = sum(bar["held"] for bar in found["bars"])
    said = (
        f"{held} of {len(rows)} bars are held. {found['prompts']} prompts, {found['seeds']} seeds; the best recipe is "
        f"`{found['best recipe']}` ([raw](../benchmarks/frontier/members.json)). *An oracle*: what "
        "choosing by the marks that each recipe turns out to have on a prompt would come to, without looking at "
        "pictures; no router reaches more."
    )
    return "\n".join([said, "", *table(("what", "found (95 %)", "wanted", "", "an oracle", "where"), rows)])


def put_into(document: str, found: Mapping[str, Any]) -> str:
    """A page with its section anew. Raises SystemExit if it has none."""
    begin, end = "<!-- members -->\n", "<!-- /members -->"
    if begin not in document or end not in document:
        raise SystemExit(f"the page has no {begin.strip()} and {end}")
    before, rest = document.split(begin, 1)
    return f"{before}{begin}{page(found)}\n{end}{rest.split(end, 1)[1]}"


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--into", type=Path, metavar="FILE", help="the page to write the bars into")
    asked = made.parse_args(argv)
    with results(asked, HERE, is_full(made, asked, but=("into",))) as out:
        found = study(*((40, PRICES[::9], 20) if asked.quick else (None, PRICES[::2], RESAMPLES)))
        (out / "members.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(page(found))
        if asked.into is not None and not asked.quick:
            asked.into.write_text(put_into(asked.into.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main()
