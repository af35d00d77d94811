"""What the memory planner says beside what a process really grows by, on a CPU, for scaled-down shapes of real models.

    python -m benchmarks.speed.memory_plan [--quick]

Each case is a process of its own: it imports what is needed and draws a tiny picture, notes its resident memory, then
loads a model with random weights and makes a picture (or several at once), while a thread looks at the resident memory
every few milliseconds. Printed and stored (memory_plan.json): the growth at most, what the planner says of it
(`models/weights/needs`), and their ratio. It fails if one is off by more than a fifth. `--quick` has one case.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.command import is_full, parser, results

RESULTS = Path(__file__).resolve().parents[1] / "results"
MOST_OFF = 0.2

CASES: dict[str, dict[str, Any]] = {
    "sd15 decodes 512x512": {"model": "sd15", "size": [512, 512]},
    "sd15 decodes 768x512, two at once": {"model": "sd15", "size": [768, 512], "batch": 2},
    "sd15 decodes in tiles": {"model": "sd15", "size": [1024, 1024], "steps": 1, "tuning": {"vae_tiling": 256}},
    "sdxl denoises": {
        "model": "sdxl",
        "size": [1024, 1024],
        "more": {
            "unet": {"block_out_channels": (192, 384, 768), "attention_head_dim": (3, 6, 12)},
            "vae": {"block_out_channels": (32, 32, 32, 32)},
        },
    },
    "flux denoises": {
        "model": "flux-dev",
        "size": [1024, 1024],
        "more": {
            "transformer": {"num_attention_heads": 24, "num_layers": 1, "num_single_layers": 2},
            "vae": {"block_out_channels": (32, 32, 32, 32)},
        },
    },
    "flux decodes": {"model": "flux-schnell", "size": [512, 512]},
}
QUICK = ("sd15 decodes 512x512",)


def main(argv: list[str] | None = None) -> None:
    made = parser(__doc__ or "")
    made.add_argument("--case", help=argparse.SUPPRESS)
    chosen = made.parse_args(argv)
    if chosen.case:
        print(json.dumps(look(CASES[chosen.case])))
        return
    rows = {}
    for name in QUICK if chosen.quick else CASES:
        rows[name] = row = _apart(name)
        print(f"{name:36} grew {row['grew_mb']:7.0f} MB, planned {row['planned_mb']:7.0f} MB: {row['ratio']:.2f}")
    with results(chosen, RESULTS, is_full(made, chosen)) as out:
        (out / "memory_plan.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if far := [name for name, row in rows.items() if abs(row["ratio"] - 1) > MOST_OFF]:
        raise SystemExit(f"off by more than {MOST_OFF:.0%}: {', '.join(far)}")


def _apart(name: str) -> dict[str, Any]:
    """A case in a process of its own, whose allocator gives back what is freed."""
    own = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.speed.memory_plan", "--case", name]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def look(case: Mapping[str, Any]) -> dict[str, Any]:
    """How much this process grows by a case, in 10^6 bytes, beside the plan."""
    from benchmarks.gpu.random_weights import write
    from models.engine.engine import load_engine
    from models.weights.needs.memory import estimate_memory_gb
    from router.types import Step

    width, height = case["size"]
    with tempfile.TemporaryDirectory(prefix="triptych-memory-") as folder:
        first = write(case["model"], Path(folder) / "first", small=True)
        card = write(case["model"], Path(folder) / "card", small=True, more=case.get("more"))
        card = replace(card, native_size=(width, height), tuning=case.get("tuning", {}), max_pixels=width * height)
        settings = {"prompt": "a red circle", "width": width, "height": height, "steps": case.get("steps", 2)}
        batch = case.get("batch", 1)
        steps = [Step(str(n), "generate", card.id, (), "image", {**settings, "seed": n}) for n in range(batch)]
        small = replace(steps[0], settings={**settings, "width": first.min_side, "height": first.min_side})
        load_engine(first, threads=1).run(small)  # what is imported and set up once is no matter of the model
        planned = estimate_memory_gb(card, "float32", batch=batch) * 1e3

        def work() -> None:
            made = load_engine(card, threads=1).run_batch(steps, [()] * batch)
            assert len(made) == batch

        grew = growth_mb(work)
    return {"grew_mb": grew, "planned_mb": planned, "ratio": planned / grew, **case}


def growth_mb(work: Callable[[], None]) -> float:
    """By how much resident memory was larger at most while `work` ran, in 10^6 bytes."""
    import gc

    gc.collect()
    before, most, done = resident_mb(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, resident_mb())
            time.sleep(0.002)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        work()
    finally:
        done.set()
        watching.join()
    return most - before


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
