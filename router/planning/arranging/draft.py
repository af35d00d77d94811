"""The steps of a plan as they are arranged, and what every kind of stage needs for its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from router.errors import PlanError
from router.planning.checks import check_share
from router.planning.edits import MADE, check_shape
from router.planning.sizes import check_size
from router.planning.styles import worn
from router.planning.tiling import tiled
from router.types import (
    Catalogue,
    Control,
    Edit,
    Generate,
    GenerationRequest,
    ModelCard,
    Refine,
    Role,
    Scalar,
    Step,
    StepKind,
    Tile,
    spelled,
)

COARSE = 0.05  # a strength that whole steps miss by more than this is told
ALWAYS_TOLD = ("prompt", "width", "height")  # of a step, also where a server draws that knows nothing else
Number = TypeVar("Number", int, float)


def _what(model: str | None, settings: Mapping[str, Scalar]) -> object:
    """What a step's name says beside its kind."""
    return model or settings.get("role") or settings.get("method") or settings.get("factor") or "mask"


@dataclass
class Draft:
    """The steps of a plan that is being arranged, the notes for whoever asks, and what of the request is ignored."""

    request: GenerationRequest
    catalogue: Catalogue
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignores: list[str] = field(default_factory=list)

    def new(
        self,
        kind: StepKind,
        model: str | None,
        inputs: tuple[str, ...],
        produces: Literal["image", "mask", "latents", "scores"],
        settings: Mapping[str, Scalar],
        needs: int | None = None,
    ) -> Step:
        """Add a step, which gets the next number; what it draws after is one of its inputs."""
        if "reference" in settings:
            inputs = (*inputs, str(settings["reference"]))
        name = f"{len(self.steps) + 1}-{kind}-{_what(model, settings)}"
        self.steps.append(Step(name, kind, model, inputs, produces, settings, needs=needs))
        return self.steps[-1]

    def overridden(self, name: str, asked: Number | None, recipe_value: Number | None, card_value: Number) -> Number:
        """The request's value before the recipe's before the card's; a change to what was usual is noted."""
        usual = card_value if recipe_value is None else recipe_value
        if asked is not None and asked != usual:
            self.notes.append(f"{name}: {asked:g} as requested instead of {usual:g}")
        return usual if asked is None else asked

    def clothed(self, stage: Generate | Edit | Refine, card: ModelCard) -> dict[str, Scalar]:
        """The setting of what a stage wears; none if that is nothing."""
        found = worn(stage, self.request, card, self.notes)
        made: dict[str, Scalar] = {"style": spelled(found)} if found else {}
        if follows := next((name for name, _ in found if card.styles[name].kind == "ip_adapter"), None):
            if self.request.brings("reference") is None:
                raise PlanError(f"the style {follows!r} draws after a picture; give one as `reference`", "reference")
            made["reference"] = self.given("reference").id
            self.notes.append(f"{card.id} draws after the reference picture, by the style {follows!r}")
        return made

    def sampling(
        self, card: ModelCard, width: int, height: int, steps: int, guidance: float, scheduler: str | None, seed: int
    ) -> dict[str, Scalar]:
        """The settings that generate and refine share, checked against the card."""
        if not (isinstance(steps, int) and card.min_steps <= steps <= card.max_steps):
            raise PlanError(
                f"{steps!r} steps are outside {card.min_steps}..{card.max_steps}, which {card.id!r} takes", "steps"
            )
        if not (math.isfinite(guidance) and 0 <= guidance <= card.max_guidance_scale):
            limit = f"0..{card.max_guidance_scale:g}"
            raise PlanError(
                f"a guidance_scale of {guidance:g} is outside {limit}, which {card.id!r} takes", "guidance_scale"
            )
        if self.request.negative_prompt.strip() and not card.heeds_negative(guidance):
            bar = " at guidance ≤ 1" if card.takes_negative and card.guidance == "real" else ""
            self.ignores.append(f"{card.id} ignores negative prompts{bar}")
            self.notes.append(self.ignores[-1])
        settings: dict[str, Scalar] = {
            "prompt": self.request.prompt,
            "negative_prompt": self.request.negative_prompt,
            "width": width,
            "height": height,
            "steps": steps,
            "guidance_scale": float(guidance),
            "scheduler": scheduler or card.scheduler,
            "seed": seed,
        }
        return {key: value for key, value in settings.items() if key in ALWAYS_TOLD or card.takes(key)}

    def resized(self, before: Step, works: tuple[int, int], width: int, height: int) -> Step:
        """`before` with its picture brought to width x height (Lanczos); itself if it has this size."""
        if works == (width, height):
            return before
        factor = round(math.sqrt(width * height / (works[0] * works[1])), 4)
        settings = {"factor": factor, "width": width, "height": height}
        return self.new("upscale", None, (before.id,), "image", settings)

    def noted(self, card: ModelCard, width: int, height: int, works: tuple[int, int]) -> tuple[int, int]:
        """The size at which a model draws, `works`; a note where it is not the one that was asked for."""
        if works != (width, height):
            self.notes.append(
                f"{card.id} does not draw well at {width}x{height}; it draws at {works[0]}x{works[1]}, and the picture "
                f"is brought to {width}x{height}"
            )
        return works

    def given(self, role: Role, place: int = 0) -> Step:
        """The step that has a picture of the request, the first of its role or a further one; one for all that take
        it."""
        one = [each for each in self.request.given if each.role == role][place]
        same = (step for step in self.steps if step.kind == "given" and step.settings["role"] == role)
        if (known := next((step for step in same if step.settings["digest"] == one.digest), None)) is None:
            settings: dict[str, Scalar] = {"role": role, "digest": one.digest, "width": one.width, "height": one.height}
            settings |= {"share": one.share} if role == "mask" else {}
            return self.new("given", None, (), "mask" if role == "mask" else "image", settings)
        return known

    def whole(self, width: int, height: int) -> tuple[Step, tuple[int, int]]:
        """The given picture, and its size, which is to become width x height."""
        image = self.request.brings("image")
        assert image is not None
        check_shape(image, width, height)
        return self.given("image"), (image.width, image.height)

    def mapped(self, kind: str, image: Step) -> Step:
        """The control map of a picture; one step for all that follow it."""
        if kind not in MADE:
            raise PlanError(f"no map {kind!r} is made here; there are {', '.join(MADE)}", "control")
        same = (step for step in self.steps if step.kind == "control" and step.inputs == (image.id,))
        known = next((step for step in same if step.settings["method"] == kind), None)
        return known or self.new("control", None, (image.id,), "image", {"method": kind})

    def followed(self, card: ModelCard, control: Control, image: Step) -> tuple[str, dict[str, Scalar]]:
        """The id of the map that a stage follows, of a picture of the size it works at, and its settings."""
        guide = self.mapped(control.kind, image) if control.of == "given" else image
        self.notes.append(f"{card.id} follows the {control.kind} map of the given picture ({guide.id})")
        return guide.id, {"control": control.kind, "control_scale": float(control.scale)}

    def strength(self, card: ModelCard, steps: int, strength: float) -> float:
        """A strength, checked; a note where whole steps miss it."""
        if not 0 < strength <= 1:
            raise PlanError(f"strength of {card.id!r} must be above 0 and at most 1, not {strength:g}", "recipe")
        check_share(card, steps, strength, "strength")
        effective = card.effective_strength(steps, strength)
        if abs(effective - strength) > COARSE:
            self.notes.append(
                f"{card.id} runs {round(effective * steps)} of {steps} steps, so its strength is {effective:.2g} in "
                f"effect, not {strength:g}; more steps come nearer"
            )
        return float(strength)

    def check_sides(
        self, card: ModelCard, own_width: int | None, own_height: int | None, width: int, height: int
    ) -> None:
        """Raise `PlanError` if a stage has a size of its own that is not the one that the recipe works at."""
        for asked, own, side in ((self.request.width, own_width, width), (self.request.height, own_height, height)):
            if asked is None and own is not None and own != side:
                raise PlanError(f"{card.id!r} asks for a side of {own} where the rest works at {side}; use one size")

    def fitted(
        self, card: ModelCard, tile: Tile | None, overlap: float | None, width: int, height: int
    ) -> dict[str, Scalar]:
        """The tiles that a stage asks for, or a whole picture that the model takes; `PlanError` if neither fits."""
        if tile is None:
            check_size(card, width, height)
            return {}
        tiles = tiled(card, tile, overlap, width, height)
        if not tiles:
            self.notes.append(f"{card.id}: {width}x{height} fits one tile, so it is worked on whole")
        else:
            size = f"{tiles['tile_width']}x{tiles['tile_height']}"
            self.notes.append(f"{card.id} works on {tiles['tiles']} tiles of {size}, blended where they overlap")
        return tiles
