"""Do windows repeat the subject of a wide picture, and does a small whole picture before them help?

    python -m benchmarks.fusion.wide [--quick] [--prompts 40]

Held-out prompts of two objects, twice as wide as the native size. Three ways: windows from noise; the whole picture at
half the size, enlarged and painted anew in windows by a strength; that picture enlarged only. `wide.csv` has the number
of objects found on the plain ground (two are asked for); `wide.json` how often it is right, with bootstrap intervals.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import Workers
from benchmarks.fusion.run import HERE, catalogue, interval
from models.catalogue import Catalogue
from models.embedded.outcomes import held_out_prompts
from models.fusion.regions import segments
from router.planning.plan import make_plan
from router.types import Chain, Generate, GenerationRequest, Picture, Recipe, Refine, Upscale

SEED, BATCH = 51, 10
SMALL = Generate("sdxl", steps=10)


def again(strength: float) -> Chain:
    """Small and whole first, then windows over the enlarged picture."""
    return Chain((SMALL, Upscale(2), Refine("sdxl", steps=20, strength=strength, tile="native", overlap=0.5)))


WAYS: dict[str, Recipe] = {
    "windows": Generate("sdxl", steps=10, tile="native", overlap=0.5),
    "small first, windows at 0.3": again(0.3),
    "small first, windows at 0.5": again(0.5),
    "small first, enlarged": Chain((SMALL, Upscale(2))),
}


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=40)
    chosen = made.parse_args(argv)
    with results(chosen, HERE, is_full(made, chosen)) as out:
        study(
            1 if chosen.quick else chosen.prompts,
            out,
            ("windows", "small first, enlarged") if chosen.quick else tuple(WAYS),
        )


def at_any_size(catalogue: Catalogue) -> Catalogue:
    """With SDXL said to draw well at half of the wide size, too: planning would refuse to begin there."""
    return Catalogue(
        {**catalogue.cards, "sdxl": replace(catalogue["sdxl"], area_tolerance=(0.5, 2), aspect_tolerance=2)}
    )


def study(count: int, out: Path, ways: Sequence[str] = tuple(WAYS)) -> None:
    """Draw, count, summarise."""
    prompts = held_out_prompts("two", count, SEED)
    workers, rows = Workers(at_any_size(catalogue())), []
    for start in tqdm(range(0, len(prompts), BATCH)):
        for name in ways:
            asked = [
                GenerationRequest(prompt.text, seed=start + k, width=128, height=64)
                for k, prompt in enumerate(prompts[start : start + BATCH])
            ]
            made = workers.perform([make_plan(name, WAYS[name], one, workers.catalogue, {}) for one in asked])
            for one, value in zip(asked, made, strict=True):
                assert isinstance(value, Picture)
                rows.append({"prompt": one.prompt, "way": name, "objects": len(segments(value.pixels, 12))})
        workers.forget()
    with (out / "wide.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    counted = {name: [int(str(row["objects"])) for row in rows if row["way"] == name] for name in ways}
    found = {
        name: {
            "two objects": interval([float(count == 2) for count in counts]),
            "more": interval([float(count > 2) for count in counts]),
            "right over windows": interval(
                [float(a == 2) - float(b == 2) for a, b in zip(counts, counted["windows"], strict=True)]
            ),
        }
        for name, counts in counted.items()
    }
    (out / "wide.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
