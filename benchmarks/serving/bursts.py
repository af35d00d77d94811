"""Queue-aware against queue-blind routing on a bursty trace, in simulated time: who misses deadlines, at equal marks.

    python -m benchmarks.serving.bursts [--quick] [--requests 1500]

The real router, policies, step queues and predictor; the workers are scripted: each model has one, and a step takes
what the cost model expects, give or take a fifth. Requests come at random moments, in bursts of ten times what the
longest recipe could be made at, and calmer between; each prompt is one of the held-out ones of `embedded_outcomes`, and
each picture's mark is the one that this recipe really got there. A request must be answered within its deadline; one
that is refused counts as missed, too.

Aware: estimates have the work in the queues. Reroute: they do, and what waits is decided anew when the queues have
changed (`reroute: true`). Blind: the same policy, as if the queues were empty. The dial is what a
second is worth; since whoever spends less time misses less, misses are compared where the marks are equal.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.embedded_outcomes.run import shipped
from benchmarks.frontier.run import Outcomes, read
from benchmarks.serving.rig.figures import command, kept, pyplot, save, told
from deployments.known_names import known_of
from deployments.orchestration.budgets import Charge
from deployments.orchestration.metrics import Tally
from deployments.orchestration.rerouting import Rerouting, Waiting, reroutable
from deployments.orchestration.results import Admitted, OnEvent, StepBegun
from deployments.orchestration.runner import Batch
from deployments.orchestration.step_queues import StepQueues
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from policies import Policy, load_policy_text
from router.cost.model import CostModel
from router.cost.order import Claim
from router.cost.queues import Queues
from router.errors import TriptychError
from router.planning.execution import execute
from router.prompts.embedding import MiniLMEmbedder
from router.quality.predictor import QualityPredictor
from router.registry.artifact import load_artifact
from router.route import Route
from router.routing import Router
from router.types import GenerationRequest, Latents, Picture, Scores, Step, StepResult, Value
from tests.deployments.support.virtual_time import in_virtual_time

DIALS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.3, 2.0, 4.0)
"""What a second is worth in quality."""
BASE, REFINE = "{generate: {model: sdxl", "{refine: {model: sdxl-refiner"
RECIPES = {
    "sd15@8:scheduler=dpmsolver++": "draft: {generate: {model: sd15, steps: 8, scheduler: dpmsolver++}}",
    "sdxl-turbo": "turbo: {generate: {model: sdxl-turbo}}",
    "sdxl": "single: {generate: {model: sdxl}}",
    "sdxl-turbo>sdxl-refiner:strength=0.3": f"polished: {{chain: [turbo, {REFINE}, strength: 0.3}}}}]}}",
    "sdxl>sdxl-refiner:from=0.8": f"standard: {{chain: [{BASE}, until: 0.8}}}}, {REFINE}, from: 0.8}}}}]}}",
}
WAYS = ("aware", "reroute", "blind")
SLACK = 2.0  # a deadline is so many times what the longest recipe takes alone
CALM, BURST = 0.4, 10.0  # requests in the time of the longest recipe


@dataclass(frozen=True)
class Arrival:
    """A request. at_s: when it comes;   row: of its prompt among the outcomes;   seed: of the outcomes"""

    at_s: float
    row: int
    seed: int


class Scripted:
    """A worker with one replica: a step takes `seconds`, whatever it makes is empty."""

    def __init__(self, costs: CostModel, chance: random.Random) -> None:
        self._costs, self._chance, self._turn = costs, chance, asyncio.Lock()

    async def run(self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: Any = None) -> StepResult:
        seconds = self._costs.seconds(step) * self._chance.uniform(0.8, 1.2)
        async with self._turn:
            await asyncio.sleep(seconds)
        return StepResult(nothing(step), seconds)


class Blind(Queues):
    """Queues that look empty."""

    def reserve(self, plan: Any, n: int = 1) -> int:
        return 0


def nothing(step: Step) -> Value:
    """A value of the kind that a step makes."""
    if step.produces == "scores":
        return Scores((1.0,))
    if step.produces == "latents":
        return Latents(np.zeros((1, 1, 1), np.float32), "none", 1.0)
    return Picture(np.zeros((1, 1, 3), np.uint8))


def trace(count: int, longest_s: float, outcomes: Outcomes, chance: random.Random) -> list[Arrival]:
    """Calm and bursts in turns, each of a random length around twenty times the longest recipe."""
    found: list[Arrival] = []
    at_s, until_s, rate = 0.0, 0.0, 0.0
    rows, seeds = len(outcomes.prompts), outcomes.exact.shape[2]
    while len(found) < count:
        if at_s >= until_s:
            rate = (BURST if rate == CALM / longest_s else CALM) / longest_s
            until_s = at_s + chance.expovariate(1 / (20 * longest_s))
        at_s += chance.expovariate(rate)
        found.append(Arrival(at_s, chance.randrange(rows), chance.randrange(seeds)))
    return found


def policy_of(dial: float, catalogue: Any) -> Policy:
    """Quality less what its seconds are worth."""
    recipes = "\n".join(f"  {recipe}" for recipe in RECIPES.values())
    objective = f"objective: {{maximise: quality, weight: {{latency_s: {dial}}}}}"
    text = f"version: 1\nname: bursts\nrecipes:\n{recipes}\n{objective}\n"
    return load_policy_text(text, known=known_of(catalogue))


@dataclass(frozen=True)
class Answer:
    """What became of a request. mark: of the picture that was made, None if there is none in time"""

    recipe: str
    mark: float | None
    late: bool


class Simulation:
    """What all runs share."""

    def __init__(self, count: int) -> None:
        self.outcomes = read("test", list(RECIPES))
        self.catalogue, _ = shipped()
        settings = load_serve_config(DEFAULT_CONFIG).settings
        self.embedder = MiniLMEmbedder()
        self.predictor = QualityPredictor(load_artifact(settings.artifact_path), self.catalogue)
        self.names = {text.partition(":")[0]: key for key, text in RECIPES.items()}
        router = self.router(CostModel(self.catalogue), Queues)
        route = router.route(GenerationRequest("a red circle"), policy_of(0.1, self.catalogue))
        self.longest_s = max(estimate.latency_s for estimate in route.estimates.values())
        self.trace = trace(count, self.longest_s, self.outcomes, random.Random(3))
        self.deadline_s = SLACK * self.longest_s

    def router(self, costs: CostModel, kind: type[Queues]) -> Router:
        return Router(self.catalogue, self.embedder, self.predictor, kind(costs))

    def run(self, way: str, dial: float) -> list[Answer]:
        """The whole trace, decided with or without a look at the queues, once or as long as a request waits."""
        return in_virtual_time(self._run(Blind if way == "blind" else Queues, dial, way == "reroute"))

    async def _run(self, kind: type[Queues], dial: float, reroute: bool) -> list[Answer]:
        costs, chance, loop = CostModel(self.catalogue), random.Random(4), asyncio.get_running_loop()
        router, policy = self.router(costs, kind), replace(policy_of(dial, self.catalogue), reroute=reroute)
        workers = {model: Scripted(costs, chance) for model in self.catalogue.ids()}
        queues = StepQueues(
            workers, lambda model: 1, lambda step, batch: costs.seconds(step, batch=batch), clock=loop.time
        )

        async def aside(decide: Callable[..., Route | None], *given: Any) -> Route | None:
            return decide(*given)  # in simulated time nothing may happen elsewhere

        rerouting = Rerouting(router, asyncio.Lock(), dict, Tally(), loop.time, aside)

        async def ask(number: int, arrival: Arrival) -> Answer:
            await asyncio.sleep(arrival.at_s)
            prompt = self.outcomes.prompts[arrival.row]
            request = GenerationRequest(prompt, seed=arrival.seed, latency_budget_s=self.deadline_s)
            try:
                route = router.route(request, policy)
            except TriptychError:
                return Answer("refused", None, False)
            deadline = arrival.at_s + self.deadline_s
            ticket = router.queues.reserve(route.plan)
            waiting = Waiting(Admitted(policy, route, request, Charge(), ticket, self.deadline_s), arrival.at_s)

            async def start(now: Admitted, on_event: OnEvent | None) -> Batch:
                async def perform(step: Step, inputs: Sequence[Value]) -> StepResult:
                    if step.model is None:
                        return StepResult(nothing(step), 0.0)
                    claim = Claim(str(number), "", "standard", deadline, costs.seconds(step))
                    begun = None if on_event is None else functools.partial(on_event, StepBegun(0, step.id))
                    result = await queues.run(step, inputs, claim, on_sent=begun)
                    router.queues.release(ticket, step.id)
                    return result

                await execute(now.route.plan, perform)
                return Batch(())

            try:
                if reroutable(waiting.admitted):
                    await rerouting.follow(waiting, start, None)
                else:
                    await start(waiting.admitted, None)
            except TriptychError:
                return Answer(waiting.admitted.route.decision.recipe, None, True)
            finally:
                router.queues.release(ticket)
            name = waiting.admitted.route.decision.recipe
            at = self.outcomes.at(self.names[name])
            return Answer(name, float(self.outcomes.exact[arrival.row, at, arrival.seed]), False)

        return list(await asyncio.gather(*(ask(k, arrival) for k, arrival in enumerate(self.trace))))


def point(answers: Sequence[Answer]) -> dict[str, Any]:
    """Misses and marks of a run. marks: of the pictures that came in time"""
    marks = [answer.mark for answer in answers if answer.mark is not None]
    recipes = sorted({answer.recipe for answer in answers})
    return {
        "late": sum(answer.late for answer in answers) / len(answers),
        "refused": sum(answer.recipe == "refused" for answer in answers) / len(answers),
        "missed": 1.0 - len(marks) / len(answers),
        "marks": float(np.mean(marks)) if marks else 0.0,
        "recipes": {name: sum(answer.recipe == name for answer in answers) for name in recipes},
    }


def at_marks(points: Sequence[Mapping[str, Any]], marks: float) -> float | None:
    """Misses where the marks are these, along the dial: the fewest of the places where the curve crosses them."""
    found = []
    for one, two in itertools.pairwise(points):
        low, high = sorted((one, two), key=lambda p: p["marks"])
        if low["marks"] <= marks <= high["marks"]:
            share = (marks - low["marks"]) / max(high["marks"] - low["marks"], 1e-12)
            found.append(low["missed"] + share * (high["missed"] - low["missed"]))
    return min(found, default=None)


def compared(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Misses of all at marks that all reach."""
    spans = [(min(p["marks"] for p in curve), max(p["marks"] for p in curve)) for curve in curves.values()]
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    found = []
    for marks in np.linspace(low, high, 7) if high > low else ():
        missed = {name: at_marks(curve, float(marks)) for name, curve in curves.items()}
        if all(one is not None for one in missed.values()):
            ratio = missed["aware"] / missed["blind"] if missed["blind"] else None
            again = missed["reroute"] / missed["aware"] if missed["aware"] else None
            found.append({"marks": float(marks), **missed, "ratio": ratio, "reroute_of_aware": again})
    return found


def plot(curves: Mapping[str, Sequence[Mapping[str, Any]]], file: Any) -> None:
    """Marks across, misses up, along the dial."""
    figure, axes = pyplot().subplots(figsize=(5, 3.4), layout="constrained")
    for name, curve in curves.items():
        axes.plot([p["marks"] for p in curve], [100 * p["missed"] for p in curve], marker="o", ms=3, label=name)
    axes.set(xlabel="marks of the pictures in time", ylabel="% not answered in time")
    axes.legend(frameon=False)
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--requests", type=int, default=1500, help="of the trace")
    chosen = made.parse_args(argv)
    count, dials = (60, DIALS[::4]) if chosen.quick else (chosen.requests, DIALS)
    with kept(made, chosen, "bursts") as out:
        simulation = Simulation(count)
        told("trace", requests=count, seconds=simulation.trace[-1].at_s, deadline_s=simulation.deadline_s)
        curves: dict[str, list[dict[str, Any]]] = {}
        for name in WAYS:
            curves[name] = [{"dial": dial, **point(simulation.run(name, dial))} for dial in dials]
            for found in curves[name]:
                told(f"{name}, {found['dial']:g}/s", **{key: found[key] for key in ("missed", "refused", "marks")})
        equal = compared(curves)
        out.keep({"deadline_s": simulation.deadline_s, "curves": curves, "at_equal_marks": equal})
        plot(curves, out.picture())
    for row in equal:
        told("at equal marks", **{key: value for key, value in row.items() if value is not None})


if __name__ == "__main__":
    main()
