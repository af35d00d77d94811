"""Marks of chains, relays and fusions on held-out prompts of the captioned world, beside those of single models.

    python -m benchmarks.fusion.run [--quick] [--per-tier 60]

Every row of `marks.csv` is one picture: the exact checker's mark, and where the picture is exact its sharpness and its
edge error against the ideal render. Rows that are there are not drawn again, unless the weights of their recipe's
models are others now (`drawn.json`); the summary, with bootstrap intervals over prompts, is `summary.json`. `--quick`
draws one prompt by some of the recipes.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.digests import digests, known, note
from benchmarks.embedded_outcomes.run import Workers
from benchmarks.fusion.edges import edge_marks
from benchmarks.fusion.recipes import ENSEMBLES, GUESTS, RECIPES, SINGLES, prompts
from deployments.assembly import catalogue_of
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from models.catalogue import Catalogue
from models.embedded.checker import check
from models.embedded.outcomes import Prompt
from models.weights.revisions import revision
from router.learning.intervals import resampled_mean
from router.planning.plan import make_plan
from router.types import GenerationRequest, Picture, Plan, Recipe, Step, StepResult, Value

HERE = Path(__file__).resolve().parent
COLUMNS = ("tier", "prompt", "recipe", "exact", "partial", "sharpness", "edge_error")
BATCH = 20
CACHE = Path(".cache/fusion")
DRAWS = 2000
TIERS = ("two", "relation", "three", "one")
SOME = ("sdxl > refiner from 0.8", "sdxl 0.5 > sd15", "regions of three", "sdxl in 4", "sdxl + 0.5 turbo")

Row = dict[str, str]


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what is missing, then summarise."""
    made = parser(__doc__)
    made.add_argument("--per-tier", type=int, default=60)
    made.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="default: all")
    made.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS), help="default: all")
    asked = made.parse_args(argv)
    if asked.quick:
        asked.per_tier, asked.tiers, asked.recipes = 1, ["two"], [*SINGLES, *SOME]
    # Some of the recipes or tiers only add rows to the table, so they are a part of the full run.
    with results(asked, HERE, is_full(made, asked, but=("recipes", "tiers"))) as out:
        table = out / "marks.csv"
        workers = Keeping(catalogue(), out / "cache" if asked.quick else CACHE)
        drop_stale(table, {name: RECIPES[name] for name in asked.recipes}, workers.catalogue)
        for tier, drawn in prompts(asked.per_tier).items():
            if tier not in asked.tiers:
                continue
            for start in tqdm(range(0, len(drawn), BATCH), desc=tier):
                draw(workers, tier, drawn[start : start + BATCH], start, table, asked.recipes)
        rows = list(csv.DictReader(table.open()))
        (out / "summary.json").write_text(json.dumps(summary(rows), indent=1) + "\n")


def drop_stale(table: Path, recipes: Mapping[str, Recipe], catalogue: Catalogue) -> None:
    """Begin the table, or take out of it the rows of `recipes` that were drawn with other weights."""
    before, now = known(table), digests(recipes, catalogue)
    stale = {name for name in recipes if before.get(name) != now[name]}
    rows = [row for row in csv.DictReader(table.open()) if row["recipe"] not in stale] if table.exists() else []
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    note(table, {**before, **now})


def catalogue() -> Catalogue:
    """The shipped models, with both guests beside SDXL."""
    shipped = catalogue_of(load_serve_config(DEFAULT_CONFIG).settings)
    return Catalogue({**shipped.cards, "sdxl": replace(shipped["sdxl"], guests=GUESTS)})


class Keeping(Workers):
    """Workers that keep the pictures of single models on disk, since many recipes begin with them."""

    def __init__(self, catalogue: Catalogue, cache: Path) -> None:
        super().__init__(catalogue)
        self.cache = cache

    def _run(self, steps: Sequence[Step], inputs: Sequence[tuple[Value, ...]]) -> list[StepResult]:
        if steps[0].kind != "generate" or steps[0].produces != "image":
            return super()._run(steps, inputs)
        model = self.catalogue[str(steps[0].model)]
        body = json.dumps([revision(model), [dict(step.settings) for step in steps]], sort_keys=True)
        file = self.cache / f"{model.id}-{hashlib.sha256(body.encode()).hexdigest()[:16]}.npz"
        if file.exists():
            return [StepResult(Picture(pixels), 0.0) for pixels in np.load(file)["pixels"]]
        made = super()._run(steps, inputs)
        self.cache.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, pixels=np.stack([one.value.pixels for one in made if isinstance(one.value, Picture)]))
        return made


def draw(workers: Workers, tier: str, batch: Sequence[Prompt], start: int, table: Path, names: Sequence[str]) -> None:
    """Marks of one batch by every recipe that has none yet."""
    done = {(row["tier"], row["prompt"], row["recipe"]) for row in csv.DictReader(table.open())}
    for name in names:
        todo = [
            (
                prompt,
                make_plan(name, RECIPES[name], GenerationRequest(prompt.text, seed=start + k), workers.catalogue, {}),
            )
            for k, prompt in enumerate(batch)
            if (tier, prompt.text, name) not in done
        ]
        # Plans of one shape run together; the number of phrases decides how many steps regions takes.
        for _, group in groupby(sorted(todo, key=lambda pair: _shape(pair[1])), key=lambda pair: _shape(pair[1])):
            pairs = list(group)
            made = workers.perform([plan for _, plan in pairs])
            if len(pairs) < len(batch):
                workers.forget()  # results are kept by the first prompt of a batch, so only for whole batches
            with table.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                for (prompt, _), value in zip(pairs, made, strict=True):
                    assert isinstance(value, Picture)
                    writer.writerow((tier, prompt.text, name, *_marks(value.pixels, prompt)))
    workers.forget()


def _shape(plan: Plan) -> str:
    return json.dumps([[step.kind, step.model, step.inputs] for step in plan.steps])


def _marks(pixels: NDArray[np.uint8], prompt: Prompt) -> tuple[int, str, str, str]:
    mark = check(pixels, prompt.scene)
    edges = edge_marks(pixels) if mark.exact else None
    sharpness, error = ("", "") if edges is None else (f"{edges[0]:.4f}", f"{edges[1]:.3f}")
    return int(mark.exact), f"{mark.partial:.4f}", sharpness, error


# ---------------------------------------------------------------------------------------------------------- summary


def summary(rows: Sequence[Row]) -> dict[str, object]:
    """By recipe: exact marks of each tier and of two and three objects together, edges, and what is gained."""
    table = {name: {(row["tier"], row["prompt"]): row for row in rows if row["recipe"] == name} for name in RECIPES}
    several = ("two", "relation", "three")
    found: dict[str, object] = {
        "exact": {
            name: {
                tier: interval([float(row["exact"]) for key, row in marks.items() if tier in (key[0], _joined(key[0]))])
                for tier in ("one", *several, "several")
            }
            for name, marks in table.items()
        },
        "edges": {
            name: {
                column: interval([float(row[column]) for row in marks.values() if row[column]])
                for column in ("sharpness", "edge_error")
            }
            for name, marks in table.items()
        },
    }
    best = max(SINGLES, key=lambda name: np.mean([float(table[name][key]["exact"]) for key in _keys(table[name])]))
    found["best single on several objects"] = best
    pairs = [(name, best) for name in RECIPES if name != best]
    pairs += [("regions of three", "best_of of three")]
    pairs += [("regions of three, harmonised", "regions of three")]
    found["exact gained on several objects"] = {
        f"{name} over {base}": paired(table[name], table[base], "exact", _keys(table[base])) for name, base in pairs
    }
    for column in ("exact", "edge_error"):
        found[f"{column} gained by denoising together"] = {
            f"{name} over {base}": paired(table[name], table[base], column, _keys(table[base]))
            for name in ENSEMBLES
            for base in (("sdxl in 4", "sdxl in 6", "turbo in 1") if "turbo" in name else ("sdxl", "sd15"))
        }
    ways = [(name, name.split(" ")[0]) for name in RECIPES if " > " in name]
    for column in ("exact", "sharpness", "edge_error"):
        found[f"{column} gained over the first model"] = {
            name: paired(table[name], table[base], column, list(table[base])) for name, base in ways
        }
    return found


def _joined(tier: str) -> str:
    return "" if tier == "one" else "several"


def _keys(marks: Mapping[tuple[str, str], Row]) -> list[tuple[str, str]]:
    return [key for key in marks if key[0] != "one"]


def paired(
    left: Mapping[tuple[str, str], Row],
    right: Mapping[tuple[str, str], Row],
    column: str,
    keys: Sequence[tuple[str, str]],
) -> dict[str, float | int]:
    """Mean difference on the same prompts, those where both have a value."""
    both = [key for key in keys if key in left and key in right and left[key][column] and right[key][column]]
    return interval([float(left[key][column]) - float(right[key][column]) for key in both])


def interval(values: Sequence[float]) -> dict[str, float | int]:
    """Mean and 95 % bootstrap interval over prompts (percentiles of 2000 resamples)."""
    if not values:
        return {"n": 0}
    array = np.asarray(values)
    low, high = resampled_mean(array, resamples=DRAWS)
    return {
        "mean": round(float(array.mean()), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "n": len(array),
    }


if __name__ == "__main__":
    main()
