"""What each stage of a product photo is worth: right or wrong, sharp or not, seams, seconds and cost.

    python -m benchmarks.product_photo [--prompts 40] [--quick]

Held-out prompts of one and of two objects, one seed each, by the embedded family, at four times the native pixels
(128x128). The stages are those of `policies/presets/product-photo.yaml` and what could stand in their place: a base,
refined at its native size or not; enlarged (Lanczos); painted over in tiles by several strengths; the same size drawn
directly; and a given product picture (the scene drawn exactly at 64x64) that is enlarged and painted over.

`results/product_photo.json` has a row for each way:
  exact      share of right pictures, with a 95 % Wilson interval
  edge       mean absolute difference to the same objects drawn exactly at this size, within two pixels of an outline
  sharpness  the strongest gradients around outlines as a share of the exact drawing's; 1 is right
  strays     mean absolute difference to the exact drawing of the scene itself, for given pictures: fidelity
  seam       mean step across the borders of tiles, of what the tiles changed, over the mean step elsewhere; 1: no seam
  seconds, cost_usd   of this stage alone, a picture
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.command import is_full, parser, results
from benchmarks.fusion.edges import edge_marks
from models import Engine, load_catalogue, load_engine
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts, wilson
from models.embedded.world import render
from models.handover import upscale
from router.planning.tiling import tiled
from router.types import Picture, Scalar, Step

RESULTS = Path(__file__).resolve().parent / "results"
SEED = 83
NATIVE, FACTOR = 64, 2
LARGE = NATIVE * FACTOR
STRENGTHS = (0.05, 0.15, 0.3)
MODELS = ("sdxl", "sdxl-turbo", "sdxl-refiner")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Drawn:
    """The pictures of one way, one a prompt, with the mean seconds and cost of its last stage."""

    pictures: tuple[Pixels, ...]
    seconds: float = 0.0
    cost_usd: float = 0.0


def run(engine: Engine, kind: str, prompts: Sequence[Prompt], before: Drawn | None = None, **settings: Scalar) -> Drawn:
    """A stage over all prompts, by the engine itself: planning would not let it draw at every size."""
    made, took = [], 0.0
    for k, prompt in enumerate(prompts):
        inputs = () if before is None else ("before",)
        step = Step("it", kind, engine.card.id, inputs, "image", {"prompt": prompt.text, "seed": k, **settings})  # type: ignore[arg-type]
        done = engine.run(step, () if before is None else (Picture(before.pictures[k]),))
        assert isinstance(done.value, Picture)
        made.append(done.value.pixels)
        took += done.seconds
    each = took / len(prompts)
    return Drawn(tuple(made), each, each * engine.card.usd_per_hour / 3600)


def enlarged(before: Drawn) -> Drawn:
    """By Lanczos, as a recipe's `upscale` does it; what it takes is below what is measured here."""
    return Drawn(tuple(upscale(pixels, float(FACTOR)) for pixels in before.pictures))


def measured(prompts: Sequence[Prompt], strengths: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Every row."""
    catalogue = load_catalogue({name: f"embedded/{name}" for name in MODELS})
    sdxl, turbo, refiner = (load_engine(catalogue[name]) for name in MODELS)
    single = run(sdxl, "generate", prompts)
    quick = run(turbo, "generate", prompts)
    polished = run(refiner, "refine", prompts, quick, strength=0.3)
    shop = Drawn(tuple(render(prompt.scene) for prompt in prompts))
    for name, base in (("sdxl", single), ("turbo > refined", polished), ("given", shop)):
        yield row(name, prompts, base)
        large = enlarged(base)
        yield row(f"{name} > enlarged", prompts, large)
        tiles = tiled(refiner.card, "native", None, LARGE, LARGE)
        for strength in strengths:
            common: dict[str, Scalar] = {"width": LARGE, "height": LARGE, "guidance_scale": 1.0, **tiles}
            over = run(refiner, "refine", prompts, large, strength=strength, **common)
            yield row(f"{name} > enlarged > in tiles by {strength:g}", prompts, over, large)
    for name, engine in (("sdxl", sdxl), ("turbo", turbo)):
        yield row(f"{name}, drawn large", prompts, run(engine, "generate", prompts, width=LARGE, height=LARGE))


def row(way: str, prompts: Sequence[Prompt], drawn: Drawn, tiled_over: Drawn | None = None) -> dict[str, Any]:
    """What the pictures of one way are like."""
    exact = sum(check(Image.fromarray(p), one.scene).exact for p, one in zip(drawn.pictures, prompts, strict=True))
    low, high = wilson(exact, len(prompts))
    edges = [found for pixels in drawn.pictures if (found := edge_marks(pixels)) is not None]
    told: dict[str, Any] = {"way": way, "side": drawn.pictures[0].shape[0], "exact": exact / len(prompts)}
    told |= {"low": low, "high": high, "n": len(prompts), "seconds": drawn.seconds, "cost_usd": drawn.cost_usd}
    if edges:
        told |= {"edge": float(np.mean([e for _, e in edges])), "sharpness": float(np.mean([s for s, _ in edges]))}
    if way.startswith("given"):
        told["strays"] = float(np.mean([strays(p, one) for p, one in zip(drawn.pictures, prompts, strict=True)]))
    if tiled_over is not None:
        told["seam"] = float(np.mean([seam(a, b) for a, b in zip(drawn.pictures, tiled_over.pictures, strict=True)]))
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in told.items()}


def strays(pixels: Pixels, prompt: Prompt) -> float:
    """Mean levels of 255 from the scene drawn exactly at this size."""
    return float(np.abs(pixels.astype(float) - render(prompt.scene, pixels.shape[0])).mean())


def seam(painted: Pixels, before: Pixels) -> float:
    """The step across the borders of tiles over the step elsewhere, of the change: what was there does not count."""
    change = painted.astype(float) - before.astype(float)
    steps = [np.abs(np.diff(change, axis=axis)).mean(axis=(1 - axis, 2)) for axis in (0, 1)]
    side = painted.shape[0]
    starts = {0, side - NATIVE, (side - NATIVE) // 2}
    borders = sorted({at for start in starts for at in (start, start + NATIVE)} - {0, side})
    at_borders = np.mean([along[at - 1] for along in steps for at in borders])
    elsewhere = np.mean([np.delete(along, [at - 1 for at in borders]).mean() for along in steps])
    return float(at_borders / max(elsewhere, 1e-9))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=40, help="of which half have two objects")
    asked = made.parse_args(argv)
    count, strengths = (2, STRENGTHS[1:2]) if asked.quick else (asked.prompts, STRENGTHS)
    half = count // 2
    prompts = held_out_prompts("one", count - half, SEED) + held_out_prompts("two", half, SEED)
    with results(asked, RESULTS, is_full(made, asked)) as out:
        rows = []
        for found in measured(prompts, strengths):
            print(json.dumps(found), flush=True)
            rows.append(found)
        (out / "product_photo.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


if __name__ == "__main__":
    main()
