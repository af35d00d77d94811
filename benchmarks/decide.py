"""How long a decision takes, and how it grows: with recipes, with what waits, with searches, on new and known prompts.

    python -m benchmarks.decide [--quick] [--before REVISION] [--json benchmarks/results/decide.json]

A decision is `Router.route` on the shipped artefact: understanding the prompt, estimates of every recipe, the policy's
choice and the plan. CPU time of the thread, so that time that a busy machine gave to others does not count; each figure
is the median over rounds. With `--before`, the code of another revision is measured in turns with this one, in the same
run, each in a process of its own; modules that were moved since are looked up under both of their names.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7

SEARCH = """
version: 1
name: bench
recipes:
  turbo: {generate: {model: sdxl-turbo}}
  polished: {chain: [turbo, {refine: {model: sdxl-refiner, strength: 0.3}}]}
  tries: {best_of: {n: auto, of: [turbo, polished], scorer: alignment}}
objective: {maximise: quality, weight: {latency_s: 0.1}}
"""


def _module(*names: str) -> Any:
    """The first of these modules that the code in this folder has: a revision may know it by another name.

    An installed Triptych would answer for names that are not here, so the file is looked for first.
    """
    for name in names:
        if Path(*name.split(".")).with_suffix(".py").exists():
            return importlib.import_module(name)
    raise ModuleNotFoundError(f"none of {', '.join(names)}")


def _many(recipes: int) -> str:
    """A policy with so many recipes: settings of one model, so that each is a recipe of its own."""
    lines = "".join(
        f"  r{k:03}: {{generate: {{model: sdxl, steps: {1 + k % 50}, guidance_scale: {1 + k // 50}}}}}\n"
        for k in range(recipes)
    )
    return f"version: 1\nname: bench\nrecipes:\n{lines}objective: {{maximise: quality, weight: {{cost_usd: 8}}}}\n"


def _prompts(count: int, first: int) -> list[str]:
    things = ("circle", "square", "triangle", "star", "ring", "lighthouse", "teapot", "violin", "robot", "corgi")
    colours = ("red", "blue", "green", "yellow", "purple", "orange", "black", "white")
    return [
        f"{k} {colours[k % 8]} {things[k % 10]}s above a {colours[k // 8 % 8]} {things[k // 10 % 10]}, number {k}"
        for k in range(first, first + count)
    ]


class Bench:
    """The router of the shipped config, and ways to ask it. Times are in milliseconds of CPU."""

    def __init__(self) -> None:
        settings = importlib.import_module("deployments.settings")
        rehearsal = _module("deployments.offline.rehearsal", "deployments.rehearsal")
        self.load = importlib.import_module("policies").load_policy_text
        self.context = importlib.import_module("router.types").Context(None)
        self.rehearsal = rehearsal.Rehearsal(settings.load_serve_config(settings.DEFAULT_CONFIG).settings)
        self.router = self.rehearsal._router
        self.seen = 1000

    def policy(self, text: str) -> Any:
        """A policy from its text."""
        return self.load(text, "bench.yaml", known=self.rehearsal.known)

    def new(self, policy: Any, count: int, embedded: bool = False) -> float:
        """A decision on a prompt that was never seen. embedded: but whose vector is known already."""
        requests = [self.rehearsal.request({"prompt": text}) for text in _prompts(count, self.seen)]
        if embedded:
            self.router.embedder.embed([request.prompt for request in requests])
        self.seen += count
        return self._timed(lambda: [self.router.route(request, policy, self.context) for request in requests]) / count

    def again(self, policy: Any, count: int, prompt: str = "two small red stars above a blue ring") -> float:
        """A decision on a prompt that was seen, asked again and again with other seeds."""
        requests = [self.rehearsal.request({"prompt": prompt, "seed": k}) for k in range(count)]
        self.router.route(requests[0], policy, self.context)
        return self._timed(lambda: [self.router.route(request, policy, self.context) for request in requests]) / count

    def beside(self, policy: Any, tickets: int, count: int) -> float:
        """The same while so many plans are reserved; one comes and goes before each decision, as under load."""
        plan = self.router.route(self.rehearsal.request({"prompt": "a red circle"}), policy, self.context).plan
        held = [self.router.queues.reserve(plan) for _ in range(tickets)]
        request, took = self.rehearsal.request({"prompt": "two small red stars above a blue ring"}), 0.0
        for _ in range(count):
            self.router.queues.release(self.router.queues.reserve(plan))
            took += self._timed(lambda: [self.router.route(request, policy, self.context)])
        for ticket in held:
            self.router.queues.release(ticket)
        return took / count

    def calls(self, policy: Any) -> dict[str, int]:
        """Own calls and changes of module in one decision on a new prompt, by `sys.setprofile`."""
        request = self.rehearsal.request({"prompt": "three small yellow stars above a large blue ring"})
        # What depends on queues and prices alone was worked out by the request before.
        self.router.route(self.rehearsal.request({"prompt": "a red circle"}), policy, self.context)
        root, seen = os.getcwd() + os.sep, []

        def note(frame: Any, event: str, _: Any) -> None:
            file = frame.f_code.co_filename
            if event == "call" and file.startswith(root) and ".venv" not in file:
                seen.append(file)

        sys.setprofile(note)
        self.router.route(request, policy, self.context)
        sys.setprofile(None)
        changes = sum(before != after for before, after in itertools.pairwise(seen))
        return {"calls": len(seen), "modules": len(set(seen)), "changes of module": changes}

    def log_row_bytes(self, policy: Any) -> int:
        """Bytes of one decision in the log, on a new prompt."""
        feedback = _module("router.learning.feedback", "router.feedback")
        recorder = _module("deployments.orchestration.recorder", "deployments.journal")
        outcome = _module("deployments.orchestration.results", "deployments.outcome").Outcome
        log = _module("deployments.store.decision_log", "router.learning.decision_log")
        request = replace(self.rehearsal.request({"prompt": "a red circle"}), id="req_bench")
        made = outcome(self.router.route(request, policy, self.context), (), 0.1, 0.0, ())
        record = recorder.record_of(made, policy.recipes, self.router.predictor, self.rehearsal._catalogue)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "decisions.sqlite"
            writer = log.DecisionLog(file, "hash", feedback.Retention(), b"key")
            writer.record(record)
            writer.close()
            with contextlib.closing(sqlite3.connect(file)) as db:
                return int(db.execute("SELECT length(facts) + length(embedding) FROM decisions").fetchone()[0])

    @staticmethod
    def _timed(run: Callable[[], object]) -> float:
        began = time.thread_time()
        run()
        return (time.thread_time() - began) * 1e3


def rows(quick: bool) -> dict[str, Any]:
    """Every row, once: milliseconds, and the counts of calls."""
    bench, count = Bench(), 2 if quick else 40
    balanced, search = bench.rehearsal.policy("balanced"), bench.policy(SEARCH)
    bench.new(balanced, 3)
    found = {
        "new prompt, balanced": bench.new(balanced, count),
        "new prompt, vector known": bench.new(balanced, count, embedded=True),
        "known prompt, balanced": bench.again(balanced, count),
        "new prompt, n: auto": bench.new(search, count),
        "known prompt, n: auto": bench.again(search, count),
    }
    for recipes in (10, 50, 200):
        found[f"known prompt, {recipes} recipes"] = bench.again(bench.policy(_many(recipes)), count)
    # Models of one worker wait for each other, and 500 pictures are more than the minute that balanced allows.
    usual = Path("policies/presets/balanced.yaml").read_text("utf-8")
    patient = bench.policy(usual.replace("latency_s: 60", "latency_s: 3600"))
    for tickets in (0, 100, 500):
        found[f"{tickets} waiting, balanced"] = bench.beside(patient, tickets, count)
    return {
        "ms": found,
        **bench.calls(balanced),
        "log row, 200 recipes, bytes": bench.log_row_bytes(bench.policy(_many(200))),
    }


def measured_in(folder: Path, quick: bool) -> dict[str, Any]:
    """`rows` of the code in `folder`, by a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", *(["--quick"] if quick else [])]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def checkout(revision: str, folder: str) -> Path:
    """The files of another revision, without touching this checkout."""
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return Path(folder)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decide", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; only shows that it runs")
    parser.add_argument("--before", metavar="REVISION", help="measure this revision too, in turns")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.child:
        print(json.dumps(rows(chosen.quick)))
        return
    rounds: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        codes = {"before": checkout(chosen.before, folder)} if chosen.before else {}
        for _ in range(1 if chosen.quick else ROUNDS):
            for name, code in {**codes, "now": ROOT}.items():
                rounds.setdefault(name, []).append(measured_in(code, chosen.quick))
    report: dict[str, Any] = {"python": platform.python_version(), "rounds": len(rounds["now"])}
    report |= {"before": chosen.before} if chosen.before else {}
    for row in rounds["now"][0]["ms"]:
        each = {name: [round(one["ms"][row], 3) for one in ones] for name, ones in rounds.items()}
        told = {name: statistics.median(ones) for name, ones in each.items()}
        report[row] = {**told, "each": each}
        print(f"{row:28}", "   ".join(f"{name} {value:8.3f} ms" for name, value in told.items()))
    for row in (key for key in rounds["now"][0] if key != "ms"):
        report[row] = {name: ones[0][row] for name, ones in rounds.items()}
        print(f"{row:28}", "   ".join(f"{name} {value:8}" for name, value in report[row].items()))
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
