"""Another checkout's router, this one's, and sentence-transformers, in turns prompt by prompt, by processor time.

    python -m benchmarks.router_latency.beside ../other-checkout [--quick] [--prompts 140]

For comparing two versions on a machine that does other things, too: what disturbs one disturbs all. Writes `ab.json`
with every time, medians, and 95 % intervals from resampling prompts. Without another
checkout, `--quick` compares this one with itself, in one process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import is_full, parser, results
from benchmarks.router_latency.run import HERE, Contestant, Inside, prompts
from router.learning.intervals import resampled

DRAWS = 2000


def compare(other: Path | None, count: int) -> dict[str, Any]:
    """All three in turns; the routers once more from their caches. other: None for this checkout once more, all in as
    few processes as will do"""
    now = Contestant("router")
    all_: dict[str, Contestant | Inside] = {
        "before": now if other is None else Contestant("router", other),
        "now": now,
        "reference": Inside("sentence-transformers") if other is None else Contestant("sentence-transformers"),
    }
    fresh: dict[str, list[float]] = {name: [] for name in all_}
    cached: dict[str, list[float]] = {"before": [], "now": []}
    first, *rest = prompts(count + 1)
    for one in all_.values():
        one.ask(first)
    for prompt in rest:
        for name, one in all_.items():
            fresh[name].append(one.ask(prompt)[1])
        for name, times in cached.items():
            times.append(all_[name].ask(prompt)[1])
    report: dict[str, Any] = {"prompts": count, "load_after": os.getloadavg()[0]}
    for one in dict.fromkeys(all_.values()):
        one.close()
    reference = np.array(fresh["reference"])
    for name, one in all_.items():
        times = np.array(fresh[name])
        p50, p99 = (float(np.percentile(times, q)) for q in (50, 99))
        report[name] = {"p50_ms": p50, "p99_ms": p99, "resident_mb": one.megabytes}
        if name in cached:
            again = np.array(cached[name])
            ratio: Callable[[np.ndarray], float] = lambda rows, t=times: float(  # noqa: E731
                np.median(t[rows]) / np.median(reference[rows])
            )
            report[name] |= {
                "p50_ratio": p50 / float(np.median(reference)),
                "p50_ratio_interval": resampled(count, ratio, resamples=DRAWS),
                "cached_p50_ms": float(np.median(again)),
                "cached_p50_interval_ms": resampled(
                    count, lambda rows, t=again: float(np.median(t[rows])), resamples=DRAWS
                ),
                "cached_ms": again.round(4).tolist(),
            }
        report[name]["ms"] = times.round(3).tolist()
    return report


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("other", nargs="?", type=Path, help="the root of the other checkout")
    made.add_argument("--prompts", type=int, default=140)
    chosen = made.parse_args(argv)
    other = chosen.other
    there = other is not None and (other / "benchmarks" / "router_latency" / "run.py").is_file()
    if not (there or (other is None and chosen.quick)):
        made.error("name the root of another checkout of Triptych, such as one made by `git worktree add ../old v0.1`")
    report = compare(None if other is None else other.resolve(), 4 if chosen.quick else chosen.prompts)
    with results(chosen, HERE, is_full(made, chosen)) as out:
        (out / "ab.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    for found in report.values():
        if isinstance(found, dict):
            print({key: value for key, value in found.items() if key not in ("ms", "cached_ms")})


if __name__ == "__main__":
    main()
