"""The presets as they are served, on the stored outcomes of the embedded family: the real orchestrator with the shipped
policies, router and verifier, whose workers hand out pictures that were drawn and marked before."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from deployments.assembly import build_orchestrator, catalogue_of
from deployments.known_names import known_of
from deployments.settings import DEFAULT_CONFIG, ROOT, load_serve_config
from deployments.workers.worker import OnProgress, WorkerStatus
from policies import load_policy
from router.planning.edits import takes
from router.planning.recipes import recipe_key
from router.types import GenerationRequest, Latents, Picture, Scores, Step, StepResult, Value

pytestmark = pytest.mark.shipped_weights

OUTCOMES = ROOT / "benchmarks" / "embedded_outcomes"
PRESETS = ("fast", "frugal", "balanced", "best")
"""Not `product-photo`: its recipes enlarge, and their pictures were never marked."""


@dataclass
class Drawn:
    """Workers that hand out stored pictures: a picture is known by its number, in its first three bytes. The n-th seed
    that is asked of a recipe and a prompt gets the n-th picture that is stored of them."""

    cells: Mapping[tuple[str, str], Sequence[tuple[float, float]]]
    seconds: Mapping[str, float]
    start: int = 0
    seen: dict[tuple[str, str], dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    pictures: list[tuple[str, str, int]] = field(default_factory=list)

    def at(self, prompt: str, recipe: str, seed: int) -> tuple[float, float]:
        """(exact mark, score)"""
        order = self.seen[prompt, recipe]
        stored = self.cells[prompt, recipe]
        return stored[(self.start + order.setdefault(seed, len(order))) % len(stored)]

    def of(self, picture: Picture) -> tuple[str, str, int]:
        """(prompt, recipe, seed)"""
        low, middle, high = (int(byte) for byte in picture.pixels[0, 0])
        return self.pictures[low + 256 * middle + 65536 * high]

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """A stored picture, its number as latents, or its score."""
        if step.kind == "score":
            found = [self.at(*self.of(value))[1] for value in inputs if isinstance(value, Picture)]
            return StepResult(Scores(tuple(found)), self.seconds["alignment"] * len(inputs))
        settings, part = step.settings, 1.0
        if step.kind == "generate":
            recipe, before = str(step.model), 0.0
            if settings.get("scheduler") == "dpmsolver++" and settings["steps"] == 8:
                recipe = "sd15@8:scheduler=dpmsolver++"
            part = float(settings.get("until", 1.0))
        else:
            (value,) = inputs
            number = int(value.data.flat[0]) if isinstance(value, Latents) else None
            base = self.pictures[number][1] if number is not None else self.of(value)[1]  # type: ignore[arg-type]
            how = f"strength={settings['strength']:g}" if "strength" in settings else f"from={settings['from']:g}"
            recipe, before = f"{base}>{step.model}:{how}", self.seconds[base] * float(settings.get("from", 1.0))
        self.pictures.append((str(settings["prompt"]), recipe, int(settings["seed"])))
        number, took_s = len(self.pictures) - 1, part * self.seconds[recipe] - before
        if step.produces == "latents":
            return StepResult(Latents(np.full((4, 16, 16), number, np.float32), "embedded-vae4", part), took_s)
        pixels = np.empty((64, 64, 3), np.uint8)
        pixels[:] = number % 256, number // 256 % 256, number // 65536
        return StepResult(Picture(pixels), took_s)

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        """Everything is ready."""
        return {}


@dataclass(frozen=True)
class Served:
    """What a preset delivered: exact marks and seconds of all steps (looks and further tries included), (requests,)."""

    marks: np.ndarray
    seconds: np.ndarray


def stored() -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(exact mark, score) of every picture of a prompt and a recipe, by seed."""
    cells: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with (OUTCOMES / "outcomes_test.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells[row["prompt"], row["recipe"]].append((float(row["exact"]), float(row["score"])))
    return dict(cells)


async def serve(every: int) -> dict[str, Served]:
    """Each preset on every so many prompts of the table."""
    settings = load_serve_config(DEFAULT_CONFIG).settings
    settings = settings.model_copy(update={"feedback": settings.feedback.model_copy(update={"log": False})})
    cells = stored()
    seconds = {key: one["median"] for key, one in json.loads((OUTCOMES / "seconds.json").read_text()).items()}
    workers = Drawn(cells, seconds)
    orchestrator = build_orchestrator(settings, dict.fromkeys(settings.models, workers), workers)
    prompts = list(dict.fromkeys(prompt for prompt, _ in cells))[::every]
    served: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        for preset in PRESETS:
            workers.seen.clear()
            workers.start = number
            policy = orchestrator.policies.get(preset)
            outcome = await orchestrator.generate(GenerationRequest(prompt, target=preset, seed=number))
            (made,) = outcome.made
            key = recipe_key(policy.recipes[made.recipe], policy.recipes, orchestrator.catalogue)
            if "best_of(" in key:
                _, key, _ = workers.of(made.picture)
            traces = [trace for check in made.checks for trace in check.traces] or made.traces
            served[preset].append((workers.at(prompt, key, made.seed)[0], sum(trace.seconds for trace in traces)))
    return {preset: Served(*np.array(rows).T) for preset, rows in served.items()}


@pytest.fixture(scope="module")
def served() -> dict[str, Served]:
    """Of half the prompts: of fewer, one picture decides."""
    return asyncio.run(serve(2))


def test_more_effort_draws_better_and_costs_more(served: dict[str, Served]) -> None:
    """In marks, `best` is not below `balanced`, nor `balanced` below `fast`; in seconds it is the other way round."""
    fast, balanced, best = served["fast"], served["balanced"], served["best"]
    assert fast.marks.mean() < balanced.marks.mean() <= best.marks.mean()
    assert fast.seconds.mean() < balanced.seconds.mean() <= best.seconds.mean()


def test_no_preset_is_dearer_than_balanced_and_worse(served: dict[str, Served]) -> None:
    """Whoever leaves `balanced` for another preset gets better pictures or cheaper ones."""
    balanced = served["balanced"]
    for preset, one in served.items():
        better, cheaper = one.marks.mean() >= balanced.marks.mean(), one.seconds.mean() <= balanced.seconds.mean()
        assert better or cheaper, preset


def test_the_example_that_traces_loads_with_the_embedded_models() -> None:
    """`policies/examples/traced.yaml` can be put among the presets: its recipes take a picture and follow its edges."""
    settings = load_serve_config(DEFAULT_CONFIG).settings
    policy = load_policy(ROOT / "policies" / "examples" / "traced.yaml", known=known_of(catalogue_of(settings)))
    assert takes(policy.recipes, catalogue_of(settings))["traced"] == ("image",)
