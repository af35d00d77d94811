"""Does `triptych models tune` keep its promise? It tunes the embedded SDXL; the exact checker judges on fresh prompts.

    python -m benchmarks.speed.sweep

The sweep chooses by the alignment scorer alone, on held-out prompts. What it chose and the model as it was then draw
other held-out prompts by the same seeds, in turns, and the exact checker, of which the sweep knows nothing, marks both.
Seconds are of the thread's processor time.

Written to benchmarks/results/sweep/: sweep.json (the front, the choice, the verdict), front.svg, tuned.yaml.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm
from typer.testing import CliRunner

from benchmarks.command import is_full, parser, results
from benchmarks.speed.tuning import marks_of, seconds_of
from deployments.cli.main import app
from deployments.settings import DEFAULT_CONFIG
from models import Engine, load_catalogue, load_engine
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts
from models.embedded.world import TIERS
from router.types import Picture, Step

RESULTS = Path(__file__).resolve().parents[1] / "results" / "sweep"
TUNED_ON, JUDGED_ON = 2039, 2040
"""Seeds of prompts."""
BLOCK = 8


def prompts_of(seed: int, count: int, but: Sequence[str] = ()) -> list[Prompt]:
    """As many held-out prompts, evenly from all tiers, mixed, without the texts `but`."""
    each = [[prompt for prompt in held_out_prompts(tier, 2 * count, seed) if prompt.text not in but] for tier in TIERS]
    unique = {prompt.text: prompt for row in zip(*each, strict=False) for prompt in row}
    return list(unique.values())[:count]


def tuned(model: str, prompts: Sequence[Prompt], minutes: float, graphs: bool, folder: Path) -> dict[str, Any]:
    """What the command says, in JSON. Its folder holds what it wrote."""
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompt.text for prompt in prompts) + "\n", encoding="utf-8")
    words = ["models", "tune", model, "--prompts", str(file), "--into", str(folder / "found"), "--json"]
    words += ["--minutes", str(minutes), "--graphs" if graphs else "--no-graphs"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def engines_of(model: str, entry: dict[str, Any]) -> dict[str, Engine]:
    """The model as the shipped config has it, and as the entry that was written has it."""
    shipped = yaml.safe_load(Path(DEFAULT_CONFIG).read_text(encoding="utf-8"))["applications"][0]["args"]["models"]
    made = {}
    for name, given in (("as it was", shipped[model]), ("tuned", entry)):
        kept = {key: value for key, value in given.items() if key in ("card", "overrides", "tuning")}
        made[name] = load_engine(load_catalogue({model: kept})[model], threads=1)
        made[name].warm_up()
    return made


def verdict(model: str, engines: dict[str, Engine], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Marks and seconds of both, on the same prompts and seeds."""
    right: dict[str, list[bool]] = {name: [] for name in engines}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for start in tqdm(range(0, len(prompts), BLOCK), desc="judging"):
        block = prompts[start : start + BLOCK]
        names = list(engines)[:: 1 if start // BLOCK % 2 else -1]
        for name in names:
            begun, pictures = time.thread_time(), []
            for number, prompt in enumerate(block):
                settings = {"prompt": prompt.text, "seed": JUDGED_ON + start + number}
                made = engines[name].run(Step(str(number), "generate", model, (), "image", settings)).value
                assert isinstance(made, Picture)
                pictures.append(made.pixels)
            seconds[name].append((time.thread_time() - begun) / len(block))
            right[name] += [check(made, prompt.scene).exact for made, prompt in zip(pictures, block, strict=True)]
    return {
        "prompts": len(prompts),
        "as it was": {**marks_of(right["as it was"], right["as it was"]), **seconds_of(*[seconds["as it was"]] * 2)},
        "tuned": {**marks_of(right["tuned"], right["as it was"]), **seconds_of(seconds["tuned"], seconds["as it was"])},
    }


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--minutes", type=float, default=8.0, help="the budget of the sweep")
    made.add_argument("--tune-on", type=int, default=128, help="prompts of the sweep")
    made.add_argument("--judge-on", type=int, default=400, help="prompts of the verdict")
    chosen = made.parse_args(argv)
    model, minutes, count, judged = "sdxl", chosen.minutes, chosen.tune_on, chosen.judge_on
    if chosen.quick:
        model, minutes, count, judged = "sd15", 0.01, 4, 4
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        some = prompts_of(TUNED_ON, count)
        begun = time.monotonic()
        found = tuned(model, some, minutes, not chosen.quick, folder)
        took = time.monotonic() - begun
        entry = yaml.safe_load((folder / "found" / "tuned.yaml").read_text(encoding="utf-8"))["models"][model]
        fresh = prompts_of(JUDGED_ON, judged, [prompt.text for prompt in some])
        judgement = verdict(model, engines_of(model, entry), fresh)
        about = {
            "cores": os.cpu_count(), "load_1min_before": round(load_before, 2), "minutes": minutes,
            "took_s": round(took, 1), "tuned_on": len(some), "seeds": [TUNED_ON, JUDGED_ON],
        }  # fmt: skip
        home = str(folder / "found")
        kept = {key: value for key, value in found.items() if key != "files"}
        with results(chosen, RESULTS, is_full(made, chosen)) as out:
            text = json.dumps({"about": about, "verdict": judgement, **kept}, indent=1).replace(home, "found")
            (out / "sweep.json").write_text(text + "\n", encoding="utf-8")
            (out / "tuned.yaml").write_text(yaml.safe_dump({"models": {model: entry}}).replace(home, "found"))
            shutil.copy(folder / "found" / "front.svg", out / "front.svg")
    print(f"chosen: {found['chosen']['way']}, after {took:.0f} s")
    for name, row in judgement.items():
        print(f"{name}: {row}")


if __name__ == "__main__":
    main()
