"""Do the presets pay as they are served? Each is asked over the API, beside every fixed recipe, on prompts never used.

    triptych serve &                                                    # another terminal
    python -m benchmarks.presets --url http://127.0.0.1:8000 --json benchmarks/results/presets.json
    python -m benchmarks.presets --quick                                # in this process, few prompts, some recipes

Every prompt is asked of each policy and of each fixed recipe in turn, with the same seed, so that what the machine does
meanwhile meets all alike. A picture is marked by the exact checker of the embedded world; its cost is the seconds of
all steps that were run for it, looks of the verifier included, as the workers report them. Random mixing of the fixed
recipes reaches, at each cost, the upper concave hull of their points; a policy's gain is its marks less the hull at its
own seconds, with a 95 % interval by bootstrap over prompts, in which the hull is drawn anew each time. Edge error says
how clean the outlines are (mean levels of 255 from the same shapes drawn exactly).

The prompts come from `--seed`; the verdict's seed is not one that chose anything.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import csv
import io
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from benchmarks.fusion.edges import edge_marks
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts
from models.embedded.world import TIERS
from router.bootstrap.dial import height

Array = NDArray[np.float64]
POLICIES = ("fast", "balanced", "best")
FIXED = (
    *("fast/turbo", "balanced/draft", "balanced/single"),
    *("best/polished", "best/standard", "best/premium", "best/duel"),
)
SOME = ("balanced/direct", "best/studio")
"""Dear, and no better than cheaper ones: drawn for a share of the prompts only, to show where they are."""
SHARE = 8
RESAMPLES = 2_000


@dataclass(frozen=True)
class Answer:
    """One picture: its mark (0 or 1), seconds of all its steps, edge error (NaN where nothing is found), its recipe."""

    mark: float
    seconds: float
    edge: float
    recipe: str


def prompts_of(n: int, seed: int) -> list[tuple[str, Prompt]]:
    """`n` prompts, as many of each tier, equal texts once, in an order of chance: (tier, prompt)."""
    found: dict[str, tuple[str, Prompt]] = {}
    for tier in TIERS:
        for prompt in held_out_prompts(tier, 4 * n, seed):
            if sum(t == tier for t, _ in found.values()) >= -(-n // len(TIERS)):
                break
            found.setdefault(prompt.text, (tier, prompt))
    drawn = list(found.values())
    random.Random(seed).shuffle(drawn)
    return drawn[:n]


async def ask(client: httpx.AsyncClient, target: str, prompt: Prompt, seed: int) -> Answer:
    """One picture of `target`, a policy or policy/recipe. Raises `SystemExit` with the server's words on an error."""
    body = {"prompt": prompt.text, "model": target, "seed": seed}
    answer = await client.post("/v1/images/generations", json=body)
    if answer.status_code != 200:
        raise SystemExit(f"{target}, {prompt.text!r}: {answer.status_code} {answer.text[:300]}")
    content = answer.json()
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(content["data"][0]["b64_json"]))).convert("RGB"))
    (told,) = content["x_triptych"]["pictures"]
    # A check has the seconds of the picture that it looked at, too; without checks there is one picture.
    steps = told["checks"] or [step for step in told["steps"] if step["model"]]
    seconds = sum(float(step["seconds"]) for step in steps)
    edges = edge_marks(picture)
    return Answer(check(picture, prompt.scene).exact, seconds, edges[1] if edges else float("nan"), str(told["recipe"]))


@asynccontextmanager
async def client_of(url: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running server, or of the same application in this process."""
    if url is not None:
        async with httpx.AsyncClient(base_url=url, timeout=300) as client:
            yield client
        return
    from deployments.api.app import create_app
    from deployments.api.service import Service
    from deployments.assembly import build_jobs
    from deployments.in_process import build_local
    from deployments.settings import DEFAULT_CONFIG, StoreSettings, load_serve_config

    settings = load_serve_config(DEFAULT_CONFIG).settings
    with tempfile.TemporaryDirectory() as folder:
        kept = StoreSettings(url=f"sqlite:///{folder}/triptych.sqlite", pictures=f"{folder}/pictures")
        settings = settings.model_copy(update={"store": kept})
        jobs = build_jobs(settings, build_local(settings))
        app = create_app(Service(jobs, settings.limits), settings.limits)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://triptych", timeout=300) as client:
            yield client
        await jobs.stop()


async def measure(
    url: str | None,
    drawn: Sequence[tuple[str, Prompt]],
    rows: Path | None,
    minutes: float,
    asked: Sequence[str] = (*POLICIES, *FIXED, *SOME),
) -> dict[str, dict[int, Answer]]:
    """Answers by target and place of the prompt; rows: a file that holds them already, or takes them as they come."""
    answers: dict[str, dict[int, Answer]] = {name: {} for name in (*POLICIES, *FIXED, *SOME)}
    if rows is not None and rows.exists():
        with rows.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                kept = Answer(float(row["mark"]), float(row["seconds"]), float(row["edge"]), row["recipe"])
                answers[row["target"]][int(row["place"])] = kept
    until = time.monotonic() + minutes * 60
    async with client_of(url) as client:
        for place, (_, prompt) in enumerate(tqdm(drawn, desc="prompts", disable=None)):
            targets = [target for target in asked if target not in SOME or place % SHARE == 0]
            random.Random(place).shuffle(targets)
            for target in targets:
                if place in answers[target] or time.monotonic() > until:
                    continue
                one = answers[target][place] = await ask(client, target, prompt, 10_000 + place)
                if rows is not None:
                    _append(rows, target, place, one)
    return answers


def _append(rows: Path, target: str, place: int, one: Answer) -> None:
    fresh = not rows.exists()
    with rows.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(("target", "place", "mark", "seconds", "edge", "recipe"))
        writer.writerow((target, place, f"{one.mark:g}", f"{one.seconds:.5f}", f"{one.edge:.2f}", one.recipe))


def summary(answers: Mapping[str, Mapping[int, Answer]], n: int) -> dict[str, Any]:
    """Marks, seconds and edge error of each target, and the gain of the policies over the hull, with intervals."""
    whole = [name for name in (*POLICIES, *FIXED) if answers[name]]
    places = [k for k in range(n) if all(k in answers[name] for name in whole)]
    marks, seconds = (
        np.array([[getattr(answers[name][k], key) for k in places] for name in whole]) for key in ("mark", "seconds")
    )
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, len(places), (RESAMPLES, len(places)))
    report: dict[str, Any] = {"prompts": len(places), "targets": {}}
    for name, found in answers.items():
        if found:
            used = [found[k] for k in (places if name in whole else found)]
            report["targets"][name] = {
                "pictures": len(used),
                "marks": round(float(np.mean([a.mark for a in used])), 4),
                "seconds": round(float(np.mean([a.seconds for a in used])), 4),
                "edge": round(float(np.nanmean([a.edge for a in used])), 2),
            }

    fixed = [k for k, name in enumerate(whole) if name in FIXED]

    def gain(rows: NDArray[np.int64], policy: int) -> float:
        m, s = marks[:, rows].mean(axis=1), seconds[:, rows].mean(axis=1)
        return float(m[policy] - height(s[fixed], m[fixed], s[policy : policy + 1])[0])

    for k, name in enumerate(whole):
        if name in POLICIES:
            spread = np.array([gain(rows, k) for rows in drawn])
            low, high = np.percentile(spread, (2.5, 97.5))
            report["targets"][name]["gain"] = round(gain(np.arange(len(places)), k), 4)
            report["targets"][name]["gain_95"] = [round(float(low), 4), round(float(high), 4)]
            kept: dict[str, int] = {}
            for place in places:
                kept[answers[name][place].recipe] = kept.get(answers[name][place].recipe, 0) + 1
            report["targets"][name]["delivered"] = dict(sorted(kept.items(), key=lambda item: -item[1]))
    return report


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server; without it, the application in this process")
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--seed", type=int, default=61, help="of the prompts")
    parser.add_argument("--rows", type=Path, help="a CSV file with every answer; what it holds is not asked again")
    parser.add_argument("--minutes", type=float, default=600.0, help="stop asking after so long")
    parser.add_argument("--json", type=Path, help="where the summary goes")
    every = (*POLICIES, *FIXED, *SOME)
    parser.add_argument("--targets", nargs="+", choices=every, default=every, help="only some; the hull is of these")
    parser.add_argument("--quick", action="store_true", help="a prompt a tier, some of the recipes, nothing is written")
    chosen = parser.parse_args(argv)
    n = 1 if chosen.quick else chosen.prompts
    drawn = prompts_of(n, chosen.seed)
    asked = (*POLICIES, *FIXED[:2], *SOME[:1]) if chosen.quick else tuple(chosen.targets)
    answers = asyncio.run(measure(chosen.url, drawn, None if chosen.quick else chosen.rows, chosen.minutes, asked))
    report = {"seed": chosen.seed, **summary(answers, n)}
    for name, told in report["targets"].items():
        over = f"   over mixing {told['gain']:+.3f} {told['gain_95']}" if "gain" in told else ""
        print(f"{name:18} marks {told['marks']:.3f}   {told['seconds']:.3f} s   edge {told['edge']:.1f}{over}")
    if chosen.json and not chosen.quick:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
