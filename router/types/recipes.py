"""Recipes: named ways to make a picture, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.types.resources import Resources
from router.types.styles import Wearing

Tile = int | Literal["native"]


@dataclass(frozen=True, slots=True)
class Control:
    """A ControlNet beside a model. kind: of the map that it follows, such as "canny"

    of:    "given": the map is made of the picture that the request brings; "map": that is one already; "picture": it is
           made of the picture that is refined
    scale: how much it counts, 0..2
    """

    kind: str
    of: Literal["given", "map", "picture"] = "given"
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Generate:
    """Noise to picture on one model. `until` < 1 stops after that share of the denoising and yields latents.

    tile, overlap: as of `Refine`; here every denoising step is made of overlapping windows (SD and SDXL families)
    style: what the model wears for it, by id, with its weights
    control: what else guides it, made of the picture that the request brings
    """

    model: str
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    until: float | None = None
    width: int | None = None
    height: int | None = None
    tile: Tile | None = None
    overlap: float | None = None
    style: Wearing = ()
    control: Control | None = None


@dataclass(frozen=True, slots=True)
class Refine:
    """Continue a picture on one model: `from_` takes over latents at that share of the denoising (same latent space),
    and with `until` hands them on; `strength` (0..1] re-noises a picture by that share and denoises it again (img2img;
    any pair of models).

    tile:    with strength: work on overlapping tiles of this side in pixels, or of the model's native size
             (then guidance_scale is the card's `tile_guidance_scale`, where it has one and the recipe says nothing)
    overlap: share of a tile that neighbours have in common; None: a quarter
    style:   as of `Generate`
    control: a ControlNet that it follows, of the picture before it; in tiles, each by its own part of the map
    """

    model: str
    strength: float | None = None
    from_: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    until: float | None = None
    tile: Tile | None = None
    overlap: float | None = None
    style: Wearing = ()
    control: Control | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """The picture that the request brings, as it is: the first stage of a chain that goes on from it as a whole."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The picture that the request brings, painted over by one model: all of it by `strength` (img2img), or, where the
    request brings a mask, what that leaves open (inpainting), and every byte elsewhere stays.

    strength: (0..1], how far it is noised again; the request's comes before it; None: as is usual, by whether there is
              a mask
    mask:     while it is estimated, how much of the picture may change (0..1); None: all of it, without a mask
    style, control: as of `Generate`
    """

    model: str
    strength: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    style: Wearing = ()
    mask: float | None = None
    control: Control | None = None


@dataclass(frozen=True, slots=True)
class Map:
    """The control map of a picture, as a picture: a stage after `Given`, to look at what a ControlNet would follow."""

    kind: str


@dataclass(frozen=True, slots=True)
class Upscale:
    """Enlarge a picture by `factor` (Lanczos)."""

    factor: float = 2.0


@dataclass(frozen=True, slots=True)
class Chain:
    """Stages one after the other; the first makes a picture or latents or has a given one, the others continue it."""

    stages: tuple[Recipe, ...]


@dataclass(frozen=True, slots=True)
class Prices:
    """What a second and a dollar are worth in quality (0..1): the price of waiting and of spending."""

    per_s: float = 0.0
    per_usd: float = 0.0

    def of(self, takes: Resources) -> float:
        """Seconds and dollars in quality."""
        return self.per_s * takes.latency_s + self.per_usd * takes.cost_usd


@dataclass(frozen=True, slots=True)
class Search:
    """A best_of whose number of pictures is decided for each prompt: at most `most`, if they are worth their price."""

    most: int
    prices: Prices = Prices()


@dataclass(frozen=True, slots=True)
class Turn:
    """One picture of a resolved search. recipe: the canonical key of its branch; while it is planned, any name for it.

    bar:    it is left out if an earlier picture is right with at least this probability
    slope, offset: log-odds that it is right = slope * logit(score) + offset;   chance: before its score is seen
    """

    recipe: str
    bar: float
    slope: float
    offset: float
    chance: float


@dataclass(frozen=True, slots=True)
class Fuse:
    """Recipes side by side, made into one picture: `best_of` and `regions` (need `scorer`), `average`, `pyramid`,
    `frequency`. To have the result harmonised, a `Chain` refines it. `denoise` makes one picture of two `Generate`s
    whose models share a latent space: both predict at every step, and the weighted mean is stepped.

    weights: pyramid only: where a picture counts, by "contrast" (None), "saliency" or "mask"
    blend_within: average, pyramid and frequency: pictures that disagree more than this (0 alike, 1 unrelated) are not
        blended; the one with the best score of `scorer` is kept. None: whatever they are, they are blended
    shares: denoise only: what each branch counts at the start and at the end of the denoising; (): equal throughout
    branches: recipe names of the same policy, or inline recipes. For `frequency`, (low, high) in this order.
    accept_above: best_of only: the branches run one after the other until one scores at least this
    min_successful: so many branches are enough if others fail; None: all of them are needed
    search: best_of only: the branches are what may be tried, and the router decides how often and in which order
    turns: what a search came to for one prompt, one for each branch; with them `search` is resolved
    """

    method: str
    branches: tuple[str | Recipe, ...]
    scorer: str | None = None
    accept_above: float | None = None
    min_successful: int | None = None
    search: Search | None = None
    turns: tuple[Turn, ...] = ()
    weights: str | None = None
    shares: tuple[tuple[float, float], ...] = ()
    blend_within: float | None = None


Recipe = Generate | Given | Map | Edit | Refine | Upscale | Chain | Fuse
