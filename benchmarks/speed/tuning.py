"""What each tuning is worth on the embedded models: seconds a picture beside the share of right pictures.

    python -m benchmarks.speed.tuning                               # all of it, an hour or so
    python -m benchmarks.speed.tuning --state FOLDER --minutes 10   # a piece; the same command goes on

Every way draws the same held-out prompts with the same seeds, and the exact checker marks them. The ways take turns, a
block of prompts each, in another order in each round, so that a busy machine is busy for all of them. Seconds are those
of the thread's processor time, which what else runs here changes least. Pieces with `--quiet` say that nothing else
runs: if there are some, seconds are of their blocks only. Marks are of all blocks, since they do not depend on it.

Written to benchmarks/results/tuning/: tuning.json (every way with counts and intervals), tuning.svg.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from models import Engine, load_card, load_engine
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts, wilson
from models.embedded.world import TIERS
from models.exporting.export import export, smaller
from models.tuning.settings import Tuning
from router.errors import LoadError
from router.types import ModelCard, Picture, Step, StepResult

RESULTS = Path(__file__).resolve().parents[1] / "results" / "tuning"
SEED = 2031
BLOCK = 8


@dataclass(frozen=True)
class Way:
    """A model, tuned and asked in one way. onnx: precision of its graphs, "" for torch"""

    name: str
    model: str
    tuning: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1
    onnx: str = ""

    @property
    def id(self) -> str:
        return f"{self.model}/{self.name}"


def ways_of(model: str, solver: Sequence[int] = ()) -> list[Way]:
    """All ways for one model. solver: numbers of steps of DPM-Solver++"""
    made = [
        Way("eager", model),
        Way("compile", model, {"compile": "regional"}),
        Way("channels last", model, {"channels_last": True}),
        Way("int8", model, {"quantize": "int8"}),
        Way("ONNX fp32", model, onnx="fp32"),
        Way("ONNX int8", model, onnx="int8"),
        Way("batch 4", model, batch=4),
        Way("batch 8", model, batch=8),
        Way("ONNX fp32, batch 4", model, batch=4, onnx="fp32"),
    ]
    for steps in solver:
        made.append(Way(f"DPM-Solver++, {steps} steps", model, {}, {"scheduler": "dpmsolver++", "steps": steps}))
    return made


WAYS = [
    *ways_of("sdxl", (4, 3)),
    *ways_of("flux"),
    Way("first block .05", "flux", {"cache": {"first_block": 0.05}}),
    Way("first block .1", "flux", {"cache": {"first_block": 0.1}}),
    Way("first block .2", "flux", {"cache": {"first_block": 0.2}}),
    Way("16 steps", "flux", {}, {"steps": 16}),
]
QUICK = [
    Way("eager", "sd15"),
    Way("int8", "sd15", {"quantize": "int8"}),
    Way("batch 4", "sd15", batch=4),
]


def card_of(way: Way, state: Path) -> ModelCard:
    """The model's card as this way tunes it. state: where graphs are; they are written if they are not there"""
    tuning = Tuning.model_validate(way.tuning)
    card = replace(load_card(f"embedded/{way.model}"), id=way.model)
    if way.onnx:
        folder = state / f"{way.model}-{way.onnx}"
        exact = state / f"{way.model}-fp32"
        if not exact.is_dir():
            export(card, exact, "fp32")
        if not folder.is_dir():
            smaller(card, exact, folder)
        card = replace(card, source={"onnx": str(folder)})
    return replace(card, tuning=tuning.said(), tuned=tuning.tuned, changes=tuning.changes)


def draw(engine: Engine, way: Way, prompts: Sequence[Prompt], first_seed: int) -> tuple[list[Any], float]:
    """A picture a prompt, and the processor seconds of all of them."""
    asked = [
        Step(str(n), "generate", way.model, (), "image", {"prompt": p.text, "seed": first_seed + n, **way.asked})
        for n, p in enumerate(prompts)
    ]
    begun, made = time.thread_time(), []
    for start in range(0, len(asked), way.batch):
        part = asked[start : start + way.batch]
        made += engine.run_batch(part, [()] * len(part))
    took = time.thread_time() - begun
    pictures = []
    for result in made:
        assert isinstance(result, StepResult) and isinstance(result.value, Picture), result
        pictures.append(result.value.pixels)
    return pictures, took


def sample(count: int) -> list[Prompt]:
    """As many held-out prompts, evenly from all tiers, mixed."""
    each = [held_out_prompts(tier, -(-count // len(TIERS)), SEED) for tier in TIERS]
    return [prompt for row in zip(*each, strict=True) for prompt in row][:count]


@dataclass
class Seen:
    """What was drawn so far, in a file to which each block is added: a way, its block, seconds a picture, marks."""

    file: Path
    blocks: dict[tuple[str, int, bool], tuple[float, list[bool]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, state: Path) -> Seen:
        made = cls(state / "blocks.jsonl")
        for line in made.file.read_text().splitlines() if made.file.is_file() else ():
            row = json.loads(line)
            made.blocks[row["way"], row["block"], row["quiet"]] = row["cpu_s"], row["right"]
        return made

    def add(self, way: str, block: int, quiet: bool, cpu_s: float, right: list[bool]) -> None:
        self.blocks[way, block, quiet] = cpu_s, right
        with self.file.open("a", encoding="utf-8") as file:
            row = {"way": way, "block": block, "quiet": quiet, "cpu_s": cpu_s, "right": right}
            file.write(json.dumps(row) + "\n")

    def marks(self, way: str) -> dict[int, list[bool]]:
        """By block; of a block that was drawn twice they are the same."""
        return {block: right for (name, block, _), (_, right) in self.blocks.items() if name == way}

    def seconds(self, way: str) -> dict[int, float]:
        """By block: of quiet ones if there are any."""
        quiet = any(key[2] for key in self.blocks)
        return {key[1]: cpu_s for key, (cpu_s, _) in self.blocks.items() if key[0] == way and key[2] == quiet}


def measure(
    ways: Sequence[Way], prompts: Sequence[Prompt], state: Path, quiet: bool = False, minutes: float | None = None
) -> list[dict[str, Any]]:
    """A row for each way: seconds a picture and marks, or why it cannot be had here."""
    seen = Seen.of(state)
    engines: dict[str, Engine] = {}
    for way in tqdm(ways, desc="loading"):
        begun = time.process_time()
        try:
            engines[way.id] = load_engine(card_of(way, state), threads=1)
        except LoadError as error:
            seen.missing[way.id] = error.message
            continue
        draw(engines[way.id], way, prompts[: way.batch], 0)  # compiles, allocates
        seen.loading[way.id] = time.process_time() - begun
    end = math.inf if minutes is None else time.monotonic() + 60 * minutes
    there = [way for way in ways if way.id in engines]
    rounds = range(-(-len(prompts) // BLOCK))
    for block in tqdm(rounds[::-1] if quiet else rounds, desc="drawing"):  # from both ends, so that they meet
        some = prompts[block * BLOCK : (block + 1) * BLOCK]
        for turn in range(len(there)):
            way = there[(turn + block) % len(there)]
            if (way.id, block, quiet) in seen.blocks or time.monotonic() >= end:
                continue
            pictures, took = draw(engines[way.id], way, some, SEED + block * BLOCK)
            right = [check(picture, p.scene).exact for picture, p in zip(pictures, some, strict=True)]
            seen.add(way.id, block, quiet, took / len(some), right)
    return [_row(way, seen) for way in ways]


def _row(way: Way, seen: Seen) -> dict[str, Any]:
    """Compared with eager on the blocks that both have."""
    row = {"model": way.model, "way": way.name, "tuning": dict(way.tuning), "asked": dict(way.asked), "onnx": way.onnx}
    if way.id in seen.missing:
        return {**row, "missing": seen.missing[way.id]}
    eager = f"{way.model}/eager"
    own, plain = seen.marks(way.id), seen.marks(eager)
    both = sorted(own.keys() & plain.keys())
    right = [[mark for block in both for mark in marks[block]] for marks in (own, plain)]
    mine, theirs = seen.seconds(way.id), seen.seconds(eager)
    timed = sorted(mine.keys() & theirs.keys())
    if not both or not timed:
        return {**row, "missing": "not drawn yet; run it again with the same --state"}
    return {
        **row,
        "batch": way.batch,
        "pictures": len(right[0]),
        **marks_of(*right),
        "timed_pictures": sum(len(own[block]) for block in timed),
        **seconds_of([mine[block] for block in timed], [theirs[block] for block in timed]),
        "load_and_first_s": round(seen.loading[way.id], 2),
    }


def marks_of(right: Sequence[bool], eager: Sequence[bool]) -> dict[str, Any]:
    """The share of right pictures with its 95 % interval, and the difference to eager on the same prompts and seeds."""
    low, high = wilson(sum(right), len(right))
    apart = np.array(right, float) - np.array(eager, float)
    error = 1.96 * float(apart.std(ddof=1)) / len(apart) ** 0.5 if len(apart) > 1 else float("nan")
    mean = float(apart.mean())
    return {
        "marks": round(sum(right) / len(right), 4),
        "marks_95": [round(low, 4), round(high, 4)],
        "marks_to_eager": round(mean, 4),
        "marks_to_eager_95": [round(mean - error, 4), round(mean + error, 4)],
    }


def seconds_of(own: Sequence[float], eager: Sequence[float]) -> dict[str, Any]:
    """The median of blocks, and how many times as fast as eager, with a 95 % interval over blocks."""
    rng = np.random.default_rng(0)
    mine, plain = np.array(own), np.array(eager)
    drawn = rng.integers(0, len(mine), (2000, len(mine)))
    ratios = np.median(plain[drawn], axis=1) / np.median(mine[drawn], axis=1)
    return {
        "cpu_s": round(float(np.median(mine)), 4),
        "times_as_fast": round(float(np.median(plain) / np.median(mine)), 3),
        "times_as_fast_95": [round(float(q), 3) for q in np.quantile(ratios, (0.025, 0.975))],
    }


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """How much faster each way is, beside the points it loses: a row a way, the fastest first, two panels a model."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    there = [row for row in rows if "missing" not in row]
    of = {model: [row for row in there if row["model"] == model] for model in dict.fromkeys(r["model"] for r in there)}
    figure = Figure(figsize=(9, 0.9 + 0.27 * len(there)), layout="constrained")
    heights = [len(ways) for ways in of.values()]
    panels = figure.subplots(len(of), 2, squeeze=False, sharey="row", sharex="col", height_ratios=heights)
    for (faster, points), (model, ways) in zip(panels, of.items(), strict=True):
        ways = sorted(ways, key=lambda row: row["times_as_fast"])
        eager = next(row for row in ways if row["way"] == "eager")
        for place, row in enumerate(ways):
            for axes, key, unit, eagers in ((faster, "times_as_fast", 1, 1.0), (points, "marks_to_eager", 100, 0.0)):
                value, (low, high) = unit * row[key], (unit * edge for edge in row[f"{key}_95"])
                colour = "#2e6b45" if low > eagers else "#b23a12" if high < eagers else "#6b6a65"
                off = None if row is eager else [[max(0.0, value - low)], [max(0.0, high - value)]]
                axes.errorbar(value, place, xerr=off, fmt="o", markersize=5, capsize=2, color=colour)
        for axes, eagers in ((faster, 1.0), (points, 0.0)):
            axes.axvline(eagers, color="#c9c5bb", linewidth=0.8, zorder=0)
            axes.spines[["top", "right"]].set_visible(False)
        faster.set_yticks(range(len(ways)), [row["way"] for row in ways])
        faster.set_title(f"{model}: eager {eager['cpu_s']:.2f} s, {eager['marks']:.2f} right", loc="left", fontsize=10)
    panels[-1, 0].set_xlabel("times as fast as eager")
    panels[-1, 1].set_xlabel("points of right pictures to eager")
    figure.savefig(file, metadata={"Date": None})


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=256, help="held-out prompts, evenly from all tiers")
    made.add_argument("--state", type=Path, help="a folder in which a run is kept, to go on with it")
    made.add_argument("--minutes", type=float, help="so long it draws; the table is of what there is then")
    made.add_argument("--quiet", action="store_true", help="nothing else runs here: seconds are of such blocks only")
    chosen = made.parse_args(argv)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as nowhere:
        state = chosen.state or Path(nowhere)
        state.mkdir(parents=True, exist_ok=True)
        ways, count = (QUICK, 4) if chosen.quick else (WAYS, chosen.prompts)
        rows = measure(ways, sample(count), state, chosen.quiet, chosen.minutes)
        quiet = any(key[2] for key in Seen.of(state).blocks)
    about = {
        "cores": os.cpu_count(), "load_1min_before": round(load_before, 2), "seed": SEED, "block": BLOCK,
        "seconds_of_a_quiet_machine": quiet,
    }  # fmt: skip
    with results(chosen, RESULTS, is_full(made, chosen, ("state", "minutes", "quiet"))) as out:
        (out / "tuning.json").write_text(json.dumps({"about": about, "ways": rows}, indent=1) + "\n", encoding="utf-8")
        plot(rows, out / "tuning.svg")
    for row in rows:
        if "missing" in row:
            print(f"{row['model']:6} {row['way']:22} {row['missing']}")
        else:
            print(
                f"{row['model']:6} {row['way']:22} {row['cpu_s']:.4f} s, {row['times_as_fast']:.2f}x "
                f"{row['times_as_fast_95']}, right {row['marks']:.3f} {row['marks_95']}"
            )


if __name__ == "__main__":
    main()
