"""Pictures a second when 1, 2, 4 or 8 are made in one call of the model, and how far they are from those made alone.

    OMP_NUM_THREADS=1 python -m benchmarks.batching [--quick] [--rounds 12]

Everything runs on the worker that serves, in this process, on one CPU thread. In a round each size makes the same eight
pictures, in calls of that size, and the sizes take turns, so that whatever else the machine does hits all alike.
Printed and stored (batching.json, batching.svg): medians over rounds, the ratio to size 1 with a 95 % bootstrap
interval over rounds, the largest difference of a pixel from the same picture made alone (of 255) and the share of
pictures without any. `served`: the same pictures asked for at once, many times over, through the queues that serve,
which learn the size; with what they came to. `--quick` makes two pictures of one model.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from deployments.assembly import catalogue_of, engine_loader
from deployments.orchestration.step_queues import StepQueues
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from deployments.workers.worker import ModelWorker
from router.cost.batches import BatchSizes
from router.cost.model import CostModel
from router.cost.order import Claim
from router.learning.intervals import resampled
from router.types import Catalogue, ModelCard, Picture, Scalar, Step, StepResult

RESULTS = Path(__file__).resolve().parent / "results"
MODELS = ("sdxl-turbo", "sd15", "sdxl", "flux")
SIZES = (1, 2, 4, 8)
PICTURES = max(SIZES)
SERVED = 12  # times the pictures, asked for at once
FAR_S = 1e6
PROMPTS = (
    "a red circle above a blue square",
    "two green stars",
    "a large yellow ring",
    "a small blue triangle left of a red star",
    "three red circles",
    "a green square",
    "a striped blue ring",
    "a yellow star below a green circle",
)


def steps(card: ModelCard, count: int) -> list[Step]:
    """One step for each picture by the card's settings, different in prompt and seed only."""
    width, height = card.native_size
    same: dict[str, Scalar] = {"width": width, "height": height, "steps": card.steps, "scheduler": card.scheduler}
    same["guidance_scale"] = card.guidance_scale
    settings = [{**same, "prompt": PROMPTS[k % len(PROMPTS)], "seed": k} for k in range(count)]
    return [Step(f"picture {k}", "generate", card.id, (), "image", chosen) for k, chosen in enumerate(settings)]


async def made(worker: ModelWorker, asked: Sequence[Step], size: int) -> list[NDArray[np.int16]]:
    """The pixels of all pictures, in calls of `size`."""
    found: list[NDArray[np.int16]] = []
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        some = await worker.run_batch(part, [()] * len(part), FAR_S)
        for result in some:
            assert isinstance(result, StepResult) and isinstance(result.value, Picture), result
            found.append(result.value.pixels.astype(np.int16))
    return found


async def compare(
    worker: ModelWorker, card: ModelCard, rounds: int, sizes: Sequence[int], pictures: int
) -> dict[str, Any]:
    """Seconds of every round by size, and how far the pictures are from those made alone."""
    asked = steps(card, pictures)
    alone = await made(worker, asked, 1)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    apart: dict[int, list[int]] = {}
    for number in tqdm(range(rounds), desc=card.id):
        for turn in range(len(sizes)):
            size = sizes[(turn + number) % len(sizes)]
            begun = time.perf_counter()
            pixels = await made(worker, asked, size)
            seconds[size].append(time.perf_counter() - begun)
            apart[size] = [int(np.abs(one - other).max()) for one, other in zip(pixels, alone, strict=True)]
    return {"sizes": {str(size): _row(seconds, apart, size, pictures) for size in sizes}, "seconds": seconds}


def _row(seconds: dict[int, list[float]], apart: dict[int, list[int]], size: int, pictures: int) -> dict[str, Any]:
    alone, own = np.array(seconds[1]), np.array(seconds[size])

    def ratio(rounds: NDArray[np.int64]) -> float:
        return float(np.median(alone[rounds]) / np.median(own[rounds]))

    return {
        "pictures_per_s": round(pictures / float(np.median(own)), 3),
        "times_size_1": round(ratio(np.arange(len(own))), 3),
        "times_size_1_95": np.round(resampled(len(own), ratio, resamples=2_000), 3).tolist(),
        "largest_difference": max(apart[size]),
        "share_without_any": round(float(np.mean(np.array(apart[size]) == 0)), 3),
    }


async def serve(
    worker: ModelWorker, catalogue: Catalogue, model: str, times: int, pictures: int, most: int
) -> dict[str, Any]:
    """All pictures asked for at once through the queues that serve; the second time they know what pays."""
    costs = CostModel(catalogue)
    sizes = BatchSizes(costs, lambda _: most)
    queues = StepQueues({model: worker}, lambda _: 1, lambda step, batch: costs.seconds(step, batch=batch), sizes=sizes)

    async def one(step: Step, job: int) -> None:
        claim = Claim(str(job), "", "standard", time.monotonic() + FAR_S, costs.seconds(step))
        result = await queues.run(step, (), claim)
        costs.observe(step, result.seconds, batch=int(result.facts.get("batch") or 1))

    asked = steps(catalogue[model], times * pictures)
    for _ in range(2):
        begun = time.perf_counter()
        await asyncio.gather(*(one(step, k) for k, step in enumerate(asked)))
        took = time.perf_counter() - begun
    return {"pictures_per_s": round(len(asked) / took, 3), "size": sizes.best(asked[0])}


def draw(models: dict[str, Any], file: Path) -> None:
    """Pictures a second, as multiples of size 1, by size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for model, row in models.items():
        sizes = [int(size) for size in row["sizes"]]
        times = [one["times_size_1"] for one in row["sizes"].values()]
        low, high = zip(*(one["times_size_1_95"] for one in row["sizes"].values()), strict=True)
        best = row["sizes"]["1"]["pictures_per_s"]
        axes.plot(sizes, times, marker="o", label=f"{model} ({best:.3g} a second alone)")
        axes.fill_between(sizes, low, high, alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlabel("pictures in one call")
    axes.set_ylabel("pictures a second, times size 1")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    figure.savefig(file)


async def measure(rounds: int, models: Sequence[str], sizes: Sequence[int], pictures: int, served: int) -> Any:
    """What was found of each model."""
    found, catalogue = {}, catalogue_of(load_serve_config(DEFAULT_CONFIG).settings)
    for model in models:
        worker = ModelWorker(model, engine_loader(catalogue[model], "cpu", None, 1))
        worker.load()
        found[model] = await compare(worker, catalogue[model], rounds, sizes, pictures)
        found[model]["served"] = await serve(worker, catalogue, model, served, pictures, max(sizes))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=12)
    chosen = made.parse_args(argv)
    how = (1, ("sdxl-turbo",), (1, 2), 2, 1) if chosen.quick else (chosen.rounds, MODELS, SIZES, PICTURES, SERVED)
    load_before = os.getloadavg()[0]
    models = asyncio.run(measure(*how))
    about = {"cores": os.cpu_count(), "load_1min_before": round(load_before, 2), "rounds": how[0], "pictures": how[3]}
    with results(chosen, RESULTS, is_full(made, chosen)) as out:
        text = json.dumps({"about": about, "models": models}, indent=1)
        (out / "batching.json").write_text(text + "\n", encoding="utf-8")
        draw(models, out / "batching.svg")
    short = {m: {**{k: v for k, v in row.items() if k != "seconds"}} for m, row in models.items()}
    print(json.dumps({"about": about, "models": short}, indent=1))


if __name__ == "__main__":
    main()
