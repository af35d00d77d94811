"""Runs recipes of the presets over prompts of the captioned world and stores the checker's marks and measured seconds.

    python -m benchmarks.embedded_outcomes.run --split train --per-tier 60 --seeds 2
    python -m benchmarks.embedded_outcomes.run --split test  --per-tier 40 --seeds 2

The prompts of the two splits are different draws. `test` is phrased in ways that no image model was trained on;
`train`, from which the router learns, half so and half in the phrasings of their training.

Writes `outcomes_<split>.csv`: one row for each prompt, recipe and seed. The command runs what is missing in it: it goes
on after an interruption, and measures a retrained model again once that model's rows are deleted. A step that several
recipes share (the same model, settings, seed and inputs) is run once for each picture, and its measured seconds count
in every recipe that contains it.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deployments.settings import DEFAULT_CONFIG, load_serve_config
from deployments.wiring import catalogue_of
from models.catalog import Catalog
from models.embedded.captions import caption
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts
from models.embedded.world import TIERS, TRAIN_PAIRS, sample_scene
from models.engine import Engine
from models.fusion import run_step
from policies.load import load_policy
from router.execution import execute
from router.planning import make_plan
from router.recipes import recipe_key, resolve
from router.types import Generate, GenerationRequest, Picture, Recipe, Step, StepResult, Value

HERE = Path(__file__).resolve().parent
COLUMNS = ("tier", "prompt", "recipe", "seed", "exact", "partial", "work_s")


class SharedSteps:
    """Performs steps on engines in this process; equal steps of one prompt and seed are run once."""

    def __init__(self, catalogue: Catalog) -> None:
        self._catalogue = catalogue
        self._engines: dict[str, Engine] = {}
        self._results: dict[str, StepResult] = {}
        self._names: dict[int, str] = {}

    def forget(self) -> None:
        """Drop the results, at the end of a prompt and seed."""
        self._results.clear()
        self._names.clear()

    async def __call__(self, step: Step, inputs: Sequence[Value]) -> StepResult:
        sources = [self._names[id(value)] for value in inputs]
        name = json.dumps([step.kind, step.model, dict(step.settings), sources], sort_keys=True)
        if name not in self._results:
            if step.model is None:
                result = run_step(step, inputs)
            else:
                result = self._engine(step.model).run(replace(step, inputs=tuple(sources)), inputs)
            self._results[name] = result
            self._names[id(result.value)] = name
        return self._results[name]

    def _engine(self, model: str) -> Engine:
        if model not in self._engines:
            self._engines[model] = Engine(self._catalogue[model], device="cpu", threads=1)
            self._engines[model].warm_up()
        return self._engines[model]


def candidate_recipes(catalogue: Catalog, presets: Sequence[Path]) -> dict[str, Recipe]:
    """Every recipe of the presets and every base model alone, by canonical key; equal ones once."""
    found: dict[str, Recipe] = {}
    for model in catalogue.ids():
        if catalogue[model].role == "base":
            found[recipe_key(Generate(model), {}, catalogue)] = Generate(model)
    for path in presets:
        policy = load_policy(path, models=catalogue.ids())
        for name, recipe in policy.recipes.items():
            whole = resolve(recipe, policy.recipes, (name,))
            found.setdefault(recipe_key(whole, {}, catalogue), whole)
    return found


async def outcomes(prompt: Prompt, seed: int, recipes: Mapping[str, Recipe], perform: SharedSteps, catalogue: Catalog):
    """Rows of one prompt and seed, a recipe each."""
    request = GenerationRequest(prompt.text, seed=seed)
    for key, recipe in recipes.items():
        plan = make_plan(key, recipe, request, catalogue, {})
        execution = await execute(plan, perform)
        assert isinstance(execution.output, Picture)
        mark = check(execution.output.pixels, prompt.scene)
        work = sum(trace.seconds for trace in execution.traces if trace.step.model is not None)
        yield {"recipe": key, "exact": int(mark.exact), "partial": round(mark.partial, 4), "work_s": round(work, 5)}
    perform.forget()


def prompts_of(split: str, tier: str, n: int) -> list[Prompt]:
    """`n` prompts of a tier; the draws of the two splits never meet, and equal texts are kept once."""
    if split == "test":
        drawn = held_out_prompts(tier, n, seed=0)
    else:
        drawn = held_out_prompts(tier, n // 2, seed=1)
        for k in range(n - len(drawn)):
            rng = random.Random(f"router {tier} {k}")
            scene = sample_scene(rng, tier, TRAIN_PAIRS)
            drawn.append(Prompt(caption(scene, rng, "train"), scene))
    return list({prompt.text: prompt for prompt in drawn}.values())


async def run(split: str, per_tier: int, seeds: int, out: Path) -> None:
    settings = load_serve_config(DEFAULT_CONFIG).settings
    catalogue = catalogue_of(settings)
    recipes = candidate_recipes(catalogue, sorted(settings.policies.path.glob("*.yaml")))
    by_tier = {tier: prompts_of(split, tier, per_tier) for tier in TIERS}
    # Tiers take turns, so that an interrupted run is a smaller study and not a lopsided one.
    ranks = range(max(map(len, by_tier.values())))
    todo = [(t, by_tier[t][k], seed) for k in ranks for seed in range(seeds) for t in TIERS if k < len(by_tier[t])]
    done = _done(out)
    perform = SharedSteps(catalogue)
    new = not out.exists()
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for tier, prompt, seed in tqdm(todo, unit="picture set", desc=split):
            missing = {key: recipe for key, recipe in recipes.items() if (prompt.text, seed, key) not in done}
            rows: list[dict[str, Any]] = [row async for row in outcomes(prompt, seed, missing, perform, catalogue)]
            writer.writerows({"tier": tier, "prompt": prompt.text, "seed": seed} | row for row in rows)
            file.flush()


def _done(out: Path) -> set[tuple[str, int, str]]:
    if not out.exists():
        return set()
    with out.open(newline="", encoding="utf-8") as file:
        return {(row["prompt"], int(row["seed"]), row["recipe"]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("train", "test"), required=True)
    parser.add_argument("--per-tier", type=int, default=60, help="prompts a tier")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt and recipe")
    parser.add_argument("--out", type=Path, help="CSV file (default: beside this script)")
    args = parser.parse_args()
    asyncio.run(run(args.split, args.per_tier, args.seeds, args.out or HERE / f"outcomes_{args.split}.csv"))
