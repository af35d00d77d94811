"""How long `Policy.decide` takes: 30 recipes, eight rules, verification, a budget and exploration.

    python -m benchmarks.decide [--json benchmarks/results/decide.json]

The decision alone, on estimates that are there; embedding, prediction and planning come before it. CPU time of the
thread, so that time for which a busy machine gave it to others does not count; each figure is the median over batches
of one hundred decisions, with the fifth and the ninety-fifth percentile of the batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from policies import Policy, load_policy_text
from router.types import Allowance, Context, Estimate, GenerationRequest, Plan, PromptView, Quality

BATCH = 100
RULES = """
  - {name: print, when: {any: [{tag: print}, {min_side: 1536}]}, only: [r10, r11, r12, r13, r14]}
  - {name: letters, when: {signal: text_rendering, above: 0.5}, never: [r00, r01]}
  - {name: night, when: {during: {from: "22:00", to: "06:00", zone: Europe/Berlin}}, prefer: [r05]}
  - {name: german, when: {language: de}, never: [r02]}
  - {name: acme, when: {all: [{tenant: acme}, {not: {tag: draft}}]}, set: {limits: {cost_usd: 0.05}}}
  - {name: poster, when: {prompt_matches: "\\\\b(poster|sign|banner)s?\\\\b"}, never: [r03], priority: 3}
  - {name: hard, when: {signal: complexity, above: 0.7}, never: [r00, r01, r02, r03], priority: 2}
  - {name: unknown, when: {familiarity_below: 0.3}, prefer: [r20, r21]}
"""


def policy(recipes: int) -> Policy:
    names = [f"r{k:02}" for k in range(recipes)]
    listed = "".join(f"  {name}: {{generate: {{model: m, steps: {k + 1}}}}}\n" for k, name in enumerate(names))
    rest = "overload: {degrade_after_s: 5, degrade_to: [r00], reject_after_s: 60}\nexplore: {rate: 0.02}\n"
    rest += "verify: {when: {uncertainty_above: 0.05}, scorer: s, accept_above: 0.6, escalate_to: [r10, r20]}\n"
    text = f"version: 1\nname: bench\nrecipes:\n{listed}objective: {{maximise: quality, weight: {{cost_usd: 8}}}}\n"
    return load_policy_text(f"{text}limits: {{latency_s: 25, cost_usd: 0.1, max_pixels: 4000000}}\n{rest}rules:{RULES}")


def batches(made: Policy, count: int, seed: int) -> list[float]:
    """Microseconds of one decision, for each batch."""
    random = np.random.default_rng(seed)
    names = list(made.recipes)
    view = PromptView(
        "a poster with three cats", {}, {"complexity": 0.8, "text_rendering": 0.4}, np.zeros(384, np.float32), 0.9
    )
    plans = {name: Plan(name, (), "1", 512, 512) for name in names}
    found = []
    for k in range(count):
        estimates = {
            name: Estimate(name, Quality(*random.uniform((0.3, 0.01), (0.95, 0.2))), *random.uniform(0, 30, 3), 0.01)
            for name in names
        }
        request = GenerationRequest("a poster with three cats", tags=("print",) if k % 4 == 0 else (), tenant="acme")
        context = Context(datetime.now(UTC), 0.5, (Allowance("b", 100.0, 1.0),))
        estimates = {
            name: Estimate(name, e.quality, e.work_s, 0.0, e.latency_s, e.cost_usd) for name, e in estimates.items()
        }
        began = time.thread_time()
        for _ in range(BATCH):
            made.decide(request, view, plans, estimates, (), context)
        found.append((time.thread_time() - began) / BATCH * 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batches", type=int, default=60)
    chosen = parser.parse_args()
    report: dict[str, object] = {"python": platform.python_version(), "batch": BATCH, "batches": chosen.batches}
    for recipes in (30, 60, 120):
        micros = batches(policy(recipes), chosen.batches, seed=recipes)
        low, high = np.percentile(micros, (5, 95))
        report[f"recipes_{recipes}_us"] = {
            "median": round(statistics.median(micros), 1), "p5": round(float(low), 1), "p95": round(float(high), 1),
        }  # fmt: skip
        print(f"{recipes} recipes: {statistics.median(micros):.0f} µs (5 % {low:.0f}, 95 % {high:.0f})")
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
