"""The captioned world: scenes of flat coloured shapes, sampled from a seed and rendered to 64x64 RGB.

A `Scene` carries what its caption may claim (things, relation, position, background) and, when it was sampled,
where each object stands (`placements`). A scene read from a prompt has no placements: it only makes claims.

Tiers, from easy to hard: `one` (a red circle), `attributes` (size, position or background as well), `two`
(a red circle and a blue square), `relation` (above, below, left of, right of), `counts` (two or three of a kind,
three different objects, counts with a relation).
"""

import functools
import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = 64
"""Side of a picture in pixels."""

TIERS = ("one", "attributes", "two", "relation", "counts")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 35),
    "green": (25, 160, 60),
    "blue": (35, 70, 225),
    "yellow": (250, 220, 30),
    "purple": (150, 40, 185),
    "orange": (250, 130, 15),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
SHAPES = ("circle", "square", "triangle", "star", "ring")
SIZES = ("small", "large")
POSITIONS = ("left", "right", "top", "bottom", "center")
RELATIONS = ("above", "below", "left of", "right of")

PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT_PAIRS = (("purple", "star"), ("orange", "triangle"), ("green", "ring"))
"""No model sees these colour-shape pairs in training."""
TRAIN_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)

RADII = {"small": (6.0, 6.8), None: (8.5, 9.6), "large": (11.8, 12.6)}
"""Nominal radius in pixels by spoken size; unspoken means medium."""
CROWDED_RADII = {"small": (6.0, 6.8), None: (7.4, 8.1)}
"""Radii when three objects share a row."""
EXTENT = {"circle": 1.0, "ring": 1.0, "square": 0.9, "triangle": 1.12, "star": 1.15}
"""Half the side of a shape's bounding box, in nominal radii."""


@dataclass(frozen=True)
class Thing:
    """`count` objects of one colour and shape; `size` is None when the caption does not speak of it."""

    colour: str
    shape: str
    size: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Placement:
    """One object on the canvas: centre and nominal radius in pixels."""

    x: float
    y: float
    radius: float
    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """What a caption claims, and, for sampled scenes, where everything stands.

    `relation` holds between the first and the second thing. None means that the caption does not speak of it.
    """

    tier: str
    things: tuple[Thing, ...]
    relation: str | None = None
    position: str | None = None
    background: str | None = None
    placements: tuple[Placement, ...] = ()


def sample_scene(rng: random.Random, tier: str, pairs: tuple[tuple[str, str], ...] = TRAIN_PAIRS) -> Scene:
    """Draw a scene of `tier` whose objects come from `pairs`. Raises ValueError for an unknown tier."""
    if tier not in TIERS:
        raise ValueError(f"unknown tier {tier!r}; the tiers are {', '.join(TIERS)}")
    relation = position = background = None
    if tier == "one":
        things = _things(rng, pairs, 1)
    elif tier == "attributes":
        spoken = rng.choices(("size", "position", "background", "two of them"), (3, 3, 2, 2))[0]
        two = rng.sample(("size", "position", "background"), 2) if spoken == "two of them" else [spoken]
        things = _things(rng, pairs, 1, sized=1.0 if "size" in two else 0.0)
        position = rng.choice(POSITIONS) if "position" in two else None
        background = rng.choice(tuple(BACKGROUNDS)) if "background" in two else None
    elif tier == "two":
        things = _things(rng, pairs, 2, sized=0.15)
    elif tier == "relation":
        things = _things(rng, pairs, 2, sized=0.25)
        relation = rng.choice(RELATIONS)
    else:
        variant = rng.choices(("group", "three", "related groups"), (3, 3, 4))[0]
        if variant == "group":
            things = _things(rng, pairs, 1, sized=0.25, counts=(2, 3))
        elif variant == "three":
            things = _things(rng, pairs, 3)
        else:
            counts = rng.choice(((2, 1), (3, 1), (1, 2), (1, 3), (2, 2), (3, 2), (2, 3)))
            things = _things(rng, pairs, 2, sized=0.3, counts=counts)
            relation = rng.choice(RELATIONS)
    if tier not in ("one", "attributes") and rng.random() < 0.25:
        background = rng.choice(tuple(BACKGROUNDS))
    return Scene(tier, things, relation, position, background, _place(rng, things, relation, position))


def _things(
    rng: random.Random,
    pairs: tuple[tuple[str, str], ...],
    n: int,
    sized: float = 0.0,
    counts: tuple[int, ...] = (),
) -> tuple[Thing, ...]:
    """`n` different things; each speaks of its size with probability `sized`; three of a kind are never large."""
    if n == 1 and counts:
        counts = (rng.choice(counts),)
    things = []
    for i, (colour, shape) in enumerate(rng.sample(pairs, n)):
        count = counts[i] if counts else 1
        size = rng.choice(SIZES if count < 3 else ("small",)) if rng.random() < sized else None
        things.append(Thing(colour, shape, size, count))
    return tuple(things)


def _place(
    rng: random.Random, things: tuple[Thing, ...], relation: str | None, position: str | None
) -> tuple[Placement, ...]:
    """Rows and columns with jitter: unrelated things stand side by side in the order they are named."""
    if len(things) == 1:
        thing = things[0]
        along, jitter = {"left": (16.0, 2.0), "right": (48.0, 2.0), "top": (16.0, 2.0), "bottom": (48.0, 2.0)}.get(
            position or "", (32.0, 2.0 if position == "center" else 6.0)
        )
        along += rng.uniform(-jitter, jitter)
        across = 32 + rng.uniform(-1, 1) * (3 if position else 6)
        if position in ("top", "bottom"):
            return tuple(_group(rng, thing, along, across, vertical_axis=True))
        if thing.count > 1:
            return tuple(_group(rng, thing, across, 32 + rng.uniform(-2, 2), vertical_axis=True))
        return tuple(_group(rng, thing, along, across, vertical_axis=False))
    if len(things) == 3:
        y = 32 + rng.uniform(-4, 4)
        placed = []
        for centre, thing in zip((11.5, 32.0, 52.5), things, strict=True):
            radius = rng.uniform(*CROWDED_RADII[thing.size])
            jitter = max(0.0, 9.6 - radius * EXTENT[thing.shape])
            placed.append(
                Placement(
                    centre + rng.uniform(-jitter, jitter), y + rng.uniform(-2, 2), radius, thing.colour, thing.shape
                )
            )
        return tuple(placed)
    vertical = relation in ("above", "below")
    first, second = (48, 16) if relation in ("below", "right of") else (16, 48)
    across = 32.0 + rng.uniform(-3, 3) * (max(thing.count for thing in things) == 1)
    return tuple(_group(rng, things[0], first, across, vertical) + _group(rng, things[1], second, across, vertical))


def _group(rng: random.Random, thing: Thing, along: float, across: float, vertical_axis: bool) -> list[Placement]:
    """A group strung out across its axis, one common radius, centred on (`along`, `across`)."""
    radius = rng.uniform(*(CROWDED_RADII if thing.count == 3 else RADII)[thing.size])
    extent = radius * EXTENT[thing.shape]
    room = max(0.0, min(2.5, 15.0 - extent))
    along += rng.uniform(-room, room)
    pitch = 2 * extent + rng.uniform(2.5, 5.0) if thing.count < 3 else max(20.0, 2 * extent + 1.5)
    middle = (thing.count - 1) / 2
    spots = [(along, across + (i - middle) * pitch) for i in range(thing.count)]
    limit = SIZE - extent - 0.8
    clamp = functools.partial(_clamp, low=extent + 0.8, high=limit)
    return [
        Placement(clamp(b if vertical_axis else a), clamp(a if vertical_axis else b), radius, thing.colour, thing.shape)
        for a, b in spots
    ]


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


def coverage(
    shape: str, x: float, y: float, radius: float, size: int = SIZE, oversample: int = 4
) -> NDArray[np.float32]:
    """The share of each pixel that a shape covers: float32 (`size`, `size`) in 0..1."""
    out = np.zeros((size, size), np.float32)
    reach = radius * 1.2 + 1
    x0, x1 = max(0, math.floor(x - reach)), min(size, math.ceil(x + reach))
    y0, y1 = max(0, math.floor(y - reach)), min(size, math.ceil(y + reach))
    if x1 <= x0 or y1 <= y0:
        return out
    u = (np.arange(x0 * oversample, x1 * oversample, dtype=np.float32) + 0.5) / oversample - x
    v = (np.arange(y0 * oversample, y1 * oversample, dtype=np.float32) + 0.5) / oversample - y
    unit_u, unit_v = (np.asarray(line / radius, np.float32) for line in (u, v))
    inside = _inside(shape, unit_u[None, :], unit_v[:, None])
    cells = inside.reshape(y1 - y0, oversample, x1 - x0, oversample)
    out[y0:y1, x0:x1] = cells.mean((1, 3), dtype=np.float32)
    return out


def _inside(shape: str, u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Is the point (u right, v down, in nominal radii) inside the unit shape?"""
    if shape == "circle":
        return u * u + v * v <= 1
    if shape == "ring":
        square = u * u + v * v
        return (square <= 1) & (square >= 0.55**2)
    if shape == "square":
        return (np.abs(u) <= 0.9) & (np.abs(v) <= 0.9)
    if shape == "triangle":
        # Corners at (0, -1.12), (-1.12, 0.9) and (1.12, 0.9): a little wider than tall, centred in its box.
        return (v <= 0.9) & (np.abs(u) <= (v + 1.12) * (1.12 / 2.02))
    if shape == "star":
        # A pentagram is where at least four of the half-planes of its five chords hold.
        turns = [0.4 * math.pi * k for k in range(5)]
        depth = 1.15 * math.cos(0.4 * math.pi)
        votes = sum((u * math.sin(turn) - v * math.cos(turn) <= depth).astype(np.int8) for turn in turns)
        return np.asarray(votes) >= 4
    raise ValueError(f"unknown shape {shape!r}; the shapes are {', '.join(SHAPES)}")


def render(scene: Scene, size: int = SIZE) -> NDArray[np.uint8]:
    """Draw a sampled scene: uint8 (`size`, `size`, 3), anti-aliased. Raises ValueError when nothing is placed."""
    if not scene.placements:
        raise ValueError("only sampled scenes can be drawn: this one has claims and no placements")
    larger = size / SIZE
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = BACKGROUNDS[scene.background or "white"]
    for spot in scene.placements:
        place = (spot.x * larger, spot.y * larger, spot.radius * larger)
        alpha = coverage(spot.shape, *place, size)[..., None]
        canvas += alpha * (np.asarray(COLOURS[spot.colour], np.float32) - canvas)
    return np.asarray(np.rint(canvas), np.uint8)
