"""Do the branches of a fusion run at once? The wall time of `duel` against that of its slower branch alone.

    OMP_NUM_THREADS=1 python -m benchmarks.parallel.run [--quick] [--rounds 12]

Every model is in a process of its own, as its worker is in serving, on one thread; the orchestrator is the one that
serves. `duel` is best_of `standard` (sdxl, then the refiner) and `premium` (flux, then the refiner). The three take
turns, so that whatever else the machine does hits all alike. Written: parallel.json (seconds, ratio of medians with a
95 % bootstrap interval, load of the machine), trace.json (the steps of the median duel) and trace.svg, its picture.

The ratio is 1 plus choosing if the branches run wholly side by side, and the sum of both over the slower one if they
run in turn, which is printed beside it. Two busy cores are needed: on a machine that has other work it is higher.
`--quick` has threads in place of processes, and one round.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from deployments.assembly import build_orchestrator, catalogue_of, engine_loader
from deployments.orchestration.results import Outcome
from deployments.settings import DEFAULT_CONFIG, load_serve_config
from deployments.workers.worker import OnProgress, WorkerStatus
from router.learning.intervals import resampled
from router.types import GenerationRequest, ModelCard, Step, StepResult, Value

HERE = Path(__file__).resolve().parent
PROMPT = "a large red circle above a small blue square"
BRANCHES, DUEL = ("standard", "premium"), "duel"
WARM_UPS = 2  # rounds
_ENGINES: dict[str, Any] = {}


def _load(card: ModelCard) -> None:
    _ENGINES[card.id] = engine_loader(card, "cpu", None, 1)()


def _run(model: str, step: Step, inputs: Sequence[Value]) -> StepResult:
    result: StepResult = _ENGINES[model].run(step, inputs)
    return result


class PoolWorker:
    """A model in a process of its own, or in a thread; a `WorkerClient`. It loads when it is first asked."""

    def __init__(self, card: ModelCard, threads: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.model = card.id
        self.pool: Executor = (
            ThreadPoolExecutor(1, initializer=_load, initargs=(card,))
            if threads
            else ProcessPoolExecutor(1, context, _load, (card,))
        )

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        return await asyncio.get_running_loop().run_in_executor(self.pool, _run, self.model, step, list(inputs))


class Ready:
    """A `Monitor` of workers that load when they are first needed."""

    def __init__(self, models: Sequence[str]) -> None:
        self.models = models

    async def statuses(self) -> Mapping[str, WorkerStatus]:
        return {model: WorkerStatus(model, "ready") for model in self.models}


async def measure(
    rounds: int, warm_ups: int = WARM_UPS, threads: bool = False
) -> tuple[dict[str, list[float]], list[Outcome]]:
    """Seconds of every round by recipe, and the outcomes of the duels. The first rounds only warm up."""
    settings = load_serve_config(DEFAULT_CONFIG).settings
    settings = settings.model_copy(update={"feedback": settings.feedback.model_copy(update={"log": False})})
    catalogue = catalogue_of(settings)
    workers = {model: PoolWorker(catalogue[model], threads) for model in catalogue.ids()}
    orchestrator = build_orchestrator(settings, workers, Ready(catalogue.ids()))
    seconds: dict[str, list[float]] = {name: [] for name in (*BRANCHES, DUEL)}
    duels: list[Outcome] = []
    ask = GenerationRequest(PROMPT, target="balanced")
    try:
        for k in tqdm(range(rounds + warm_ups)):
            for name in (*BRANCHES, DUEL):
                outcome = await orchestrator.generate(replace(ask, recipe=name, seed=k))
                if k >= warm_ups:
                    seconds[name].append(outcome.latency_s)
                    duels += [outcome] if name == DUEL else []
    finally:
        for worker in workers.values():
            worker.pool.shutdown()
    return seconds, duels


def spans(outcome: Outcome) -> list[dict[str, Any]]:
    """The steps of a picture: when each worked (its seconds, up to its end) and when it could have begun."""
    return [
        {
            "step": trace.step.id,
            "model": trace.step.model or "this process",
            "ready_s": round(trace.started_s, 4),
            "began_s": round(max(0.0, trace.ended_s - trace.seconds), 4),
            "ended_s": round(trace.ended_s, 4),
        }
        for trace in outcome.made[0].traces
    ]


def summary(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians, and the ratio of the duel to the slower branch with a bootstrap interval over rounds."""
    table = np.array([seconds[name] for name in (*BRANCHES, DUEL)])

    def ratio(rounds: NDArray[np.int64]) -> float:
        medians = np.median(table[:, rounds], axis=1)
        return float(medians[2] / medians[:2].max())

    middle = np.median(table, axis=1)
    return {
        "rounds": table.shape[1],
        "median_s": dict(zip((*BRANCHES, DUEL), middle.round(4).tolist(), strict=True)),
        "ratio": round(float(middle[2] / middle[:2].max()), 4),
        "ratio_95": np.round(resampled(table.shape[1], ratio, resamples=2_000), 4).tolist(),
        "ratio_in_turn": round(float(middle[:2].sum() / middle[:2].max()), 4),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def draw(steps: Sequence[Mapping[str, Any]], file: Path, ratio: float) -> None:
    """Each model a line, each step a bar while it worked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.4), layout="constrained")
    axes = figure.subplots()
    lines = list(dict.fromkeys(step["model"] for step in steps))
    for step in steps:
        axes.barh(lines.index(step["model"]), step["ended_s"] - step["began_s"], left=step["began_s"], height=0.6)
    axes.set_yticks(range(len(lines)), lines)
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the plan began")
    axes.set_title(f"duel: {ratio:.2f} x its slower branch", fontsize=10)
    figure.savefig(file)


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=12)
    chosen = made.parse_args(argv)
    seconds, duels = asyncio.run(measure(1, 0, threads=True) if chosen.quick else measure(chosen.rounds))
    report = summary(seconds)
    middle = sorted(duels, key=lambda outcome: outcome.latency_s)[len(duels) // 2]
    steps = spans(middle)
    with results(chosen, HERE, is_full(made, chosen)) as out:
        text = json.dumps({**report, "seconds": seconds}, indent=1)
        (out / "parallel.json").write_text(text + "\n", encoding="utf-8")
        (out / "trace.json").write_text(json.dumps(steps, indent=1) + "\n", encoding="utf-8")
        draw(steps, out / "trace.svg", report["ratio"])
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
