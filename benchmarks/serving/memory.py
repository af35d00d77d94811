"""Memory of all processes over thousands of requests: flat, or not.

    python -m benchmarks.serving.memory [--quick] [--requests 5000]

Four clients ask without a pause, for turbo pictures of `PROMPTS` prompts with ever new seeds: with ever new prompts,
what a model remembers of them would fill its 64 MB until the end. Every second the resident and the proportional set
size of every process below this one is read (`/proc/PID/smaps_rollup`). After a fifth of the requests, when caches have
filled, the slope of each is that between the medians of the second and of the last fifth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.serving.rig.application import TURBO, Served, configured, folder_of_its_own, serving
from benchmarks.serving.rig.clients import client_of, closed_loop
from benchmarks.serving.rig.figures import command, kept, pyplot, save, told
from benchmarks.serving.rig.processes import memory_mib

CLIENTS = 4
PROMPTS = 800
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "ring")


def prompt(number: int) -> str:
    """One of `PROMPTS`."""
    number %= PROMPTS
    a, b = COLOURS[number % 6], SHAPES[number // 6 % 5]
    return f"a {a} {b}, number {number}"


async def watched(served: Served, count: int, every_s: float) -> tuple[list[dict[str, Any]], int]:
    """Samples of memory, and how many requests failed."""
    samples: list[dict[str, Any]] = []
    answered = failed = 0

    async def ask(number: int) -> None:
        nonlocal answered, failed
        reply = await client.once({"prompt": prompt(number), "model": "evidence/turbo", "seed": number})
        answered += 1
        failed += reply.status != 200

    async def watch() -> None:
        while True:
            memory = await asyncio.to_thread(memory_mib)
            samples.append({"s": round(client.now(), 2), "requests": answered, "mib": memory})
            await asyncio.sleep(every_s)

    async with client_of(served.url) as client:
        watching = asyncio.ensure_future(watch())
        await closed_loop(ask, CLIENTS, float("inf"), count)
        await asyncio.sleep(every_s)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return samples, failed


def growth(samples: Sequence[Mapping[str, Any]], count: int) -> dict[str, dict[str, float]]:
    """By kind of process: MiB at the second and the last fifth of the requests, and MiB gained per 1000 between."""
    found: dict[str, dict[str, float]] = {}
    at = np.array([sample["requests"] for sample in samples]) / count
    kinds = sorted({kind for sample in samples for kind in sample["mib"]})
    for kind in kinds:
        pss = np.array([sample["mib"].get(kind, {}).get("pss", np.nan) for sample in samples])
        early, late = pss[(at >= 0.2) & (at < 0.4)], pss[at >= 0.8]
        if not len(early) or not len(late) or np.isnan(early).all() or np.isnan(late).all():
            continue
        first, last = float(np.nanmedian(early)), float(np.nanmedian(late))
        slope = (last - first) / (0.6 * count / 1000)
        found[kind] = {"early_mib": round(first, 1), "late_mib": round(last, 1), "mib_per_1000": round(slope, 2)}
    return found


def plot(samples: Sequence[Mapping[str, Any]], file: Any) -> None:
    """Proportional set size by kind of process."""
    figure, axes = pyplot().subplots(figsize=(7, 3.6), layout="constrained")
    kinds = sorted({kind for sample in samples for kind in sample["mib"]})
    across = [sample["requests"] for sample in samples]
    for kind in kinds:
        axes.plot(across, [sample["mib"].get(kind, {}).get("pss", np.nan) for sample in samples], label=kind)
    axes.set(xlabel="requests", ylabel="MiB, shared pages counted once", yscale="log")
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> None:
    made = command(__doc__)
    made.add_argument("--requests", type=int, default=5000, help="in all")
    chosen = made.parse_args(argv)
    count, every_s = (30, 0.5) if chosen.quick else (chosen.requests, 1.0)
    with kept(made, chosen, "memory") as out, folder_of_its_own() as folder:
        with serving(configured(folder, TURBO), folder) as served:
            began = time.monotonic()
            samples, failed = asyncio.run(watched(served, count, every_s))
            took_s = time.monotonic() - began
        grown = growth(samples, count)
        out.keep(
            {"requests": count, "failed": failed, "seconds": round(took_s, 1), "growth": grown, "samples": samples}
        )
        plot(samples, out.picture())
    for kind, figures in grown.items():
        told(kind, **figures)
    told("requests", n=count, failed=failed, per_s=count / took_s)


if __name__ == "__main__":
    main()
