"""At which sizes the embedded models are good, and by which guidance they work in tiles; marks by the exact checker.

    python -m benchmarks.embedded_sizes [--prompts 40] [--models sd15,sdxl] [--quick]

Held-out prompts of one and of two objects, one seed each. A picture of another shape than a square is put in the middle
of one of its own background before it is marked, so that no circle is squeezed; the same is done to a good picture as a
control (`control`, 64x64 enlarged into such a square). `results/embedded_sizes.json` has exact marks with 95 % Wilson
intervals, a row for each model, size and way. `--quick` draws two prompts by one model, at some of the sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.command import is_full, parser, results
from models import Engine, load_catalogue, load_engine
from models.embedded.checker import check
from models.embedded.outcomes import Prompt, held_out_prompts, wilson
from models.handover import upscale
from router.planning.tiling import tiled
from router.types import Picture, Scalar, Step, Value

RESULTS = Path(__file__).resolve().parent / "results"
SEED, BATCH = 71, 10
MODELS = ("sd15", "sdxl", "sdxl-turbo", "flux")
SIZES = (
    *((side, side) for side in (64, 32, 48, 56, 72, 80, 96, 128)),
    *((72, 64), (64, 72), (96, 64), (64, 96), (128, 64)),
)  # fmt: skip
TILED = ("sdxl-refiner", "sdxl", "sd15", "flux")
"""Models that paint over an enlarged picture of the turbo model, whole and in tiles, by guidance."""


def squared(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (h, w, 3) in the middle of a square of its own background."""
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    side = max(height, width)
    made = np.broadcast_to(np.median(border, axis=0).astype(np.uint8), (side, side, 3)).copy()
    top, left = (side - height) // 2, (side - width) // 2
    made[top : top + height, left : left + width] = pixels
    return made


def row(model: str, way: str, size: tuple[int, int], pictures: Sequence[NDArray], prompts: Sequence[Prompt]) -> dict:
    """Marks of pictures, as a row of the results."""
    exact = sum(check(Image.fromarray(squared(p)), one.scene).exact for p, one in zip(pictures, prompts, strict=True))
    low, high = wilson(exact, len(prompts))
    found = {"model": model, "way": way, "size": f"{size[0]}x{size[1]}", "exact": round(exact / len(prompts), 4)}
    return found | {"low": round(low, 4), "high": round(high, 4), "n": len(prompts)}


def draw(
    engine: Engine, kind: str, prompts: Sequence[Prompt], given: Sequence[Value] = (), **settings: Scalar
) -> list[NDArray[np.uint8]]:
    """One picture a prompt, by the engine itself: planning would not let it draw at every size."""
    made: list[NDArray[np.uint8]] = []
    inputs = ("before",) if given else ()
    for k, prompt in enumerate(prompts):
        step = Step("it", kind, engine.card.id, inputs, "image", {"prompt": prompt.text, "seed": k, **settings})  # type: ignore[arg-type]
        value = engine.run(step, (given[k],) if given else ()).value
        assert isinstance(value, Picture)
        made.append(value.pixels)
    return made


def measured(
    models: Sequence[str],
    prompts: Sequence[Prompt],
    sizes: Sequence[tuple[int, int]] = SIZES,
    factors: Sequence[float] = (1.5, 2.0),
) -> Iterator[dict]:
    """Every row: from noise at every size; then over an enlarged picture, whole and in tiles."""
    catalogue = load_catalogue({name: f"embedded/{name}" for name in (*MODELS, "sdxl-refiner")})
    for model in models:
        engine = load_engine(catalogue[model])
        for width, height in sizes:
            pictures = draw(engine, "generate", prompts, width=width, height=height)
            yield row(model, "from noise", (width, height), pictures, prompts)
    turbo = load_engine(catalogue["sdxl-turbo"])
    small = draw(turbo, "generate", prompts, width=64, height=64)
    yield row("sdxl-turbo", "control: 64x64 in a larger square", (64, 64), [framed(p) for p in small], prompts)
    for factor in factors:
        side = round(64 * factor)
        large = [upscale(pixels, factor) for pixels in small]
        yield row("sdxl-turbo", "enlarged", (side, side), large, prompts)
        for model in TILED:
            if model not in models and model != "sdxl-refiner":
                continue
            card = catalogue[model]
            engine = load_engine(card)
            tiles = tiled(card, "native", None, side, side)
            for guidance in (1.0, card.guidance_scale):
                for way, extra in (("whole", {}), ("in tiles", tiles)):
                    common = {"width": side, "height": side, "strength": 0.3, "guidance_scale": guidance, **extra}
                    pictures = draw(engine, "refine", prompts, [Picture(p) for p in large], **common)
                    yield row(model, f"painted over {way}, guidance {guidance:g}", (side, side), pictures, prompts)


def framed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A 64x64 picture in the middle of a 96x64 one, as a picture of that shape that is right would look."""
    made = np.broadcast_to(np.median(pixels[0], axis=0).astype(np.uint8), (64, 96, 3)).copy()
    made[:, 16:80] = pixels
    return made


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--prompts", type=int, default=40, help="of which half have two objects")
    made.add_argument("--models", default=",".join(MODELS))
    asked = made.parse_args(argv)
    count, models = (2, ("sdxl-turbo",)) if asked.quick else (asked.prompts, tuple(asked.models.split(",")))
    half = count // 2
    prompts = held_out_prompts("one", count - half, SEED) + held_out_prompts("two", half, SEED)
    rows = []
    with results(asked, RESULTS, is_full(made, asked)) as out:
        for found in measured(models, prompts, *((SIZES[:3], (1.5,)) if asked.quick else ())):
            print(json.dumps(found), flush=True)
            rows.append(found)
            (out / "embedded_sizes.json").write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")


if __name__ == "__main__":
    main()
