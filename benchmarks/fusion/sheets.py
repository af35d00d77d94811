"""Contact sheets: for every kind of fusion and chain its inputs, what decides between them, and the result.

    python -m benchmarks.fusion.sheets [--quick] [SHEET ...]

Writes `sheets/<kind>.png`, each row one prompt, and `sheets/seams.json`: how steep the result is where the mask changes
sides, as a multiple of the inputs there, beside a hard cut of the same inputs by the same mask. `--quick` draws one row
of three sheets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from benchmarks.command import is_full, parser, results
from benchmarks.embedded_outcomes.run import Workers
from benchmarks.fusion.agreement import HIGH, LOW
from benchmarks.fusion.recipes import ENSEMBLES, RECIPES, SCORER, SINGLES
from benchmarks.fusion.run import catalogue
from benchmarks.fusion.seams import seam
from models.fusion.agreement import disagreement
from models.fusion.blending import pyramid_weights
from models.fusion.kinds import fuse
from models.fusion.regions import compose, looks
from models.handover import resize
from policies.language.schema_recipes import USUAL_WITHIN
from router.planning.plan import make_plan
from router.prompts.phrases import object_phrases
from router.types import Chain, Fuse, Generate, GenerationRequest, Picture, Recipe, Refine, Upscale, Value

Pixels = NDArray[np.uint8]
HERE = Path(__file__).resolve().parent
SIDE = 192
PROMPTS = (
    ("a red circle and a blue square", 3),
    ("a large green star on a black background", 1),
    ("a yellow ring above a purple triangle", 5),
)
BASE = SINGLES["sdxl"]
AGAIN = Chain((BASE, Refine("sd15", steps=6, strength=0.5)))


class Studio:
    """Pictures of recipes, and rows of labelled pictures."""

    def __init__(self) -> None:
        self.workers = Workers(catalogue())

    def values(self, recipe: Recipe, prompt: str, seed: int, **size: int) -> dict[str, Value]:
        """Every step's value by id; the last one is the answer."""
        request = GenerationRequest(prompt, seed=seed, **size)  # type: ignore[arg-type]
        plan = make_plan("sheet", recipe, request, self.workers.catalogue, {})
        self.workers.forget()
        found: dict[str, Value] = {}
        for step in plan.steps:
            inputs = tuple(found[name] for name in step.inputs)
            found[step.id] = self.workers._run([step], [inputs])[0].value
        return found

    def picture(self, recipe: Recipe, prompt: str, seed: int, **size: int) -> Pixels:
        """The answer of a recipe."""
        value = list(self.values(recipe, prompt, seed, **size).values())[-1]
        assert isinstance(value, Picture)
        return value.pixels

    def score(self, pictures: Sequence[Pixels], prompt: str) -> tuple[float, ...]:
        """Of the embedded verifier."""
        return tuple(self.workers.engine(SCORER).scorer.score(pictures, prompt))


Row = list[tuple[str, Pixels]]


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("sheets", nargs="*", metavar="SHEET", help=f"of {', '.join(SHEETS)} (default: all)")
    chosen = made.parse_args(argv)
    if unknown := [name for name in chosen.sheets if name not in SHEETS]:
        made.error(f"there is no sheet {', '.join(unknown)}; known: {', '.join(SHEETS)}")
    with results(chosen, HERE / "sheets", is_full(made, chosen)) as out:
        if chosen.quick:
            draw(chosen.sheets or QUICK, PROMPTS[:1], out)
        else:
            draw(chosen.sheets or list(SHEETS), PROMPTS, out)


def draw(asked: Sequence[str], prompts: Sequence[tuple[str, int]], out: Path) -> None:
    """The sheets that are asked for, and the seams beside them; those of other sheets stay."""
    studio, file = Studio(), out / "seams.json"
    seams: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    for name in asked:
        rows_of = SHEETS[name]
        rows = []
        for prompt, seed in prompts:
            row, found = rows_of(studio, prompt, seed)
            rows.append(row)
            if found is not None:
                seams[f"{name}: {prompt}"] = found
        sheet(rows).save(out / f"{name}.png", optimize=True)
    file.write_text(json.dumps(seams, indent=1) + "\n")


Seams = dict[str, float] | None


def blended(method: str, weights: str = "") -> Callable[[Studio, str, int], tuple[Row, Seams]]:
    """Two pictures of one composition: SDXL's, and the same repainted by SD1.5."""

    def row(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
        first, second = studio.picture(BASE, prompt, seed), studio.picture(AGAIN, prompt, seed)
        made = fuse(f"{method} by {weights}" if weights not in ("", "contrast") else method, [first, second])
        cells = [("sdxl", first), ("repainted by sd15", second)]
        if not weights:
            return [*cells, (method, made)], None
        share = pyramid_weights([first, second], weights)[0]
        return [*cells, ("share of the first", grey(share)), (method, made)], measured(made, share, first, second)

    return row


def mask_of_two(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """Two pictures of unlike composition: where each stands out decides."""
    first, second = studio.picture(BASE, prompt, seed), studio.picture(SINGLES["sd15"], prompt, seed + 1)
    share = pyramid_weights([first, second], "mask")[0]
    made = fuse("pyramid by mask", [first, second])
    row = [("sdxl", first), ("sd15, another seed", second), ("mask of the first", grey(share)), ("pyramid", made)]
    return row, measured(made, share, first, second)


def regions(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """Each object from the picture in which the verifier likes it best; here all are forced to mix."""
    phrases = [phrase.text for phrase in object_phrases(prompt)]
    first, second = studio.picture(BASE, prompt, seed), studio.picture(SINGLES["sd15"], prompt, seed + 1)
    found = list(looks([first, second], len(phrases) + 2))
    scores = [list(studio.score([alone for _, alone in found], phrase)) for phrase in phrases]
    # The sheet shows seams, so the first phrase must come from the first picture and the others from the second.
    forced = [
        [value * (segment.picture == min(k, 1)) for value, (segment, _) in zip(row, found, strict=True)]
        for k, row in enumerate(scores)
    ]
    made, sources = compose([first, second], forced, len(phrases) + 2)
    taken = np.zeros(first.shape[:2], bool)
    for row in forced[1:]:
        if row:
            taken |= found[int(np.argmax(row))][0].mask
    rim = cv2.dilate(taken.astype(np.uint8), np.ones((7, 7))).astype(np.float32)
    cells = [("sdxl", first), ("sd15, another seed", second), ("from the second", grey(rim)), (f"from {sources}", made)]
    return cells, measured(made, 1 - rim, first, second) if len(set(sources)) > 1 else None


def harmonised(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """A fusion, and the same refined lightly."""
    fused = Fuse("pyramid", (BASE, AGAIN))
    last = Chain((fused, Refine("sdxl-refiner", steps=10, strength=0.15)))
    return [("pyramid", studio.picture(fused, prompt, seed)), ("harmonised", studio.picture(last, prompt, seed))], None


def chains(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """FLUX and SDXL alone and refined."""
    kinds: Mapping[str, Recipe] = {
        "sdxl": BASE,
        "sdxl > refiner": Chain((Generate("sdxl", steps=10, until=0.8), Refine("sdxl-refiner", from_=0.8))),
        "flux": SINGLES["flux"],
        "flux > refiner 0.25": Chain((SINGLES["flux"], Refine("sdxl-refiner", steps=10, strength=0.25))),
        "flux > sdxl 0.25": Chain((SINGLES["flux"], Refine("sdxl", steps=10, strength=0.25))),
        "sdxl 0.5 > sd15": Chain((Generate("sdxl", steps=10, until=0.5), Refine("sd15", from_=0.5))),
    }
    return [(name, studio.picture(recipe, prompt, seed)) for name, recipe in kinds.items()], None


def tiled(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """Enlarged by 2, refined in tiles of the native size, and windows from noise at twice the width."""
    small, large = studio.picture(BASE, prompt, seed), Chain((BASE, Upscale(2)))
    tiles = Chain((BASE, Upscale(2), Refine("sdxl", strength=0.1, steps=20, tile="native", overlap=0.5)))
    wide = studio.picture(Generate("sdxl", steps=10, tile="native", overlap=0.5), prompt, seed, width=128, height=64)
    made = studio.picture(tiles, prompt, seed, width=128, height=128)
    enlarged = studio.picture(large, prompt, seed, width=128, height=128)
    lines = np.zeros(made.shape[:2], np.float32)
    lines[:, made.shape[1] // 2 :] = 1.0
    cells = [("sdxl", small), ("enlarged", enlarged), ("refined in 9 tiles", made), ("windows 128x64", wide)]
    return cells, {"made": round(seam(made, lines, [enlarged]), 3)}


def together(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """SDXL, the turbo model on the same schedule, and both in every step."""
    names = ("sdxl in 4", "turbo in 4", *(name for name in ENSEMBLES if "turbo" in name))
    return [(name, studio.picture(RECIPES[name], prompt, seed)) for name in names], None


def unlike(studio: Studio, prompt: str, seed: int) -> tuple[Row, Seams]:
    """What `studio` of the preset `best` fuses, blended in any case, and only if the pictures agree."""
    low, high = studio.picture(LOW, prompt, seed), studio.picture(HIGH, prompt, seed)
    kept = studio.picture(Fuse("frequency", (LOW, HIGH), SCORER, blend_within=USUAL_WITHIN), prompt, seed)
    row = [("flux > refiner", low), ("sdxl > refiner", high), ("frequency", fuse("frequency", [low, high]))]
    return [*row, (f"within {USUAL_WITHIN:g} ({disagreement([low, high]):.2f})", kept)], None


SHEETS: dict[str, Callable[[Studio, str, int], tuple[Row, Seams]]] = {
    "average": blended("average"),
    "frequency": blended("frequency"),
    "pyramid-contrast": blended("pyramid", "contrast"),
    "pyramid-saliency": blended("pyramid", "saliency"),
    "pyramid-mask": mask_of_two,
    "regions": regions,
    "harmonise": harmonised,
    "chains": chains,
    "tiles": tiled,
    "denoise": together,
    "unlike": unlike,
}


QUICK = ("pyramid-contrast", "pyramid-mask", "regions")


def measured(made: Pixels, share: NDArray[np.float32], first: Pixels, second: Pixels) -> dict[str, float]:
    """The seam of the result and that of a hard cut."""
    cut = np.where(share[..., None] > 0.5, first, second)
    return {name: round(seam(one, share, [first, second]), 3) for name, one in (("made", made), ("hard cut", cut))}


def grey(share: NDArray[np.float32]) -> Pixels:
    """A weight in 0..1 as a picture."""
    return np.repeat(np.rint(share * 255).astype(np.uint8)[..., None], 3, axis=2)


def sheet(rows: Sequence[Row]) -> Image.Image:
    """Rows of pictures with a line of text above each, all SIDE pixels high."""
    label = 16
    columns = max(len(row) for row in rows)
    width = max(sum(_width(pixels) + 8 for _, pixels in row) for row in rows)
    made = Image.new("RGB", (max(width, columns), len(rows) * (SIDE + label + 8)), (90, 110, 120))
    draw, font = ImageDraw.Draw(made), ImageFont.load_default()
    for number, row in enumerate(rows):
        left, top = 4, number * (SIDE + label + 8) + 4
        for text, pixels in row:
            draw.text((left, top), text, fill=(255, 255, 255), font=font)
            made.paste(Image.fromarray(resize(np.ascontiguousarray(pixels), _width(pixels), SIDE)), (left, top + label))
            left += _width(pixels) + 8
    return made


def _width(pixels: Pixels) -> int:
    return round(pixels.shape[1] * SIDE / pixels.shape[0])


if __name__ == "__main__":
    main()
