"""What each tuning is worth on the embedded models: seconds a picture beside the share of right pictures.

    python -m benchmarks.tuning

Every way draws the same held-out prompts with the same seeds, and the exact checker marks them. The ways take turns, a
block of prompts each, in another order in each round, so that a busy machine is busy for all of them. Seconds are those
of the thread's processor time, which what else runs here changes least.

Written to benchmarks/results/tuning/: tuning.json (every way with counts and intervals), tuning.svg.
"""

from __future__ import annotations

import json
import os
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
from models.tuning.settings import Tuning
from router.errors import LoadError
from router.types import ModelCard, Picture, Step, StepResult

RESULTS = Path(__file__).resolve().parent / "results" / "tuning"
SEED = 2031
BLOCK = 8


@dataclass(frozen=True)
class Way:
    """A model, tuned and asked in one way."""

    name: str
    model: str
    tuning: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1


def ways_of(model: str, solver: Sequence[int] = ()) -> list[Way]:
    """All ways for one model. solver: numbers of steps of DPM-Solver++"""
    made = [
        Way("eager", model),
        Way("compile", model, {"compile": "regional"}),
        Way("channels last", model, {"channels_last": True}),
        Way("int8", model, {"quantize": "int8"}),
        Way("batch 4", model, batch=4),
        Way("batch 8", model, batch=8),
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
QUICK = [Way("eager", "sdxl"), Way("int8", "sdxl", {"quantize": "int8"}), Way("batch 4", "sdxl", batch=4)]


def card_of(way: Way) -> ModelCard:
    """The model's card as this way tunes it."""
    tuning = Tuning.model_validate(way.tuning)
    card = replace(load_card(f"embedded/{way.model}"), id=way.model)
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


def measure(ways: Sequence[Way], prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """A row for each way: seconds a picture and marks, or why it cannot be had here."""
    engines: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    load_s: dict[str, float] = {}
    for way in tqdm(ways, desc="loading"):
        begun = time.process_time()
        try:
            engines[_id(way)] = load_engine(card_of(way), threads=1)
        except LoadError as error:
            missing[_id(way)] = error.message
            continue
        draw(engines[_id(way)], way, prompts[: way.batch], 0)  # compiles, allocates
        load_s[_id(way)] = time.process_time() - begun
    right: dict[str, list[bool]] = {key: [] for key in engines}
    seconds: dict[str, list[float]] = {key: [] for key in engines}
    there = [way for way in ways if _id(way) in engines]
    for round_, start in enumerate(tqdm(range(0, len(prompts), BLOCK), desc="drawing")):
        block = prompts[start : start + BLOCK]
        for turn in range(len(there)):
            way = there[(turn + round_) % len(there)]
            pictures, took = draw(engines[_id(way)], way, block, SEED + start)
            seconds[_id(way)].append(took / len(block))
            right[_id(way)] += [check(picture, p.scene).exact for picture, p in zip(pictures, block, strict=True)]
    rows = []
    for way in ways:
        row: dict[str, Any] = {
            "model": way.model,
            "way": way.name,
            "tuning": dict(way.tuning),
            "asked": dict(way.asked),
        }
        if (key := _id(way)) in missing:
            rows.append({**row, "missing": missing[key]})
            continue
        eager = f"{way.model}/eager"
        rows.append(
            {
                **row,
                "batch": way.batch,
                "pictures": len(right[key]),
                **_marks(right[key], right[eager]),
                **_seconds(seconds[key], seconds[eager]),
                "load_and_first_s": round(load_s[key], 2),
            }
        )
    return rows


def _id(way: Way) -> str:
    return f"{way.model}/{way.name}"


def _marks(right: Sequence[bool], eager: Sequence[bool]) -> dict[str, Any]:
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


def _seconds(own: Sequence[float], eager: Sequence[float]) -> dict[str, Any]:
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
    """Marks against seconds, a panel a model."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure(figsize=(5 * len(models), 3.8), layout="constrained")
    for axes, model in zip(np.atleast_1d(figure.subplots(1, len(models))), models, strict=True):
        for row in (row for row in rows if row["model"] == model and "missing" not in row):
            low, high = (abs(row["marks"] - edge) for edge in row["marks_95"])
            axes.errorbar(row["cpu_s"], row["marks"], [[low], [high]], fmt="o", capsize=2, label=row["way"])
        axes.set_title(model)
        axes.set_xlabel("processor seconds a picture")
        axes.set_xlim(left=0)
        axes.set_ylabel("share of right pictures")
        axes.legend(fontsize=7)
    figure.savefig(file, metadata={"Date": None})


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=64, help="held-out prompts, evenly from all tiers")
    chosen = made.parse_args(argv)
    load_before = os.getloadavg()[0]
    rows = measure(QUICK if chosen.quick else WAYS, sample(4 if chosen.quick else chosen.prompts))
    about = {"cores": os.cpu_count(), "load_1min_before": round(load_before, 2), "seed": SEED, "block": BLOCK}
    with results(chosen, RESULTS, is_full(made, chosen)) as out:
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
