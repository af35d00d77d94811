"""Runs recipes of the presets over prompts of the captioned world and stores the checker's marks and measured seconds.

    python -m benchmarks.embedded_outcomes.run --split train --per-tier 120 --seeds 2
    python -m benchmarks.embedded_outcomes.run --split test  --per-tier 200 --seeds 4
    python -m benchmarks.embedded_outcomes.run --seconds 30

The prompts of the two splits are different draws. `test` is phrased in ways that no image model was trained on;
`train`, from which the router learns, half so and half in the phrasings of their training.

Writes `outcomes_<split>.csv`: one row for each prompt, recipe and seed, with the exact and partial mark and the
verifier's score. The command runs what is missing in it: it goes on after an interruption, and measures a retrained
model again once that model's rows are deleted. Pictures are made in batches, and a step that several recipes share
(the same model, settings, seed and inputs) is run once.

What a recipe costs does not depend on the prompt, and in batches it could not be measured: `--seconds` runs every
recipe one picture at a time, in turns, and writes `seconds.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
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
from router.planning import make_plan
from router.recipes import models_of, recipe_key, resolve
from router.types import Generate, GenerationRequest, Picture, Plan, Recipe, Scores, Step, StepResult, Value

HERE = Path(__file__).resolve().parent
COLUMNS = ("tier", "prompt", "recipe", "seed", "exact", "partial", "score")
PRESETS = ("fast", "balanced", "best")
SCORER = "alignment"
BATCH = 20


class Workers:
    """Engines in this process, loaded when first asked for; equal steps of one batch are run once."""

    def __init__(self, catalogue: Catalog) -> None:
        self.catalogue = catalogue
        self._engines: dict[str, Engine] = {}
        self._results: dict[str, list[StepResult]] = {}

    def forget(self) -> None:
        """Drop the results, at the end of a batch."""
        self._results.clear()

    def perform(self, plans: Sequence[Plan]) -> list[Value]:
        """The outputs of plans of one recipe, for different prompts and seeds."""
        names: dict[str, str] = {}
        for place, step in enumerate(plans[0].steps):
            sources = [names[source] for source in step.inputs]
            name = json.dumps([step.kind, step.model, dict(step.settings), sources], sort_keys=True)
            if name not in self._results:
                inputs = [tuple(self._results[source][k].value for source in sources) for k in range(len(plans))]
                self._results[name] = self._run([plan.steps[place] for plan in plans], inputs)
            names[step.id] = name
        return [result.value for result in self._results[names[plans[0].output]]]

    def _run(self, steps: Sequence[Step], inputs: Sequence[tuple[Value, ...]]) -> list[StepResult]:
        model = steps[0].model
        if model is None:
            return [run_step(step, values) for step, values in zip(steps, inputs, strict=True)]
        return self.engine(model).run_batch(steps, inputs)

    def engine(self, model: str) -> Engine:
        """The engine of a model, one thread."""
        if model not in self._engines:
            self._engines[model] = Engine(self.catalogue[model], device="cpu", threads=1)
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


def shipped() -> tuple[Catalog, dict[str, Recipe]]:
    """The catalogue of the default config and the recipes to measure."""
    settings = load_serve_config(DEFAULT_CONFIG).settings
    catalogue = catalogue_of(settings)
    return catalogue, candidate_recipes(catalogue, [settings.policies.path / f"{name}.yaml" for name in PRESETS])


def prompts_of(split: str, tier: str, n: int) -> list[Prompt]:
    """`n` prompts of a tier; the draws of the two splits never meet, and equal texts are kept once."""
    if split == "test":
        drawn = held_out_prompts(tier, n, seed=40)
    else:
        drawn = held_out_prompts(tier, n // 2, seed=41)
        for k in range(n - len(drawn)):
            rng = random.Random(f"router 41 {tier} {k}")
            scene = sample_scene(rng, tier, TRAIN_PAIRS)
            drawn.append(Prompt(caption(scene, rng, "train"), scene))
    return list({prompt.text: prompt for prompt in drawn}.values())


def outcomes(pairs: Sequence[tuple[str, Prompt, int]], recipes: Mapping[str, Recipe]) -> list[dict[str, Any]]:
    """Rows of one batch of (tier, prompt, seed), a recipe each. Runs in a worker process."""
    workers = _workers()
    rows: list[dict[str, Any]] = []
    for key, recipe in recipes.items():
        plans = [plan_of(key, recipe, prompt.text, seed, workers.catalogue) for _, prompt, seed in pairs]
        for (tier, prompt, seed), value in zip(pairs, workers.perform(plans), strict=True):
            assert isinstance(value, Picture)
            mark = check(value.pixels, prompt.scene)
            judged = Step("judged", "score", SCORER, ("made",), "scores", {"prompt": prompt.text})
            scores = workers.engine(SCORER).run(judged, (value,)).value
            assert isinstance(scores, Scores)
            rows.append(
                {"tier": tier, "prompt": prompt.text, "recipe": key, "seed": seed, "exact": int(mark.exact)}
                | {"partial": round(mark.partial, 4), "score": round(scores.values[0], 4)}
            )
    workers.forget()
    return rows


def plan_of(key: str, recipe: Recipe, prompt: str, seed: int, catalogue: Catalog) -> Plan:
    """The plan of one picture."""
    return make_plan(key, recipe, GenerationRequest(prompt, seed=seed), catalogue, {})


_shared: list[Workers] = []


def _workers() -> Workers:
    if not _shared:
        _shared.append(Workers(shipped()[0]))
    return _shared[0]


def run(split: str, per_tier: int, seeds: int, out: Path, processes: int, models: Collection[str]) -> None:
    """Run what is missing in `out`, of recipes that need none but these models (all, when none is named)."""
    _, recipes = shipped()
    recipes = {key: recipe for key, recipe in recipes.items() if not models or set(models_of(recipe)) <= set(models)}
    by_tier = {tier: prompts_of(split, tier, per_tier) for tier in TIERS}
    done = _done(out)
    # Tiers take turns, so that an interrupted run is a smaller study and not a lopsided one.
    ranks = range(max(map(len, by_tier.values())))
    pairs = [(t, by_tier[t][k], seed) for k in ranks for t in TIERS if k < len(by_tier[t]) for seed in range(seeds)]
    todo = [
        (batch, missing)
        for batch in batched(pairs, BATCH)
        if (missing := {k: r for k, r in recipes.items() if any((p.text, s, k) not in done for _, p, s in batch)})
    ]
    new = not out.exists()
    with out.open("a", newline="", encoding="utf-8") as file, ProcessPoolExecutor(processes) as pool:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for rows in tqdm(_in_turn(pool, todo, processes), total=len(todo), unit="batch", desc=split):
            writer.writerows(row for row in rows if (row["prompt"], row["seed"], row["recipe"]) not in done)
            file.flush()


def _in_turn(pool: ProcessPoolExecutor, todo: Sequence[Any], processes: int) -> Iterator[list[dict[str, Any]]]:
    """Results in order; no more than two batches a process are under way, so that an interruption loses little."""
    for group in batched(todo, 2 * processes):
        yield from pool.map(outcomes, *zip(*group, strict=True))


def seconds(pictures: int, out: Path) -> None:
    """CPU-seconds of one picture by every recipe, at batch 1, recipes in turns; and of one look of the scorer."""
    catalogue, recipes = shipped()
    workers = Workers(catalogue)
    taken: dict[str, list[float]] = {key: [] for key in (*recipes, SCORER)}
    prompts = [prompt for tier in TIERS for prompt in held_out_prompts(tier, -(-pictures // len(TIERS)), seed=42)]
    for seed, prompt in enumerate(tqdm(prompts[: pictures + 1], desc="seconds", unit="prompt")):
        made: Value | None = None
        for key, recipe in recipes.items():
            plan = plan_of(key, recipe, prompt.text, seed, catalogue)
            began = time.process_time()
            made = workers.perform([plan])[0]
            taken[key].append(time.process_time() - began)
            workers.forget()
        assert made is not None
        judged = Step("judged", "score", SCORER, ("made",), "scores", {"prompt": prompt.text})
        began = time.process_time()
        workers.engine(SCORER).run(judged, (made,))
        taken[SCORER].append(time.process_time() - began)
    # The first prompt pays for caches.
    found = {key: {"median": float(np.median(times[1:])), "all": times[1:]} for key, times in taken.items()}
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for key, one in found.items():
        print(f"{one['median']:.3f} CPU-s  {key}")


def batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """As `itertools.batched`, which Python 3.11 does not have yet."""
    left = iter(items)
    while batch := tuple(islice(left, size)):
        yield batch


def _done(out: Path) -> set[tuple[str, int, str]]:
    if not out.exists():
        return set()
    with out.open(newline="", encoding="utf-8") as file:
        return {(row["prompt"], int(row["seed"]), row["recipe"]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("train", "test"))
    parser.add_argument("--per-tier", type=int, default=60, help="prompts a tier")
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each prompt and recipe")
    parser.add_argument("--models", nargs="+", default=(), help="only recipes that need no other models")
    parser.add_argument("--processes", type=int, default=2, help="each runs on one thread")
    parser.add_argument("--seconds", type=int, metavar="PICTURES", help="measure what a picture costs instead")
    parser.add_argument("--out", type=Path, help="output file (default: beside this script)")
    args = parser.parse_args()
    if args.seconds:
        seconds(args.seconds, args.out or HERE / "seconds.json")
    elif args.split:
        out = args.out or HERE / f"outcomes_{args.split}.csv"
        run(args.split, args.per_tier, args.seeds, out, args.processes, args.models)
    else:
        parser.error("give --split or --seconds")
