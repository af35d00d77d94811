"""What each stage of a product photo is worth: right or wrong, sharp or not, seams, seconds and cost.

    python -m benchmarks.product_photo [--choose 20] [--prompts 80] [--quick]

Held-out prompts, half of one and half of two objects, one seed each, by the embedded family, at four times the
native pixels (128x128). The stages are those of `policies/presets/product-photo.yaml` and what could stand in their
place: a base, refined at its native size or not; enlarged (Lanczos); painted over in tiles (`tile: native`) by several
strengths; the same size drawn directly; the way the preset went until 0.2 (half as large again, painted over whole);
and a given product picture (the scene drawn exactly at 64x64) that is enlarged and painted over.

What to paint over with is chosen on `--choose` prompts: of the ways that lose no picture, in the balance, of those that
were right before, the one whose outlines are least off. It is judged on `--prompts` others with other seeds.

`results/product_photo.json`: `chosen`, and for both sets (`choose`, `judge`) a row for each way
  exact      share of right pictures, with a 95 % Wilson interval; `marks`: of each picture
  edge       mean absolute difference to the same objects drawn exactly at this size, within two pixels of an outline
  sharpness  the strongest gradients around outlines as a share of the exact drawing's; 1 is right
  strays     mean absolute difference to the exact drawing of the scene itself, for given pictures: fidelity
  seam       mean step across the borders of tiles, of what they changed, over the mean step elsewhere; 1: no seam
  gained, lost, difference   pictures that are right and were wrong before this stage, and the reverse; their share,
             with a 95 % bootstrap interval
  seconds, cost_usd   of this stage alone, a picture; the median, since other work may stop this one for a while
and `product_photo.svg` shows the second set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
SEEDS = {"choose": 83, "judge": 8300}
NATIVE, FACTOR = 64, 2
LARGE = NATIVE * FACTOR
WAYS = tuple(("sdxl-refiner", strength) for strength in (0.05, 0.1, 0.2, 0.3))
"""Models and strengths to paint over with, of which one is chosen; `embedded_sizes.py` has others at strength .3."""
MODELS = ("sdxl", "sdxl-turbo", "sdxl-refiner")
BEFORE = "polished > enlarged"
"""What the painting over is chosen for: the best of the first stages, enlarged."""

Pixels = NDArray[np.uint8]
Way = tuple[str, float]
"""A model and a strength to paint over with."""


@dataclass(frozen=True)
class Drawn:
    """The pictures of one way, one a prompt, with the median seconds and cost of its last stage.

    before: the pictures that the last stage went on from
    """

    pictures: tuple[Pixels, ...]
    seconds: float = 0.0
    cost_usd: float = 0.0
    before: Drawn | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Set:
    """Prompts with the seed of the first; the k-th has k more."""

    prompts: Sequence[Prompt]
    seed: int

    def run(self, engine: Engine, kind: str, before: Drawn | None = None, **settings: Scalar) -> Drawn:
        """A stage over all prompts, by the engine itself: planning would not let it draw at every size."""
        made, took = [], []
        for k, prompt in enumerate(self.prompts):
            inputs = () if before is None else ("before",)
            said: dict[str, Scalar] = {"prompt": prompt.text, "seed": self.seed + k, **settings}
            step = Step("it", kind, engine.card.id, inputs, "image", said)  # type: ignore[arg-type]
            done = engine.run(step, () if before is None else (Picture(before.pictures[k]),))
            assert isinstance(done.value, Picture)
            made.append(done.value.pixels)
            took.append(done.seconds)
        each = float(np.median(took))
        return Drawn(tuple(made), each, each * engine.card.usd_per_hour / 3600, before)

    def in_tiles(self, engine: Engine, before: Drawn, strength: float) -> Drawn:
        """An enlarged picture painted over in tiles, without guidance, as the cards say for tiles."""
        tiles = tiled(engine.card, "native", None, LARGE, LARGE)
        sized: dict[str, Scalar] = {"width": LARGE, "height": LARGE, "guidance_scale": 1.0, **tiles}
        return self.run(engine, "refine", before, strength=strength, **sized)


def enlarged(before: Drawn, factor: float = FACTOR) -> Drawn:
    """By Lanczos, as a recipe's `upscale` does it; what it takes is below what is measured here."""
    return Drawn(tuple(upscale(pixels, float(factor)) for pixels in before.pictures), before=before)


def firsts(at: Set, engines: Mapping[str, Engine]) -> dict[str, Drawn]:
    """The first stages, at native size."""
    refiner = engines["sdxl-refiner"]
    single, turbo = at.run(engines["sdxl"], "generate"), at.run(engines["sdxl-turbo"], "generate")
    polished = at.run(refiner, "refine", turbo, strength=0.3)
    return {"sdxl": single, "turbo": turbo, "polished": polished}


def choose(at: Set, engines: Mapping[str, Engine], ways: Sequence[Way]) -> Iterator[dict[str, Any]]:
    """Every way of painting over the best first stage."""
    first = firsts(at, engines)
    for name, drawn in first.items():
        yield row(name, at, drawn)
    large = enlarged(first["polished"])
    yield row(BEFORE, at, large)
    for model, strength in ways:
        over = at.in_tiles(engines[model], large, strength)
        yield row(f"{BEFORE} > {model} in tiles by {strength:g}", at, over) | {"painter": model, "strength": strength}


def chosen_of(rows: Sequence[Mapping[str, Any]]) -> Way:
    """Of the ways that lose nothing in the balance, the one with the least error at outlines; else the one that loses
    least."""
    painted = [one for one in rows if "painter" in one]
    most = max(one["gained"] - one["lost"] for one in painted)
    fair = [one for one in painted if one["gained"] - one["lost"] >= min(0, most)]
    best = min(fair, key=lambda one: one.get("edge", float("inf")))
    return best["painter"], best["strength"]


def judge(at: Set, engines: Mapping[str, Engine], way: Way) -> Iterator[dict[str, Any]]:
    """The way that was chosen, over the first stages and a given picture, beside what could stand in its place."""
    painter, strength = engines[way[0]], way[1]
    first = firsts(at, engines) | {"given": Drawn(tuple(render(one.scene) for one in at.prompts))}
    for name, drawn in first.items():
        yield row(name, at, drawn)
        if name in ("turbo", "sdxl"):
            continue
        large = enlarged(drawn)
        yield row(f"{name} > enlarged", at, large)
        over = at.in_tiles(painter, large, strength)
        yield row(f"{name} > enlarged > {way[0]} in tiles by {strength:g}", at, over)
    half = enlarged(first["sdxl"], 1.5)
    side = half.pictures[0].shape[0]
    former = at.run(engines["sdxl-refiner"], "refine", half, strength=0.3, width=side, height=side)
    yield row("until 0.2: sdxl > enlarged by 1.5 > sdxl-refiner whole by 0.3", at, former)
    direct = at.run(engines["sdxl-turbo"], "generate", width=LARGE, height=LARGE)
    yield row("turbo, drawn large", at, direct)


def row(way: str, at: Set, drawn: Drawn) -> dict[str, Any]:
    """What the pictures of one way are like."""
    marks, n = exact_of(drawn.pictures, at.prompts), len(at.prompts)
    low, high = wilson(sum(marks), n)
    edges = [found for pixels in drawn.pictures if (found := edge_marks(pixels)) is not None]
    told: dict[str, Any] = {"way": way, "side": drawn.pictures[0].shape[0], "exact": sum(marks) / n}
    told |= {"low": low, "high": high, "n": n, "seconds": drawn.seconds, "cost_usd": drawn.cost_usd}
    if edges:
        told |= {"edge": float(np.mean([e for _, e in edges])), "sharpness": float(np.mean([s for s, _ in edges]))}
    if way.startswith("given"):
        told["strays"] = float(np.mean([strays(p, one) for p, one in zip(drawn.pictures, at.prompts, strict=True)]))
    if drawn.before is not None:
        told |= changed(exact_of(drawn.before.pictures, at.prompts), marks, at.seed)
        if "tiles" in way:
            pairs = zip(drawn.pictures, drawn.before.pictures, strict=True)
            told["seam"] = float(np.mean([seam(a, b) for a, b in pairs]))
    rounded = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in told.items()}
    return rounded | {"marks": "".join("01"[mark] for mark in marks)}


def exact_of(pictures: Sequence[Pixels], prompts: Sequence[Prompt]) -> list[bool]:
    """Whether each picture shows what its prompt says, and nothing else."""
    return [bool(check(Image.fromarray(p), one.scene).exact) for p, one in zip(pictures, prompts, strict=True)]


def changed(before: Sequence[bool], after: Sequence[bool], seed: int) -> dict[str, Any]:
    """Right pictures that a stage made and lost, and the share of their balance with its interval."""
    steps = np.array(after, int) - np.array(before, int)
    drawn = np.random.default_rng(seed).integers(0, len(steps), (4000, len(steps)))
    low, high = np.quantile(steps[drawn].mean(axis=1), (0.025, 0.975))
    told = {"gained": int((steps > 0).sum()), "lost": int((steps < 0).sum())}
    return told | {"difference": float(steps.mean()), "difference_low": float(low), "difference_high": float(high)}


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


def plot(rows: Sequence[Mapping[str, Any]], to: Path) -> None:
    """Marks with their intervals, and how far outlines are off, a line for each way."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "triptych"
    figure = Figure(figsize=(9, 0.34 * len(rows) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for place, one in enumerate(rows):
        colour = "#c0392b" if "drawn large" in one["way"] else "#1f6f8b" if "tiles" in one["way"] else "#555555"
        left.plot([one["low"], one["high"]], [place, place], color=colour, linewidth=2)
        left.plot(one["exact"], place, "o", color=colour)
        if "edge" in one:
            right.plot(one["edge"], place, "o", color=colour)
    left.set(xlabel=f"exactly right, of {rows[0]['n']} prompts, 95 %", xlim=(0, 1.02))
    right.set(xlabel="error at outlines, levels of 255", xlim=(0, None))
    left.set_yticks(range(len(rows)), [one["way"] for one in rows], fontsize=8)
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(to, metadata={"Date": None})


def sheet(at: Set, engines: Mapping[str, Engine], way: Way, to: Path, rows: int = 4) -> None:
    """Some pictures side by side: enlarged, painted over, drawn large, and the scene drawn exactly."""
    some = Set([*at.prompts[: rows // 2], *at.prompts[-(rows // 2) :]], at.seed)
    large = enlarged(firsts(some, engines)["polished"])
    over = some.in_tiles(engines[way[0]], large, way[1])
    direct = some.run(engines["sdxl-turbo"], "generate", width=LARGE, height=LARGE)
    exact = [render(one.scene, LARGE) for one in some.prompts]
    columns = (large.pictures, over.pictures, direct.pictures, exact)
    gap = np.full((LARGE, 8, 3), 255, np.uint8)
    lines = [np.concatenate([part for column in columns for part in (column[k], gap)], axis=1) for k in range(rows)]
    across = np.full((8, lines[0].shape[1], 3), 255, np.uint8)
    whole = np.concatenate([part for line in lines for part in (line, across)])
    Image.fromarray(np.kron(whole, np.ones((2, 2, 1), np.uint8))).save(to, optimize=True)


def set_of(name: str, count: int) -> Set:
    """Half of one object, half of two."""
    half, seed = count // 2, SEEDS[name]
    return Set(held_out_prompts("one", count - half, seed) + held_out_prompts("two", half, seed), seed)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--choose", type=int, default=20, help="prompts to choose by")
    made.add_argument("--prompts", type=int, default=80, help="prompts to judge by")
    asked = made.parse_args(argv)
    ways = WAYS[1:2] if asked.quick else WAYS
    sets = {
        name: set_of(name, 2 if asked.quick else n) for name, n in (("choose", asked.choose), ("judge", asked.prompts))
    }
    catalogue = load_catalogue({name: f"embedded/{name}" for name in MODELS})
    engines = {name: load_engine(catalogue[name], threads=1) for name in MODELS}

    def told(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        found = []
        for one in rows:
            print(json.dumps({key: value for key, value in one.items() if key != "marks"}), flush=True)
            found.append(one)
        return found

    with results(asked, RESULTS, is_full(made, asked)) as out:
        chosen = told(choose(sets["choose"], engines, ways))
        way = chosen_of(chosen)
        print(f"chosen: {way[0]} in tiles by {way[1]:g}", flush=True)
        judged = told(judge(sets["judge"], engines, way))
        rows = {"choose": chosen, "judge": judged}
        lines = [
            f'"{name}": [\n' + ",\n".join(json.dumps(one) for one in found) + "\n]" for name, found in rows.items()
        ]
        body = ",\n".join([f'"chosen": {json.dumps(way)}', f'"seeds": {json.dumps(SEEDS)}', *lines])
        (out / "product_photo.json").write_text("{\n" + body + "\n}\n")
        plot(judged, out / "product_photo.svg")
        sheet(sets["judge"], engines, way, out / "product_photo.png")


if __name__ == "__main__":
    main()
