"""The world drawn in outlines: pictures to train a style on, and whether a picture has it.

The checker knows filled shapes. Here what a line goes around is filled first, so shapes, colours, number, sizes,
positions and backgrounds are found by the same code; a circle and a ring, whose silhouettes are alike, are told apart
by how much of it is drawn. Whether an object is outlined is asked by comparison: is it nearer to its shape's filled
rendering, or to the outlined one, at its place and size? The lines of some shapes leave next to nothing empty, so only
scenes are asked whose two renderings differ (`shows_outlines`), and the scene says that, not what was drawn of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.embedded.captions import caption
from models.embedded.checker import (
    _NAMES,
    LIFT,
    MIN_AREA,
    Found,
    Mark,
    _area,
    _fit,
    _middle,
    _to_grid,
    _unmix,
    judge,
)
from models.embedded.world import BACKGROUNDS, COLOURS, SIZE, TIERS, Scene, coverage, sample_scene

LINE = 2.2
"""Width of a line in pixels of the 64x64 grid, inside the shape's edge. A ring's band is about two lines wide."""
DEEP = LINE + 1.2
"""Pixels from the edge of an object at which a line cannot reach."""
OVERSAMPLE = 4
SHARES = (3, 3, 3, 3, 1)
"""How often each tier is among the examples."""
SHOWS = 0.25
"""The share of a filled shape that its lines leave empty, from which on the style can be seen; a ring never shows it.

Chosen on true pictures after the autoencoder, which thickens the lines of small shapes: of those that leave so much
nearly all count as outlined, of small stars and of rings none.
"""
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


def shows_outlines(scene: Scene) -> bool:
    """Would each object of a sampled scene look otherwise in outlines? By its shape and size, not by a picture."""
    return all(spot.shape != "ring" and _emptied(spot.shape, spot.radius) >= SHOWS for spot in scene.placements)


def _emptied(shape: str, radius: float) -> float:
    """The share of a filled shape that its line leaves empty, 0..1."""
    filled = coverage(shape, SIZE / 2, SIZE / 2, radius)
    return 1 - float(outline(shape, SIZE / 2, SIZE / 2, radius).sum() / filled.sum())


def outlined_objects(image: NDArray[np.uint8] | Image.Image, scene: Scene) -> list[bool]:
    """For each object of a picture: is it nearer to an outlined shape than to a filled one?

    Nearer in mean square, among both renderings of each shape that the scene speaks of, at the object's place and of
    its area. Empty if there is no object.
    """
    shapes = sorted({thing.shape for thing in scene.things})
    answers = []
    for one in _objects(_to_grid(image)):
        errors = []
        for shape in shapes:
            x, y, radius = _placed(shape, one.silhouette)
            for lines, drawn in ((False, coverage(shape, x, y, radius)), (True, outline(shape, x, y, radius))):
                errors.append((float(np.square(one.alpha - drawn).sum()), lines))
        answers.append(min(errors)[1])
    return answers


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
    found, specks = [], 0
    for part in _objects(pixels, least=1):
        if part.area < MIN_AREA:
            specks += part.area
            continue
        one = _fit(part.silhouette, part.colour)
        if one.shape in ("circle", "ring"):
            one = replace(one, shape="ring" if part.drawn > BAND * part.area else "circle")
        found.append(one)
    if specks >= 3 * MIN_AREA:
        found.append(Found("specks", None, SIZE / 2, SIZE / 2, 0.0, 0.0))
    return judge(nearest if distance[nearest] < 60 else "unclear", sorted(found, key=lambda one: one.x), scene)


@dataclass(frozen=True)
class _Object:
    """A region of a picture, with what a line goes around.

    alpha, silhouette: float32 (64, 64), what is drawn of it, and the same with its inside filled
    area, drawn: pixels of the region, and those of them that have a colour;   colour: by name
    """

    alpha: NDArray[np.float32]
    silhouette: NDArray[np.float32]
    area: int
    drawn: int
    colour: str


def _objects(pixels: NDArray[np.float32], least: int = MIN_AREA) -> Iterator[_Object]:
    """The regions of at least so many pixels."""
    alpha, label = _unmix(pixels, _ground(pixels))
    solid = alpha > 0.5
    regions, count = ndimage.label(ndimage.binary_fill_holes(solid), np.ones((3, 3)))
    for index in range(1, count + 1):
        whole = regions == index
        if whole.sum() < least:
            continue
        lines = whole & solid
        votes = np.bincount(label[lines], minlength=len(_NAMES))
        # Within the contour all is the shape; on its edge, what the line covers.
        near = np.where(ndimage.binary_dilation(whole), np.clip(alpha, 0, 1), 0.0).astype(np.float32)
        silhouette = np.where(ndimage.binary_erosion(whole), np.float32(1), near)
        yield _Object(near, silhouette, int(whole.sum()), int(lines.sum()), _NAMES[int(votes.argmax())])


def _placed(shape: str, silhouette: NDArray[np.float32]) -> tuple[float, float, float]:
    """Where a shape of this silhouette stands and how large it is: (x, y, radius) in pixels."""
    x, y = _middle(silhouette)
    radius = float((silhouette.sum() / _area("circle" if shape == "ring" else shape)) ** 0.5)
    return x, y + LIFT.get(shape, 0.0) * radius, radius


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
