"""Makes again what follows from changed weights: cards, outcomes, the router's artefact, frontier, figures, golden
files.

    python -m benchmarks.renew [--jobs 2] [--dry-run]     # all that is stale, in order
    python -m benchmarks.renew --stages frontier fusion   # of these what is stale; --again: also what is not
    python -m benchmarks.renew --verifier 25              # and train the verifier on for 25 minutes, before all else

Each stage is a command that exists without this one. What it reads is digested; a stage whose inputs are those of its
last run, as `renewed.json` has them, is skipped, so an interrupted run goes on where it stopped, and a second one does
nothing. Stages that take hours, or want an idle machine, are left out unless they are named. The numbers in the
documents are written by hand: what changed is said at the end. `--quick` makes two small stages twice, in a temporary
folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.command import parser, results
from benchmarks.stages import STAGES, Stage

ROOT = Path(__file__).resolve().parents[1]
STATE = Path(__file__).resolve().parent / "renewed.json"


@dataclass(frozen=True)
class Renewal:
    """Where files and the notes of earlier runs are. jobs: processes at once, each on one thread."""

    root: Path
    state: Path
    jobs: int = 1

    def noted(self) -> dict[str, dict[str, Any]]:
        """By stage, what it read in its last run, and seconds."""
        return dict(json.loads(self.state.read_text(encoding="utf-8"))) if self.state.exists() else {}

    def inputs(self, stage: Stage) -> str:
        """A digest over the names and contents of what a stage reads. Raises SystemExit if a pattern finds nothing."""
        total = hashlib.sha256()
        for pattern in stage.reads:
            if not (found := sorted(file for file in self.root.glob(pattern) if file.is_file())):
                raise SystemExit(f"stage {stage.name}: there is no {pattern} to read")
            for file in found:
                total.update(file.relative_to(self.root).as_posix().encode() + b"\0")
                total.update(hashlib.sha256(file.read_bytes()).digest())
        return total.hexdigest()[:16]

    def stale(self, stage: Stage) -> bool:
        """Whether a stage would read something else than last time, or what it writes is not there."""
        if not all(any(self.root.glob(pattern)) for pattern in stage.writes):
            return True
        return self.noted().get(stage.name, {}).get("read") != self.inputs(stage)

    def settle(self, stage: Stage, seconds: float) -> None:
        """Note that a stage is done with what it reads now."""
        told = {**self.noted(), stage.name: {"read": self.inputs(stage), "seconds": round(seconds, 1)}}
        self.state.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    def make(self, stages: Sequence[Stage], again: bool = False) -> list[str]:
        """Run what is stale, in order, and what may be beside each other at once; the names of the stages that were
        run.

        Raises SystemExit with the command that failed; what was done before it stays noted.
        """
        made: list[str] = []
        for beside, group in groupby(stages, key=lambda stage: stage.beside):
            todo = []
            for stage in group:
                if not beside:
                    made += self._together([stage], again)
                else:
                    todo.append(stage)
            made += self._together(todo, again)
        return made

    def _together(self, stages: Sequence[Stage], again: bool) -> list[str]:
        todo = [stage for stage in stages if again or self.stale(stage)]
        for stage in stages:
            if stage not in todo:
                print(f"{stage.name}: as it was", flush=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            took = list(pool.map(self._run, todo))
        for stage, seconds in zip(todo, took, strict=True):
            if seconds is None:
                continue
            self.settle(stage, seconds)
            print(f"{stage.name}: {seconds:.0f} s", flush=True)
        if failed := [stage.name for stage, seconds in zip(todo, took, strict=True) if seconds is None]:
            raise SystemExit(f"failed: {', '.join(failed)}; the same command goes on from there")
        return [stage.name for stage in todo]

    def _run(self, stage: Stage) -> float | None:
        """Seconds of a stage's commands, one after the other; None if one fails."""
        began = time.monotonic()
        threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        for words in stage.commands:
            command = [sys.executable, "-m", *(word.replace("{jobs}", str(self.jobs)) for word in words)]
            print(f"{stage.name}: python -m {' '.join(command[2:])}", flush=True)
            if subprocess.run(command, cwd=self.root, env={**os.environ, **threads}).returncode:
                return None
        return time.monotonic() - began


def chosen_of(names: Sequence[str], verifier: float | None) -> list[Stage]:
    """The stages of a run, in order. Raises SystemExit for an unknown name."""
    known = {stage.name for stage in STAGES} | {stage.group for stage in STAGES}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no stage {', '.join(unknown)}; there are {', '.join(stage.name for stage in STAGES)}")
    found = [s for s in STAGES if (s.name in names or s.group in names if names else s.usual)]
    if verifier is not None:
        trained = [stage.trained(verifier) for stage in STAGES if stage.name == "verifier"]
        found = [*trained, *(stage for stage in found if stage.name != "verifier")]
    return found


def expected(stages: Iterable[Stage], noted: Mapping[str, Mapping[str, Any]]) -> str:
    """How long they took last time, as far as that is known."""
    times = [noted.get(stage.name, {}).get("seconds") for stage in stages]
    known = [float(one) for one in times if one is not None]
    more = f", and {len(times) - len(known)} of unknown length" if len(known) < len(times) else ""
    return f"{sum(known) / 60:.0f} min last time{more}"


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--stages", nargs="+", default=(), metavar="STAGE", help="only these: " + ", ".join(
        stage.name + ("" if stage.usual else " (left out unless named)") for stage in STAGES
    ))  # fmt: skip
    made.add_argument("--without", nargs="+", default=(), metavar="STAGE", help="not these")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, each on one thread")
    made.add_argument("--verifier", type=float, metavar="MINUTES", help="train the verifier on, too")
    made.add_argument("--again", action="store_true", help="also what is not stale")
    made.add_argument("--dry-run", action="store_true", help="only say what is stale")
    asked = made.parse_args(argv)
    if asked.quick:
        with results(asked, ROOT, full=False) as out:
            twice(out)
        return
    run(asked)


def run(asked: argparse.Namespace) -> None:
    """What the options ask for, with the total time at the end."""
    renewal = Renewal(ROOT, STATE, asked.jobs)
    stages = [
        stage
        for stage in chosen_of(asked.stages, asked.verifier)
        if stage.name not in asked.without and stage.group not in asked.without
    ]
    stale = [stage for stage in stages if asked.again or renewal.stale(stage)]
    print(f"stale: {', '.join(stage.name for stage in stale) or 'nothing'} ({expected(stale, renewal.noted())}); "
          "what follows from these may become so")  # fmt: skip
    if asked.dry_run:
        return
    began = time.monotonic()
    done = renewal.make(stages, asked.again)
    print(f"{len(done)} stages in {(time.monotonic() - began) / 60:.1f} min: {', '.join(done) or 'none'}")
    if done:
        print(
            "figures in docs/evidence.md, docs/fusion.md and models/embedded/README.md are written by hand: read them"
        )


def twice(out: Path) -> None:
    """Two stages with `--quick`, made once and found done the second time."""
    (out / "read.txt").write_text("anything")
    small = [
        Stage("plot", (("benchmarks.frontier.plot", "--quick"),), ("read.txt",), ("read.txt",)),
        Stage("stages", (("benchmarks.renew", "--dry-run", "--stages", "frontier"),), ("read.txt",), ("read.txt",)),
    ]
    renewal = Renewal(out, out / "renewed.json", 2)
    assert renewal.make(small) == ["plot", "stages"]
    assert renewal.make(small) == []


if __name__ == "__main__":
    main()
