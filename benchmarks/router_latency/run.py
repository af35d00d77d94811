"""Milliseconds of a routing decision beside those of sentence-transformers for the embedding alone, in one run.

    python -m benchmarks.router_latency.run [--quick] [--prompts 200] [--turn 25] [--runs 5]

Two processes, one thread each, take turns of 25 prompts, so that whatever else the machine does hits both alike, and
neither finds a processor cache full of the other's weights at each prompt, as none would on an idle machine. `--turn 1`
measures that too: what a decision takes that shares its caches with another model.

    router                 the whole decision (features, skills, embedding, estimates of every recipe, policy, plan),
                           with the real cards, the policy `balanced` and the artefact `real`; then, after each
                           turn, the same prompts from its cache
    sentence-transformers  all-MiniLM-L6-v2, fp32, one embedding

Writes `latency.json`: cold import in seconds, first call, p50 and p99 in milliseconds, uncached and cached; a batch of
32 in milliseconds a prompt; resident megabytes; and which of the `BARS` hold. Each is given twice: by the wall clock,
and (`cpu_...`) as processor time of the contestant, which waiting for a busy machine does not enter (a shared cache and
a lower clock still do). The load before and after is stored beside them. With several runs, `five_runs.json` has all of
them and `latency.json` the one with the median ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.command import is_full, parser, results

HERE = Path(__file__).resolve().parent
SUBJECTS = ("a dog", "two red cars", "a castle on a hill", "an old man reading", "a bowl of fruit", "five paper boats")
PLACES = ("in the rain", "next to a blue door", "at night", "under a bridge", "without any people", "in a small garden")
BARS: dict[str, tuple[str, float]] = {
    "cold import, s": ("import_s", 1.5),
    "p50 uncached, of sentence-transformers' embedding": ("p50_ratio", 0.5),
    "p99 uncached, ms": ("router.p99_ms", 20.0),
    "p50 cached, ms": ("router.cached_p50_ms", 0.5),
    "resident, MB": ("router.resident_mb", 300.0),
}
"""What must hold on an idle machine: where in the report, and the most that it may be."""
STYLES = ("", ", oil painting", ', with a sign that says "OPEN"', ", photorealistic, highly detailed, soft light")


def prompts(count: int) -> list[str]:
    """Different prompts of 4 to 20 words."""
    whole = [
        f"{subject} {place}{style}, picture {k}"
        for k in range(1 + count // 144)
        for subject in SUBJECTS
        for place in PLACES
        for style in STYLES
    ]
    return whole[:count]


def router() -> tuple[Callable[[str], Any], Callable[[list[str]], Any]]:
    """(decide on a prompt, embed a batch)."""
    from deployments.assembly import catalogue_of, policies_of
    from deployments.settings import DEFAULT_CONFIG, load_serve_config
    from router.cost.model import CostModel
    from router.cost.queues import Queues
    from router.prompts.embedding import MiniLMEmbedder
    from router.quality.predictor import QualityPredictor
    from router.registry.artifact import load_artifact
    from router.routing import Router
    from router.types import GenerationRequest

    settings = load_serve_config(DEFAULT_CONFIG.with_name("real.yaml")).settings
    catalogue = catalogue_of(settings)
    policy = policies_of(settings, catalogue).get("balanced")
    predictor = QualityPredictor(load_artifact(settings.artifact_path), catalogue)
    decider = Router(catalogue, MiniLMEmbedder(), predictor, Queues(CostModel(catalogue)))

    def decide(prompt: str) -> Any:
        return decider.route(GenerationRequest(prompt), policy)

    return decide, lambda batch: [decide(prompt) for prompt in batch]


def reference() -> tuple[Callable[[str], Any], Callable[[list[str]], Any]]:
    """(embed a prompt, embed a batch)."""
    import torch

    from benchmarks.reference_embedder import SentenceTransformerEmbedder

    torch.set_num_threads(1)
    embedder = SentenceTransformerEmbedder()
    return lambda prompt: embedder.embed([prompt]), embedder.embed


Spent = tuple[float, float]
"""Milliseconds by the wall clock, and of processor time."""
CONTESTANTS = {"router": router, "sentence-transformers": reference}


def serve(name: str) -> None:
    """In a process of its own: answers lines of JSON (a prompt, or a list of them) with seconds."""
    began = time.perf_counter()
    one, many = CONTESTANTS[name]()
    ready = time.perf_counter() - began
    print(json.dumps({"ready_s": ready}), flush=True)
    for line in sys.stdin:
        wall, cpu = timed(one, many, json.loads(line))
        # By these names, since `beside` asks other versions, too.
        spent = {"seconds": wall / 1e3, "cpu_seconds": cpu / 1e3}
        print(json.dumps({**spent, "megabytes": resident()}), flush=True)


def timed(one: Callable[[str], Any], many: Callable[[list[str]], Any], asked: str | list[str]) -> Spent:
    """How long a prompt, or a batch of them, takes."""
    began, worked = time.perf_counter(), time.process_time()
    many(asked) if isinstance(asked, list) else one(asked)
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - worked)


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Contestant:
    """A process that answers prompts, and how long each took."""

    def __init__(self, name: str, checkout: Path | None = None) -> None:
        """checkout: whose code answers, if not this one's."""
        command = [sys.executable, "-m", "benchmarks.router_latency.run", "--serve", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
        self.ready_s = float(self._line()["ready_s"])
        self.megabytes = 0.0

    def ask(self, prompt: str | list[str]) -> Spent:
        """How long it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(prompt) + "\n")
        self._process.stdin.flush()
        answer = self._line()
        self.megabytes = max(self.megabytes, float(answer["megabytes"]))
        return 1e3 * float(answer["seconds"]), 1e3 * float(answer["cpu_seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("{"):
            if not line:
                raise RuntimeError("a contestant ended before it answered")
        return json.loads(line)


class Inside:
    """A contestant in this process, for `--quick`: what it takes is not its own."""

    def __init__(self, name: str) -> None:
        import torch

        self._threads = torch.get_num_threads()
        began = time.perf_counter()
        self._one, self._many = CONTESTANTS[name]()
        self.ready_s, self.megabytes = time.perf_counter() - began, resident()

    def ask(self, prompt: str | list[str]) -> Spent:
        """How long it took."""
        return timed(self._one, self._many, prompt)

    def close(self) -> None:
        import torch

        torch.set_num_threads(self._threads)


def cold_import(times: int) -> float:
    """Seconds to import all that a decision needs, in a fresh process: the least of several times."""
    code = (
        "import time; t = time.perf_counter(); import router.routing, router.quality.predictor, "
        "router.prompts.embedding, onnxruntime, tokenizers; "
        "import sys; assert 'torch' not in sys.modules; print(time.perf_counter() - t)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(times)
    ]
    return min(float(run.stdout) for run in runs)


def measure(count: int, turn: int, imports: int = 5, quick: bool = False) -> dict[str, Any]:
    """Both contestants in turns of so many prompts. quick: sentence-transformers in this process"""
    load = os.getloadavg()[0]
    both: dict[str, Contestant | Inside] = {
        name: Inside(name) if quick and name != "router" else Contestant(name) for name in CONTESTANTS
    }
    asked = prompts(count + 1)
    report: dict[str, Any] = {
        "prompts": count, "turn": turn, "cores": os.cpu_count(), "processor": processor(), "load_before": load,
        "import_s": cold_import(imports),
    }  # fmt: skip
    first = {name: one.ask(asked[0]) for name, one in both.items()}
    uncached: dict[str, list[Spent]] = {name: [] for name in both}
    cached = []
    for start in range(1, len(asked), turn):
        for name, one in both.items():
            uncached[name] += [one.ask(prompt) for prompt in asked[start : start + turn]]
            if name == "router":
                cached += [one.ask(prompt) for prompt in asked[start : start + turn]]
    fresh = [prompt + " again" for prompt in asked[1:]]
    batches = [fresh[k : k + 32] for k in range(0, len(fresh) - 31, 32)] or [(fresh * 32)[:32]]
    for name, one in both.items():
        per_prompt = [one.ask(batch) for batch in batches]
        report[name] = {
            "ready_s": one.ready_s,
            "first_ms": first[name][0],
            **percentiles("", uncached[name]),
            "batch_of_32_ms_a_prompt": float(np.median([wall for wall, _ in per_prompt])) / 32,
            "cpu_batch_of_32_ms_a_prompt": float(np.median([cpu for _, cpu in per_prompt])) / 32,
            "resident_mb": one.megabytes,
        }
        one.close()
    report["router"] |= percentiles("cached_", cached)
    for key in ("p50_ms", "cpu_p50_ms"):
        report[key.replace("_ms", "_ratio")] = report["router"][key] / report["sentence-transformers"][key]
    report["load_after"] = os.getloadavg()[0]
    report["bars"] = {
        name: {"most": most, "holds": found(report, where) <= most} for name, (where, most) in BARS.items()
    }
    return report


def processor() -> str:
    """Which processor this is, and what it can multiply with, as far as Linux says."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    sets = [name for name in said.get("flags", "").split() if name.startswith(("avx", "amx", "fma"))]
    return f"{said.get('model name', 'unknown')} ({' '.join(sets)})"


def percentiles(prefix: str, spent: list[Spent]) -> dict[str, float]:
    """p50 and p99 in milliseconds, by the wall clock and of processor time."""
    walls, cpus = np.array(spent).T
    return {
        f"{cpu}{prefix}p{q}_ms": float(np.percentile(times, q))
        for cpu, times in (("", walls), ("cpu_", cpus))
        for q in (50, 99)
    }


def found(report: dict[str, Any], where: str) -> float:
    """The figure at a dotted place of the report."""
    for key in where.split("."):
        report = report[key]
    return float(report)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=200)
    made.add_argument("--turn", type=int, default=25, help="prompts that one process answers before the other's turn")
    made.add_argument("--runs", type=int, default=5)
    made.add_argument("--serve", choices=CONTESTANTS, help=argparse.SUPPRESS)
    chosen = made.parse_args(argv)
    if chosen.serve:
        serve(chosen.serve)
        return
    if chosen.quick:
        runs = [measure(4, 2, imports=1, quick=True)]
    else:
        runs = [measure(chosen.prompts, chosen.turn) for _ in tqdm(range(chosen.runs), unit="run")]
    middle = sorted(runs, key=lambda report: report["p50_ratio"])[len(runs) // 2]
    with results(chosen, HERE, is_full(made, chosen)) as out:
        if len(runs) > 1:
            (out / "five_runs.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
        (out / "latency.json").write_text(json.dumps(middle, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(middle, indent=1))


if __name__ == "__main__":
    main()
