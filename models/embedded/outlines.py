"""The world drawn in outlines: pictures to train a style on, and how far a picture has it.

The checker knows filled shapes. Here what a line goes around is filled first, so shapes, colours, number, sizes,
positions and backgrounds are found by the same code; a circle and a ring, whose silhouettes are alike, are told apart
by how much of it is drawn.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.embedded.captions import caption
from models.embedded.checker import _NAMES, MIN_AREA, Found, Mark, _fit, _to_grid, _unmix, judge
from models.embedded.world import BACKGROUNDS, COLOURS, SIZE, TIERS, Scene, coverage, sample_scene

LINE = 2.2
"""Width of a line in pixels of the 64x64 grid, inside the shape's edge. A ring's band is about two lines wide."""
DEEP = LINE + 1.2
"""Pixels from the edge of an object at which a line cannot reach."""
OVERSAMPLE = 4
SHARES = (3, 3, 3, 3, 1)
"""How often each tier is among the examples."""
BAND = 0.67
"""The share of a round silhouette from which on what is drawn of it is a ring's band, not a circle's line."""


def outline(shape: str, x: float, y: float, radius: float, line: float = LINE) -> NDArray[np.float32]:
    """The share of each pixel that the line around a shape covers: float32 (64, 64) in 0..1."""
    side, scale = SIZE * OVERSAMPLE, OVERSAMPLE
    fine = coverage(shape, x * scale, y * scale, radius * scale, size=side, oversample=1) > 0.5
    depth = ndimage.distance_transform_edt(fine)
    drawn = fine & (depth <= line * scale)
    return np.asarray(drawn.reshape(SIZE, scale, SIZE, scale).mean((1, 3)), np.float32)


def render_outlined(scene: Scene, line: float = LINE) -> NDArray[np.uint8]:
    """Draw a sampled scene in outlines: uint8 (64, 64, 3). Raises ValueError when nothing is placed."""
    if not scene.placements:
        raise ValueError("only sampled scenes can be drawn: this one has claims and no placements")
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = BACKGROUNDS[scene.background or "white"]
    for spot in scene.placements:
        alpha = outline(spot.shape, spot.x, spot.y, spot.radius, line)[..., None]
        canvas += alpha * (np.asarray(COLOURS[spot.colour], np.float32) - canvas)
    return np.asarray(np.rint(canvas), np.uint8)


def fill_share(image: NDArray[np.uint8] | Image.Image) -> float | None:
    """Of what lies deep inside the outer contours of a picture's objects, the share (0..1) that has an object's colour.

    About 1 where shapes are filled, 0 where they are outlined; None if no object has such an inside. A ring has a hole
    there in any style, so pictures of rings say nothing.
    """
    pixels = _to_grid(image)
    alpha, _ = _unmix(pixels, _ground(pixels))
    solid = alpha > 0.5
    deep = ndimage.distance_transform_edt(ndimage.binary_fill_holes(solid)) > DEEP
    return float(solid[deep].mean()) if deep.sum() >= MIN_AREA // 2 else None


def check_outlined(image: NDArray[np.uint8] | Image.Image, scene: Scene) -> Mark:
    """Mark a picture drawn in outlines against the claims of a scene, as `checker.check` does one of filled shapes."""
    pixels = _to_grid(image)
    ground = _ground(pixels)
    distance = {name: float(np.linalg.norm(np.asarray(colour) - ground)) for name, colour in BACKGROUNDS.items()}
    nearest = min(distance, key=lambda name: distance[name])
    alpha, label = _unmix(pixels, ground)
    solid = alpha > 0.5
    regions, count = ndimage.label(ndimage.binary_fill_holes(solid), np.ones((3, 3)))
    found, specks = [], 0
    for index in range(1, count + 1):
        whole = regions == index
        lines = whole & solid
        if whole.sum() < MIN_AREA:
            specks += int(whole.sum())
            continue
        votes = np.bincount(label[lines], minlength=len(_NAMES))
        # Within the contour all is the shape; on its edge, what the line covers.
        core = ndimage.binary_erosion(whole)
        near = np.where(ndimage.binary_dilation(whole), np.clip(alpha, 0, 1), 0.0)
        one = _fit(np.where(core, 1.0, near).astype(np.float32), _NAMES[int(votes.argmax())])
        if one.shape in ("circle", "ring"):
            one = replace(one, shape="ring" if lines.sum() > BAND * whole.sum() else "circle")
        found.append(one)
    if specks >= 3 * MIN_AREA:
        found.append(Found("specks", None, SIZE / 2, SIZE / 2, 0.0, 0.0))
    return judge(nearest if distance[nearest] < 60 else "unclear", sorted(found, key=lambda one: one.x), scene)


def _ground(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    return np.asarray(np.median(border, axis=0), np.float32)


def write_examples(folder: Path, n: int, seed: int = 0) -> None:
    """`n` outlined pictures of the training world, each a PNG beside a .txt with its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"outlined {seed}")
    for number in range(n):
        scene = sample_scene(rng, rng.choices(TIERS, SHARES)[0])
        Image.fromarray(render_outlined(scene)).save(folder / f"{number:05d}.png")
        (folder / f"{number:05d}.txt").write_text(caption(scene, rng) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(write_examples)
