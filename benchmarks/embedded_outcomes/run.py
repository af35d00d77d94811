"""Runs recipes of the presets over prompts of the captioned world and stores the checker's marks and measured seconds.

    python -m benchmarks.embedded_outcomes.run --split train       # 120 prompts a tier, 2 seeds
    python -m benchmarks.embedded_outcomes.run --split test        # 200 prompts a tier, 4 seeds
    python -m benchmarks.embedded_outcomes.run --seconds 30
    python -m benchmarks.embedded_outcomes.run --quick             # a little of the last two

The prompts of the two splits are different draws. `test` is phrased in ways that no image model was trained on;
`train`, from which the router learns, half so and half in the phrasings of their training.

First the pictures are drawn, in batches, into `.cache/outcomes`; then all of them are judged: `outcomes_<split>.csv`
has one row for each prompt, recipe and seed, with the exact and partial mark and the verifier's score. Drawing goes on
after an interruption; a step that several recipes share is run once; a fusion is made of the pictures of its branches.
Rows of recipes whose weights and settings, and whose verifier, are those that they were drawn with (`drawn.json`) stay
as they are, so that a run after one model has been trained draws that model's recipes only; `--all` draws every
recipe.

What a recipe costs does not depend on the prompt, and in batches it could not be measured: `--seconds` runs every
recipe one picture at a time, in turns, and writes `seconds.json`. Runs of other sizes leave the committed tables alone.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from benchmarks.command import parser, results
from benchmarks.embedded_outcomes.digests import digests, known, made_of, note
from deployments.assembly import catalogue_of, guests_of
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from models.catalogue import Catalogue
from models.embedded.captions import caption
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts
from models.embedded.world import TIERS, TRAIN_PAIRS, sample_scene
from models.engine.engine import Engine, load_engine
from models.fusion.kinds import Pixels, run_step
from policies.checking.load import load_policy
from router.planning.checks import BLENDS
from router.planning.plan import make_plan
from router.planning.recipes import models_of, recipe_key, resolve
from router.types import Fuse, Generate, GenerationRequest, Picture, Plan, Recipe, Scores, Step, StepResult, Value

HERE = Path(__file__).resolve().parent
COLUMNS = ("tier", "prompt", "recipe", "seed", "exact", "partial", "score")
PRESETS = ("fast", "balanced", "best", "frugal")
SCORER = "alignment"
BATCH = 20
CACHE = Path(".cache/outcomes")
FULL = {"train": (120, 2), "test": (200, 4)}
"""Of the committed tables: prompts a tier, and pictures of each prompt and recipe."""
FULL_SECONDS = 30


class Workers:
    """Engines in this process, loaded when first asked for; equal steps of one batch are run once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._engines: dict[str, Engine] = {}
        self._results: dict[str, list[StepResult]] = {}

    def forget(self) -> None:
        """Drop the results, at the end of a batch."""
        self._results.clear()

    def remember(self, plans: Sequence[Plan], pixels: Sequence[Pixels]) -> None:
        """Take pictures that were drawn before as those of these one-step plans: a chain goes on from them."""
        (step,) = plans[0].steps
        self._results[_name(step, [])] = [StepResult(Picture(one), 0.0) for one in pixels]

    def perform(self, plans: Sequence[Plan]) -> list[Value]:
        """The outputs of plans of one recipe, for different prompts and seeds."""
        names: dict[str, str] = {}
        for place, step in enumerate(plans[0].steps):
            sources = [names[source] for source in step.inputs]
            name = _name(step, sources)
            if name not in self._results:
                inputs = [tuple(self._results[source][k].value for source in sources) for k in range(len(plans))]
                self._results[name] = self._run([plan.steps[place] for plan in plans], inputs)
            names[step.id] = name
        return [result.value for result in self._results[names[plans[0].output]]]

    def _run(self, steps: Sequence[Step], inputs: Sequence[tuple[Value, ...]]) -> list[StepResult]:
        model = steps[0].model
        if model is None:
            return [run_step(step, values) for step, values in zip(steps, inputs, strict=True)]
        made = self.engine(model).run_batch(steps, inputs)
        for result in made:
            if not isinstance(result, StepResult):
                raise result
        return [result for result in made if isinstance(result, StepResult)]

    def engine(self, model: str) -> Engine:
        """The engine of a model, one thread."""
        if model not in self._engines:
            self._engines[model] = load_engine(
                self.catalogue[model], device="cpu", threads=1, guests=guests_of(model, self.catalogue)
            )
            self._engines[model].warm_up()
        return self._engines[model]


def _name(step: Step, sources: Sequence[str]) -> str:
    """The same for equal steps on equal inputs, whatever their plans call them."""
    return json.dumps([step.kind, step.model, dict(step.settings), list(sources)], sort_keys=True)


def candidate_recipes(catalogue: Catalogue, presets: Sequence[Path]) -> dict[str, Recipe]:
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


def shipped() -> tuple[Catalogue, dict[str, Recipe]]:
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


Pair = tuple[str, Prompt, int]
"""Tier, prompt, seed."""


def draw(pairs: Sequence[Pair], recipes: Mapping[str, Recipe], folder: Path) -> None:
    """Pictures of one batch by recipes without fusion, those that are not there yet. Runs in a worker process."""
    workers = _workers()
    for key, recipe in recipes.items():
        plans = [plan_of(key, recipe, prompt.text, seed, workers.catalogue) for _, prompt, seed in pairs]
        if (file := picture_file(folder, key, recipe, pairs)).exists():
            if isinstance(recipe, Generate):
                workers.remember(plans, list(load_file(file)["pixels"]))
            continue
        pixels = [value.pixels for value in workers.perform(plans) if isinstance(value, Picture)]
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"pixels": np.ascontiguousarray(np.stack(pixels))}, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    workers.forget()


def picture_file(folder: Path, key: str, recipe: Recipe, pairs: Sequence[Pair]) -> Path:
    """Where the pictures of a batch by a recipe are: a name that changes with prompts, seeds, settings and weights."""
    asked = [(prompt.text, seed) for _, prompt, seed in pairs]
    body = json.dumps([key, made_of(recipe, _workers().catalogue), asked], sort_keys=True)
    return folder / f"{hashlib.sha256(body.encode()).hexdigest()[:24]}.safetensors"


def drawn_before(
    folder: Path, recipes: Mapping[str, Recipe], quick: bool
) -> Iterator[tuple[Sequence[Pair], dict[str, Path]]]:
    """Each batch of the test split with the files of its pictures by recipe, drawn by this script; with `quick`, one
    batch of a prompt a tier, drawn here."""
    for batch in batched(pairs_of("test", *((1, 1) if quick else FULL["test"])), BATCH):
        if quick:
            draw(batch, recipes, folder)
        files = {key: picture_file(folder, key, recipe, batch) for key, recipe in recipes.items()}
        if missing := [key for key, file in files.items() if not file.is_file()]:
            raise SystemExit(
                f"{folder} lacks pictures of {', '.join(missing)} with the present weights. Draw them first, "
                "which takes hours: python -m benchmarks.embedded_outcomes.run --split test\n"
                "(or name a folder that has them with --outcomes, or only see that this runs with --quick)"
            )
        yield batch, files


def score_model(
    pairs: Sequence[Pair], recipes: Mapping[str, Recipe], folder: Path, asked: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Rows of one batch, a recipe each, of those `asked` for (default: all). Runs in a worker process.

    recipes: with the branches of all fusions among them
    """
    pictures: dict[str, list[Pixels]] = {}
    for key, recipe in recipes.items():
        if not isinstance(recipe, Fuse):
            pictures[key] = list(load_file(picture_file(folder, key, recipe, pairs))["pixels"])
    scores = {key: _scores(pairs, drawn) for key, drawn in pictures.items()}
    for key, recipe in recipes.items():
        if isinstance(recipe, Fuse):
            pictures[key], scores[key] = _fused(pairs, recipe, pictures, scores)
    rows: list[dict[str, Any]] = []
    for k, (tier, prompt, seed) in enumerate(pairs):
        for key in recipes if asked is None else asked:
            mark = check(pictures[key][k], prompt.scene)
            rows.append(
                {"tier": tier, "prompt": prompt.text, "recipe": key, "seed": seed, "exact": int(mark.exact)}
                | {"partial": round(mark.partial, 4), "score": round(scores[key][k], 4)}
            )
    return rows


def _scores(pairs: Sequence[Pair], pictures: Sequence[Pixels]) -> list[float]:
    engine = _workers().engine(SCORER)
    found = []
    for (_, prompt, _), pixels in zip(pairs, pictures, strict=True):
        step = Step("judged", "score", SCORER, ("made",), "scores", {"prompt": prompt.text})
        value = engine.run(step, (Picture(pixels),)).value
        assert isinstance(value, Scores)
        found.append(value.values[0])
    return found


def _fused(
    pairs: Sequence[Pair], recipe: Fuse, pictures: Mapping[str, list[Pixels]], scores: Mapping[str, list[float]]
) -> tuple[list[Pixels], list[float]]:
    """A fusion of pictures that are there, and the score of each."""
    names = [recipe_key(branch, {}, _workers().catalogue) for branch in recipe.branches if not isinstance(branch, str)]
    settings = {"method": recipe.method, "weights": recipe.weights, "blend_within": recipe.blend_within}
    step = Step("fused", "blend" if recipe.method in BLENDS else "select", None, (), "image", settings)
    made = []
    for k in range(len(pairs)):
        given = [Picture(pictures[name][k]) for name in names]
        value = run_step(step, [*given, Scores(tuple(scores[name][k] for name in names))]).value
        assert isinstance(value, Picture)
        made.append(value.pixels)
    return made, _scores(pairs, made)


def plan_of(key: str, recipe: Recipe, prompt: str, seed: int, catalogue: Catalogue) -> Plan:
    """The plan of one picture."""
    return make_plan(key, recipe, GenerationRequest(prompt, seed=seed), catalogue, {})


_shared: list[Workers] = []


def _workers() -> Workers:
    if not _shared:
        _shared.append(Workers(shipped()[0]))
    return _shared[0]


def pairs_of(split: str, per_tier: int, seeds: int) -> list[Pair]:
    """All that is drawn of a split. Tiers take turns: an interrupted run is a smaller study, not a lopsided one."""
    by_tier = {tier: prompts_of(split, tier, per_tier) for tier in TIERS}
    ranks = range(max(map(len, by_tier.values())))
    return [(t, by_tier[t][k], seed) for k in ranks for t in TIERS if k < len(by_tier[t]) for seed in range(seeds)]


def run(
    split: str,
    per_tier: int,
    seeds: int,
    out: Path,
    cache: Path,
    processes: int = 2,
    draw_only: bool = False,
    most: int | None = None,
    without: str = "",
    keep: Path | None = None,
    only: Collection[str] = (),
) -> None:
    """Draw what is missing and judge it, or, with `draw_only`, leave it in the cache.

    processes: each on one thread; 0: in this process; most: only the first so many prompts and seeds
    without: a model whose recipes are left out
    keep: a table of the same prompts and seeds, whose rows are taken over where they are not stale
    only: keys of recipes that may be renewed (none: all); the others keep what rows they have, stale or not
    """
    catalogue, recipes = shipped()
    recipes = {key: recipe for key, recipe in recipes.items() if without not in models_of(recipe)}
    pairs = pairs_of(split, per_tier, seeds)[:most]
    now = digests(recipes, catalogue, beside=[SCORER], of=[split, per_tier, seeds, most])
    before = known(keep) if keep is not None else {}
    stale = [key for key in recipes if before.get(key) != now[key] and (not only or key in only)]
    print(f"{split}: to draw and judge: {', '.join(stale) or 'nothing'}", flush=True)
    wanted = with_branches({key: recipes[key] for key in stale}, recipes, catalogue)
    batches = list(batched(pairs, BATCH)) if stale else []
    drawn = {key: recipe for key, recipe in wanted.items() if not isinstance(recipe, Fuse)}
    folder = cache / split
    pool: Any = ProcessPoolExecutor(processes, mp_context=get_context("spawn")) if processes else nullcontext()
    with pool:
        for _ in tqdm(_in_turn(pool, draw, batches, drawn, folder, processes), total=len(batches), desc="draw"):
            pass
        if draw_only:
            return
        found = _in_turn(pool, score_model, batches, wanted, folder, processes, stale)
        rows = [row for some in tqdm(found, total=len(batches), desc="judge") for row in some]
    cells = {(row["prompt"], row["recipe"], int(row["seed"])): row for row in rows}
    if keep is not None and keep.exists() and len(stale) < len(recipes):
        with keep.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if row["recipe"] in recipes and row["recipe"] not in stale]
        cells |= {(row["prompt"], row["recipe"], int(row["seed"])): row for row in kept}
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        asked = ((prompt.text, key, seed) for _, prompt, seed in pairs for key in recipes)
        writer.writerows(cells[cell] for cell in asked if cell in cells)
    note(out, {key: now[key] if key in stale else before[key] for key in recipes if key in stale or key in before})


def with_branches(some: Mapping[str, Recipe], recipes: Mapping[str, Recipe], catalogue: Catalogue) -> dict[str, Recipe]:
    """`some` of the recipes and the branches of their fusions, in the order of `recipes`, which must have them."""
    needed = set(some)
    for recipe in some.values():
        if isinstance(recipe, Fuse):
            needed |= {recipe_key(part, {}, catalogue) for part in recipe.branches if not isinstance(part, str)}
    return {key: recipe for key, recipe in recipes.items() if key in needed}


def _in_turn(
    pool: Any,
    work: Callable[..., Any],
    batches: Sequence[Any],
    recipes: Mapping[str, Recipe],
    folder: Path,
    processes: int,
    *more: Any,
) -> Iterator[Any]:
    """Results in order; no more than two batches a process are under way, so that an interruption loses little."""
    if not processes:
        yield from (work(batch, recipes, folder, *more) for batch in batches)
        return
    for group in batched(batches, 2 * processes):
        yield from pool.map(work, group, *([one] * len(group) for one in (recipes, folder, *more)))


def seconds(pictures: int, out: Path, without: str = "") -> None:
    """CPU-seconds of one picture by every recipe (`without` a model), at batch 1, recipes in turns; and of one look of
    the scorer."""
    catalogue, recipes = shipped()
    recipes = {key: recipe for key, recipe in recipes.items() if without not in models_of(recipe)}
    workers = _workers()
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


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--split", choices=tuple(FULL))
    made.add_argument("--per-tier", type=int, help="prompts a tier (default: as in the committed table)")
    made.add_argument("--seeds", type=int, help="pictures of each prompt and recipe (default: likewise)")
    made.add_argument("--all", action="store_true", help="draw every recipe, also those whose weights are the same")
    made.add_argument("--recipes", nargs="+", default=(), metavar="KEY", help="renew no others than these")
    made.add_argument("--draw", action="store_true", help="only draw what is not in the cache, and judge nothing")
    made.add_argument("--processes", type=int, default=2, help="each runs on one thread")
    made.add_argument("--seconds", type=int, metavar="PICTURES", help="measure what a picture costs instead")
    chosen = made.parse_args(argv)
    if chosen.quick:
        with results(chosen, HERE, full=False) as out:
            table = out / "outcomes_test.csv"
            for _ in range(2):  # the second time, everything is there
                run("test", 1, 1, table, out / "cache", processes=0, most=2, without="flux", keep=table)
            seconds(1, out / "seconds.json", without="flux")
    elif chosen.seconds:
        with results(chosen, HERE, chosen.seconds == FULL_SECONDS) as out:
            seconds(chosen.seconds, out / "seconds.json")
    elif chosen.split:
        usual = FULL[chosen.split]
        per_tier, seeds = chosen.per_tier or usual[0], chosen.seeds or usual[1]
        with results(chosen, HERE, (per_tier, seeds) == usual) as out:
            table = out / f"outcomes_{chosen.split}.csv"
            whole = HERE / table.name if (per_tier, seeds) == usual and not chosen.all else None
            if unknown := set(chosen.recipes) - set(shipped()[1]):
                made.error(f"--recipes: no {', '.join(sorted(unknown))}; there are {', '.join(shipped()[1])}")
            how = (chosen.processes, chosen.draw)
            run(chosen.split, per_tier, seeds, table, CACHE, *how, keep=whole, only=chosen.recipes)
    else:
        made.error("give --split, --seconds or --quick")


if __name__ == "__main__":
    main()
