"""The language of recipes: ways to make a picture, as pydantic models.

Inheritance is resolved before these see the data (inheritance.py), so `extends` stands in the exported schema only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from policies.language.spec import ModelId, Name, Share, Side, Spec, Text, Unit, exactly_one

KINDS = ("generate", "edit", "given", "map", "refine", "upscale", "chain", "fuse", "best_of")
MAX_BRANCHES = 16

Steps = Annotated[int, Field(ge=1, le=1000, description="denoising steps; default: the model card's")]
Guidance = Annotated[float, Field(ge=0, le=100, description="classifier-free guidance; default: the model card's")]
Scheduler = Annotated[Text, Field(description="sampler; default: the model card's")]


def _tile_kind(value: Any) -> str:
    return "<native>" if isinstance(value, str) else "<side>"


TileSize = Annotated[
    Annotated[Literal["native"], Tag("<native>")] | Annotated[Side, Tag("<side>")],
    Discriminator(_tile_kind),
    Field(description="work on overlapping tiles of this side in pixels, or of the model's native size"),
]
Overlap = Annotated[
    float, Field(gt=0, le=0.75, description="share of a tile that neighbours have in common; default: 0.25")
]
Accept = Annotated[
    Unit, Field(description="score that ends the search: branches run in turn; default: all run side by side")
]
Successful = Annotated[
    int, Field(ge=1, le=MAX_BRANCHES, description="so many branches are enough if others fail; default: all of them")
]
Price = Annotated[float, Field(ge=0)]
USUAL_MOST = 6
USUAL_WITHIN = 0.05
"""Pictures of the embedded family that disagree by more have visible ghosts (benchmarks/fusion/agreement.py)."""
BLENDS = ("average", "pyramid", "frequency")


Style = Annotated[
    dict[Name, Annotated[float, Field(ge=-2, le=2)]],
    Field(min_length=1, max_length=4, description="what the model wears: styles by name, each with its weight"),
]


def check_overlap(tile: int | str | None, overlap: float | None) -> None:
    """Raise `ValueError` for an overlap without tiles."""
    if overlap is not None and tile is None:
        raise ValueError("overlap belongs to tile; add tile: native")


ControlKind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)]
Controls = Annotated[
    dict[ControlKind, Literal["given", "map"]],
    Field(
        min_length=1,
        max_length=1,
        description="a ControlNet of the card, by the kind of its map: given, made of the picture that the request "
        "brings (canny), or map, which that picture is already",
    ),
]
ControlScale = Annotated[float, Field(gt=0, le=2, description="how much the control counts; default: 1")]


def check_scale(control: object, scale: float | None) -> None:
    """Raise `ValueError` for a scale without a control."""
    if scale is not None and control is None:
        raise ValueError("control_scale belongs to control; add control: {canny: given}")


class GenerateSpec(Spec):
    """Noise to picture on one model; with `until`, only that share of the denoising."""

    model: ModelId = Field(description="catalogue id")
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    until: Share | None = Field(default=None, description="share of the denoising after which latents are handed over")
    width: Side | None = Field(default=None, description="pixels; default: the request's, else the model's native")
    height: Side | None = Field(default=None, description="pixels; default: the request's, else the model's native")
    tile: TileSize | None = None
    overlap: Overlap | None = None
    style: Style | None = None
    control: Controls | None = None
    control_scale: ControlScale | None = None

    @model_validator(mode="after")
    def _overlap_of_tiles(self) -> GenerateSpec:
        check_overlap(self.tile, self.overlap)
        check_scale(self.control, self.control_scale)
        return self


class EditSpec(Spec):
    """The picture that the request brings, painted over by one model; with a mask, only what that leaves open."""

    model: ModelId = Field(description="catalogue id")
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="share of the denoising that the picture goes through again, if the request does not say; "
        "default: 0.6, with a mask 1",
    )
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    style: Style | None = None
    control: Controls | None = None
    control_scale: ControlScale | None = None

    @model_validator(mode="after")
    def _scale_of_control(self) -> EditSpec:
        check_scale(self.control, self.control_scale)
        return self


class MapSpec(Spec):
    """The control map of the given picture, as a picture: what a ControlNet would follow."""

    kind: Literal["canny"] = Field(default="canny", description="edges")


class GivenSpec(Spec):
    """The picture that the request brings, as it is; it has no keys: `given: {}`."""


class RefineSpec(Spec):
    """Continue a picture: exactly one of `from` (takes over latents) and `strength` (re-noises a picture)."""

    model: ModelId = Field(description="catalogue id")
    from_: Share | None = Field(
        default=None, alias="from", description="share of the denoising at which latents are taken over"
    )
    until: Share | None = Field(
        default=None, description="with from: share of the denoising after which latents are handed on"
    )
    strength: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of the denoising that a finished picture goes through again"
    )
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    scheduler: Scheduler | None = None
    tile: TileSize | None = None
    overlap: Overlap | None = None
    style: Style | None = None
    control: ControlKind | None = Field(
        default=None,
        description="a ControlNet of the card, by the kind of its map, which is made of the picture that is refined: "
        "tile (the picture itself) or canny",
    )
    control_scale: ControlScale | None = None

    @model_validator(mode="after")
    def _one_way_to_continue(self) -> RefineSpec:
        exactly_one(self, ("from", "strength"), "refine")
        check_scale(self.control, self.control_scale)
        if self.control is not None and self.strength is None:
            raise ValueError("control needs strength; a map is made of a finished picture")
        check_overlap(self.tile, self.overlap)
        if self.until is not None and (self.from_ is None or self.until <= self.from_):
            raise ValueError("until belongs to from and comes after it; a refine by strength runs to its end")
        if self.tile is not None and self.strength is None:
            raise ValueError("tile needs strength; latents are taken over whole")
        return self


class UpscaleSpec(Spec):
    """Enlarge a picture by a factor."""

    factor: Annotated[float, Field(gt=1, le=8)] = Field(default=2.0, description="of each side")


def _part_kind(value: Any) -> str:
    return "<name>" if isinstance(value, str) else "<recipe>"


def _number_kind(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<number>"


def _parts_kind(value: Any) -> str:
    return "<list>" if isinstance(value, list) else _part_kind(value)


Part = Annotated[
    Annotated[Name, Tag("<name>")] | Annotated["RecipeSpec", Tag("<recipe>")],
    Discriminator(_part_kind),
]
"""The name of another recipe of this policy, or a recipe written in place."""


Shares = Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=2, max_length=2)]


class Course(Spec):
    """Weights that change evenly from the start to the end of the denoising."""

    start: Shares = Field(description="what each branch counts at first")
    end: Shares = Field(description="what each branch counts at last")


def _weights_kind(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<list>" if isinstance(value, list) else "<course>"


Weights = Annotated[
    Annotated[Literal["contrast", "saliency", "mask"], Tag("<word>")]
    | Annotated[Shares, Tag("<list>")]
    | Annotated[Course, Tag("<course>")],
    Discriminator(_weights_kind),
]


class FuseSpec(Spec):
    """Recipes side by side, made into one picture."""

    method: Literal["best_of", "average", "pyramid", "frequency", "regions", "denoise"] = Field(
        alias="with", description="how one picture is made of several"
    )
    of: Annotated[list[Part], Field(min_length=2, max_length=MAX_BRANCHES)] | None = Field(
        default=None, description="the branches; for all but frequency"
    )
    scorer: ModelId | None = Field(
        default=None, description="catalogue id of a scorer; for best_of, regions and blend_within"
    )
    accept_above: Accept | None = None
    min_successful: Successful | None = None
    low: Part | None = Field(default=None, description="frequency: where composition and colour come from")
    high: Part | None = Field(default=None, description="frequency: where detail comes from")
    weights: Weights | None = Field(
        default=None,
        description="pyramid: where a picture counts; denoise: what each branch counts; default: contrast, or equal",
    )
    blend_within: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=None,
        description="for blends with a scorer: if the pictures disagree more (0 alike, 1 unrelated), the best is kept; "
        f"default: {USUAL_WITHIN} with a scorer, else they are always blended",
    )
    harmonise: RefineSpec | None = Field(default=None, description="a refine by strength that follows the fusion")

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> FuseSpec:
        scored = {"of", "scorer"}
        needed = {"best_of": scored, "regions": scored, "frequency": {"low", "high"}}.get(self.method, {"of"})
        allowed = needed | {"best_of": {"accept_above"}, "pyramid": {"weights"}, "denoise": {"weights"}}.get(
            self.method, set()
        )
        allowed |= {"scorer", "blend_within"} if self.method in BLENDS else set()
        allowed |= {"min_successful"} if "of" in needed and self.method != "denoise" else set()
        given = set(self.given()) - {"with", "harmonise"}
        if self.harmonise is not None and self.harmonise.strength is None:
            raise ValueError("harmonise refines a finished picture; give it a strength, not from")
        if missing := sorted(needed - given):
            raise ValueError(f"fuse with {self.method} needs {' and '.join(missing)}")
        if surplus := sorted(given - allowed):
            raise ValueError(f"fuse with {self.method} takes {' and '.join(sorted(needed))}, not {', '.join(surplus)}")
        _check_successful(self.min_successful, len(self.of or ()))
        self._check_weights()
        if self.blend_within is not None and self.scorer is None:
            raise ValueError("blend_within needs a scorer, which chooses among pictures that disagree")
        return self

    def _check_weights(self) -> None:
        if self.method == "denoise" and len(self.of or ()) != 2:
            raise ValueError(f"denoise takes two branches, not {len(self.of or ())}; a worker holds no more")
        if self.weights is None:
            return
        if isinstance(self.weights, str) != (self.method == "pyramid"):
            ways = {"pyramid": "one of contrast, saliency, mask", "denoise": "two numbers, or start and end"}
            raise ValueError(f"the weights of {self.method} are {ways[self.method]}")
        if any(not sum(moment) > 0 for moment in self.course()):
            raise ValueError("weights that are all 0 leave nothing to average")

    def within(self) -> float | None:
        """The disagreement up to which pictures are blended; None: whatever they are, or this is no blend."""
        if self.method not in BLENDS or self.scorer is None:
            return None
        return USUAL_WITHIN if self.blend_within is None else self.blend_within

    def course(self) -> tuple[list[float], ...]:
        """The weights of a denoise at the start and at the end; () where nothing is said, or for other methods."""
        if isinstance(self.weights, Course):
            return self.weights.start, self.weights.end
        return (self.weights, self.weights) if isinstance(self.weights, list) else ()


def _check_successful(wanted: int | None, branches: int) -> None:
    if wanted is not None and wanted > branches:
        raise ValueError(f"min_successful {wanted} is more than the {branches} branches that there are")


class BestOfSpec(Spec):
    """The same recipe several times with other seeds; the scorer keeps the picture that fits the prompt best.

    With `n: auto` the router decides for each prompt how many pictures of which recipes are worth their price, and ends
    as soon as one is good enough.
    """

    n: Annotated[
        Annotated[int, Field(ge=2, le=MAX_BRANCHES), Tag("<number>")] | Annotated[Literal["auto"], Tag("<word>")],
        Discriminator(_number_kind),
    ] = Field(description="pictures made at most, or auto")
    of: Annotated[
        Annotated[Name, Tag("<name>")]
        | Annotated[RecipeSpec, Tag("<recipe>")]
        | Annotated[list[Part], Field(min_length=1, max_length=MAX_BRANCHES), Tag("<list>")],
        Discriminator(_parts_kind),
    ] = Field(description="the recipe; with n: auto, one or several")
    scorer: ModelId = Field(description="catalogue id of a scorer")
    accept_above: Accept | None = None
    min_successful: Successful | None = None
    most: Annotated[int, Field(ge=1, le=MAX_BRANCHES)] | None = Field(
        default=None, description=f"pictures at most; for n: auto; default: {USUAL_MOST}"
    )
    quality_per_s: Price | None = Field(
        default=None, description="what a second is worth; for n: auto; default: the weight in objective"
    )
    quality_per_usd: Price | None = Field(
        default=None, description="what a dollar is worth; for n: auto; default: the weight in objective"
    )

    @property
    def parts(self) -> list[Part]:
        """The recipes, however many."""
        return self.of if isinstance(self.of, list) else [self.of]

    @model_validator(mode="after")
    def _keys_fit_n(self) -> BestOfSpec:
        if self.n != "auto":
            given = [key for key in self.given() if key in ("most", "quality_per_s", "quality_per_usd")]
            if isinstance(self.of, list):
                raise ValueError("a list of recipes goes with n: auto; name one recipe, or fuse with best_of")
            if given:
                raise ValueError(f"{given[0]} goes with n: auto, not with a number of pictures")
            _check_successful(self.min_successful, self.n)
        elif self.accept_above is not None or self.min_successful is not None:
            raise ValueError("n: auto decides itself when to end; drop accept_above and min_successful")
        return self


class RecipeSpec(Spec):
    """One way to make a picture: exactly one kind."""

    generate: GenerateSpec | None = None
    edit: EditSpec | None = None
    given_: GivenSpec | None = Field(default=None, alias="given", description="only as the first stage of a chain")
    map: MapSpec | None = Field(default=None, description="only after given")
    refine: RefineSpec | None = None
    upscale: UpscaleSpec | None = None
    chain: Annotated[list[Part], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="stages, one after the other; the first may be the name of a recipe"
    )
    fuse: FuseSpec | None = None
    best_of: BestOfSpec | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> RecipeSpec:
        exactly_one(self, KINDS, "a recipe")
        return self

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 2})
