"""Learning from use, replayed on measured outcomes: does what wins off-policy win in truth?

    python -m benchmarks.learning_from_use.run [--quick]

The incumbent is trained on 40 prompts only. Then `balanced` serves 300 prompts four times each, with exploration; the
exact mark of the picture that was really made (benchmarks/embedded_outcomes) is the rating. Since every recipe was run
on every prompt, the truth is known: what the policy earns with each predictor, on the prompts of the log (beside the
off-policy estimates) and on 500 others. Writes `results.json`, one entry for each rate of exploration and seed; what is
in it is not run again. `--quick` lives one short life.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.train_router import HERE as OUTCOMES
from benchmarks.embedded_outcomes.train_router import ratings, read
from deployments.assembly import catalogue_of
from deployments.known_names import known_of
from deployments.offline.replay import chances, worth
from deployments.offline.retraining import retrain
from deployments.orchestration.recorder import record_of
from deployments.orchestration.results import Made, Outcome
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from deployments.store.decision_log import DecisionLog
from models.catalogue import Catalogue
from policies import PRESETS, Policy, load_policy_text
from router.cost.model import CostModel
from router.cost.queues import Queues
from router.learning.training import train
from router.planning.recipes import recipe_key
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.routing import Router
from router.types import Context, GenerationRequest, Picture

HERE = Path(__file__).resolve().parent
RATES = (0.02, 0.1, 0.3)
SEEDS = (0, 1)
TRAINED_ON, TIMES = 40, 4
LOGGED, UNSEEN = 300, 500  # prompts
EMBEDDER = MiniLMEmbedder()

Marks = Mapping[tuple[str, str], Sequence[float]]


def router_on(folder: Path, catalogue: Catalogue) -> Router:
    predictor = QualityPredictor(load_artifact(folder), catalogue)
    return Router(catalogue, EMBEDDER, predictor, Queues(CostModel(catalogue)))


def truth(router: Router, policy: Policy, prompts: Sequence[str], marks: Marks, catalogue: Catalogue) -> float:
    """What a decision of the policy earns on average, chance included, from the marks of all its recipes."""
    earned = []
    for prompt in prompts:
        route = router.route(GenerationRequest(prompt), policy)
        options = {ranked.recipe: route.estimates[ranked.recipe] for ranked in route.decision.ranking}
        for name, probability in chances(policy, route.decision.rules, options).items():
            mark = float(np.mean(marks[prompt, recipe_key(policy.recipes[name], policy.recipes, catalogue)]))
            one = options[name]
            earned.append(probability * worth(policy, route.decision.rules, mark, one.cost_usd, one.latency_s))
    return sum(earned) / len(prompts)


def served(
    router: Router,
    policy: Policy,
    prompts: Sequence[str],
    marks: Marks,
    catalogue: Catalogue,
    log: DecisionLog,
    seed: int,
) -> None:
    """Serve every prompt `TIMES` times and rate each picture by the mark of that seed."""
    rng = random.Random(seed)
    for time in range(TIMES):
        for number, prompt in enumerate(prompts):
            request = GenerationRequest(prompt, id=f"{time}-{number}")
            route = router.route(request, policy, Context(draw=rng.random()))
            made = Made(Picture(np.zeros((1, 1, 3), np.uint8)), time, "", (), route.decision.recipe)
            took = route.estimates[route.decision.recipe]
            outcome = Outcome(route, (made,), took.latency_s, took.cost_usd)
            record = record_of(outcome, policy.recipes, router.predictor, catalogue)
            log.record(record)
            log.attach(request.id, "rating", marks[prompt, record.keys[record.recipe]][time])


def measured(rate: float, seed: int, folder: Path, served_on: int = LOGGED, judged_on: int = UNSEEN) -> dict[str, Any]:
    """One life: train, serve, retrain, and the truth beside what was estimated."""
    catalogue = catalogue_of(load_serve_config(DEFAULT_CONFIG).settings)
    text = (PRESETS / "balanced.yaml").read_text(encoding="utf-8") + f"\nexplore: {{rate: {rate}}}\n"
    policy = load_policy_text(text, "balanced.yaml", known=known_of(catalogue))
    few, marks = read(OUTCOMES / "outcomes_train.csv"), read(OUTCOMES / "outcomes_test.csv")
    rng = random.Random(seed)
    known = set(rng.sample(sorted({prompt for prompt, _ in few}), TRAINED_ON))
    prompts = sorted({prompt for prompt, _ in marks})
    rng.shuffle(prompts)
    logged, unseen = prompts[:served_on], prompts[served_on : served_on + judged_on]
    incumbent = folder / "incumbent"
    rows = [rating for rating in ratings(few) if rating.prompt in known]
    train(rows, incumbent, "incumbent", "embedded outcomes", "Apache-2.0", EMBEDDER)
    before, log = router_on(incumbent, catalogue), DecisionLog(folder / "log.sqlite")
    served(before, policy, logged, marks, catalogue, log, seed)
    done = retrain(log, "rating", incumbent, policy, catalogue, folder / "candidate", seed)
    routers = {"before": before, "after": router_on(folder / "candidate" if done.swapped else incumbent, catalogue)}
    found = {
        name: {stage: truth(router, policy, part, marks, catalogue) for stage, router in routers.items()}
        for name, part in (("logged", logged), ("unseen", unseen))
    }
    return {"rate": rate, "seed": seed, "swapped": done.swapped, "why": done.why, "truth": found,
            "comparison": asdict(done.comparison)}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    chosen = made.parse_args(argv)
    with results(chosen, HERE, is_full(made, chosen)) as out:
        if chosen.quick:
            lives(out / "results.json", RATES[-1:], SEEDS[:1], 40, 20)
        else:
            lives(out / "results.json", RATES, SEEDS, LOGGED, UNSEEN)


def lives(file: Path, rates: Sequence[float], seeds: Sequence[int], served_on: int, judged_on: int) -> None:
    """Every life that is not in the file yet, added to it."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    done = {(entry["rate"], entry["seed"]) for entry in found}
    for rate in rates:
        for seed in (seed for seed in seeds if (rate, seed) not in done):
            with tempfile.TemporaryDirectory() as folder:
                found.append(measured(rate, seed, Path(folder), served_on, judged_on))
            print(json.dumps({k: v for k, v in found[-1].items() if k != "comparison"}), flush=True)
            file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
