"""The exact checker: finds the objects of a picture and compares them with what a scene claims.

It knows how the world is drawn (flat colours, five upright shapes), so that its marks are measurements and need no
learned judge. Objects are connected regions that differ from the background; a region's colour is the palette colour
most of its pixels are nearest to, its shape the template with the highest overlap.
"""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from models.embedded.world import BACKGROUNDS, COLOURS, SHAPES, SIZE, Scene, Thing, coverage

MIN_AREA = 16
"""Regions of fewer pixels are specks: ignored singly, a fault when together they cover as much as an object."""
MIN_OVERLAP = 0.66
"""Soft intersection over union below which a region has no clear shape."""
SMALL_BELOW, LARGE_ABOVE = 7.6, 10.6
MARGIN = 4.0
"""Pixels by which centres must differ for a relation to hold."""
LIFT = {"triangle": 0.11, "star": 0.1}
"""How far a shape's centre lies below the middle of its box, in nominal radii: these reach further up than down."""

_NAMES = tuple(COLOURS)
_PALETTE = np.array([COLOURS[name] for name in _NAMES], np.float32)
_GROUND_NAMES = tuple(BACKGROUNDS)
_GROUNDS = np.array([BACKGROUNDS[name] for name in _GROUND_NAMES], np.float32)


@dataclass(frozen=True)
class Found:
    """An object in a picture: centre and nominal radius in pixels of the 64x64 grid, overlap with its shape 0..1."""

    colour: str
    shape: str | None
    x: float
    y: float
    radius: float
    overlap: float


@dataclass(frozen=True)
class Mark:
    """`exact`: every claim holds and nothing else is in the picture; `partial`: share of the claims that hold."""

    exact: bool
    partial: float
    faults: tuple[str, ...]


def check(image: NDArray[np.uint8] | Image.Image, scene: Scene) -> Mark:
    """Mark a picture, uint8 (H, W, 3) or PIL of any size (resized to 64x64), against the claims of a scene."""
    return judge(*find_objects(image), scene)


def judge(background: str, found: list[Found], scene: Scene) -> Mark:
    """Compare what `find_objects` saw with the claims of a scene; one picture can be held against many prompts."""
    facts = _facts(background, found, scene)
    faults = tuple(fault for _, holds, fault in facts if not holds)
    return Mark(not faults, sum(holds for _, holds, _ in facts) / len(facts), faults)


CLAIMS = (
    *(f"{part} {i}" for i in range(3) for part in ("colour", "shape", "size")),
    *("number", "position", "relation", "background"),
)
"""Names of the claims that `held` answers: three for each of up to three things, then those of the whole scene."""


def held(background: str, found: list[Found], scene: Scene) -> dict[str, bool]:
    """Which claims of a scene hold in a picture, by name (see CLAIMS); what the scene does not speak of is absent."""
    answers: dict[str, bool] = {}
    for name, holds, _ in _facts(background, found, scene):
        answers[name] = answers.get(name, True) and holds
    return answers


def _facts(background: str, found: list[Found], scene: Scene) -> list[tuple[str, bool, str]]:
    """(claim, does it hold, the fault if not) for every object and every claim of the whole scene."""
    facts: list[tuple[str, bool, str]] = []
    if scene.background:
        fault = f"background is {background}, not {scene.background}"
        facts.append(("background", background == scene.background, fault))
    wanted = [(i, thing) for i, thing in enumerate(scene.things) for _ in range(thing.count)]
    matches = _assign([thing for _, thing in wanted], found)
    for (i, thing), match in zip(wanted, matches, strict=True):
        name = f"{thing.colour} {thing.shape}"
        coloured, shaped = (match is not None and getattr(match, k) == getattr(thing, k) for k in ("colour", "shape"))
        facts.append((f"colour {i}", coloured, f"no {thing.colour} for the {name}"))
        facts.append((f"shape {i}", shaped, f"no {thing.shape} for the {name}"))
        if thing.size:
            facts.append(
                (f"size {i}", match is not None and _has_size(match, thing.size), f"{name} is not {thing.size}")
            )
    facts.append(("number", len(found) == len(wanted), f"{len(found)} objects instead of {len(wanted)}"))
    if scene.position:
        at = matches[0] is not None and all(_is_at(match, scene.position) for match in matches if match)
        facts.append(("position", at, f"not at the {scene.position}"))
    if scene.relation:
        split = scene.things[0].count
        facts.append(("relation", _related(matches[:split], matches[split:], scene.relation), f"not {scene.relation}"))
    return facts


def find_objects(image: NDArray[np.uint8] | Image.Image) -> tuple[str, list[Found]]:
    """The background's name ("unclear" when it is none of the world's) and every object, left to right."""
    pixels = _to_grid(image)
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    colour = np.median(border, axis=0)
    distance = np.linalg.norm(_GROUNDS - colour, axis=1)
    nearest = int(distance.argmin())
    background = _GROUND_NAMES[nearest] if distance[nearest] < 60 else "unclear"
    alpha, label = _unmix(pixels, colour)
    solid = alpha > 0.5
    found, specks = [], 0
    regions, _ = ndimage.label(solid, np.ones((3, 3)))
    for index, box in enumerate(ndimage.find_objects(regions), 1):
        inside = regions[box] == index
        for mask, name in _colour_parts(inside, label[box]):
            area = int(mask.sum())
            if area < MIN_AREA:
                specks += area
                continue
            whole = np.zeros(solid.shape, bool)
            whole[box] = mask
            # Half-covered edge pixels belong to the shape too: they carry its outline.
            whole = ndimage.binary_dilation(whole) & (regions == index) if mask is not inside else whole
            rim = ndimage.binary_dilation(whole)
            found.append(_fit(np.where(rim, np.clip(alpha, 0, 1), 0.0), _NAMES[name]))
    if specks >= 3 * MIN_AREA:
        found.append(Found("specks", None, SIZE / 2, SIZE / 2, 0.0, 0.0))
    return background, sorted(found, key=lambda one: one.x)


def _to_grid(image: NDArray[np.uint8] | Image.Image) -> NDArray[np.float32]:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image, np.uint8))
    if picture.size != (SIZE, SIZE):
        picture = picture.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(picture.convert("RGB"), np.float32)


def _unmix(pixels: NDArray[np.float32], ground: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """How much of each pixel is foreground, (64, 64), and which palette colour it is nearest to, (64, 64).

    A pixel on an edge is a mixture of background and object, so each is projected on the line from the background to
    every palette colour; the line it lies nearest to names the colour.
    """
    lines = _PALETTE - ground
    offset = pixels - ground
    share = np.einsum("hwc,kc->hwk", offset, lines) / (lines * lines).sum(1)
    residual = np.linalg.norm(offset[:, :, None] - np.clip(share, 0, 1)[..., None] * lines, axis=3)
    label = residual.argmin(2)
    alpha = np.take_along_axis(share, label[..., None], 2)[..., 0]
    # A dark blot in no palette colour is an object too, of the colour it resembles most.
    odd = np.linalg.norm(offset, axis=2) > 150
    return np.where(odd, np.maximum(alpha, 0.51), alpha).astype(np.float32), label


def _colour_parts(inside: NDArray[np.bool_], label: NDArray[np.intp]) -> list[tuple[NDArray[np.bool_], int]]:
    """Touching objects of different colours, apart; a region of mostly one colour stays whole."""
    votes = np.bincount(label[inside], minlength=len(_NAMES))
    total = votes.sum()
    main = int(votes.argmax())
    if votes[main] >= 0.75 * total:
        return [(inside, main)]
    return [(inside & (label == name), int(name)) for name in np.flatnonzero(votes >= max(MIN_AREA, 0.15 * total))]


@functools.cache
def _area(shape: str) -> float:
    """Area of a shape of nominal radius 1."""
    return float(coverage(shape, 32, 32, 20).sum()) / 400


def _middle(alpha: NDArray[np.float32]) -> tuple[float, float]:
    """(x, y) of the middle of the box around an object."""
    rows, columns = np.flatnonzero((alpha > 0.35).any(1)), np.flatnonzero((alpha > 0.35).any(0))
    return float(columns[0] + columns[-1] + 1) / 2, float(rows[0] + rows[-1] + 1) / 2


def _fit(alpha: NDArray[np.float32], colour: str) -> Found:
    """The template that overlaps best, at the radius its area implies."""
    x, y = _middle(alpha)
    area = float(alpha.sum())
    best: tuple[float, str, float] = (0.0, "", 0.0)
    for shape in SHAPES:
        radius = (area / _area(shape)) ** 0.5
        template = coverage(shape, x, y + LIFT.get(shape, 0.0) * radius, radius, oversample=2)
        overlap = float(np.minimum(alpha, template).sum() / np.maximum(alpha, template).sum())
        if overlap > best[0]:
            best = (overlap, shape, radius)
    overlap, name, radius = best
    return Found(colour, name if overlap >= MIN_OVERLAP else None, x, y, radius, overlap)


def _assign(wanted: list[Thing], found: list[Found]) -> list[Found | None]:
    """The pairing of claims and objects that satisfies most, in the order of the claims.

    Groups are few (at most six objects), and equal claims need no permutation, so a greedy pass from the best pairs
    down is exact whenever an exact pairing exists: equal (colour, shape, size) are interchangeable.
    """
    scores = [
        (
            2.0 * (one.colour == thing.colour)
            + 2.0 * (one.shape == thing.shape)
            + (thing.size is not None and _has_size(one, thing.size)),
            i,
            j,
        )
        for (i, thing), (j, one) in itertools.product(enumerate(wanted), enumerate(found))
    ]
    matches: list[Found | None] = [None] * len(wanted)
    used: set[int] = set()
    for score, i, j in sorted(scores, key=lambda item: -item[0]):
        if score > 0 and matches[i] is None and j not in used:
            matches[i] = found[j]
            used.add(j)
    return matches


def _has_size(one: Found, size: str) -> bool:
    return one.radius < SMALL_BELOW if size == "small" else one.radius > LARGE_ABOVE


def _is_at(one: Found, position: str) -> bool:
    half = SIZE / 2
    return {
        "left": one.x < half - 5,
        "right": one.x > half + 5,
        "top": one.y < half - 5,
        "bottom": one.y > half + 5,
        "center": abs(one.x - half) < 9 and abs(one.y - half) < 9,
    }[position]


def _related(first: list[Found | None], second: list[Found | None], relation: str) -> bool:
    a, b = [one for one in first if one], [one for one in second if one]
    if not a or not b:
        return False
    if relation in ("above", "left of"):
        a, b = b, a
    axis = "y" if relation in ("above", "below") else "x"
    return min(getattr(one, axis) for one in a) > max(getattr(one, axis) for one in b) + MARGIN
