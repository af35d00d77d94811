"""Arranges a recipe for one request: a typed graph of steps with concrete settings, or a refusal that says why.

Nothing is changed silently: what does not fit is refused with a remedy, what is inserted stands in the plan's notes.

Sizes: the request's, else that of the given picture or the recipe's own, else the first model's native size; the size
asked for is that of the
answer, so stages before an `upscale` work at that size divided by its factor. A model that draws from noise does so at
a size at which its card says it is good; from there the picture is brought to the size that was asked for, by a step of
its own, before the next stage that wants it so. A model checks the size it works at.
Steps: the request's `steps` and `guidance_scale` go to `generate` steps only; a `refine from` shares the schedule of
the step that it continues. `steps` always counts the whole schedule, also with `until`, `from` and `strength`.
Seeds: all steps share the request's; the k-th repetition of the same branch in a fusion gets seed + k.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from router.errors import PlanError
from router.planning.checks import FUSIONS, check_fusion, check_share, check_stages, check_until, unresolved
from router.planning.denoise import common, seated
from router.planning.edits import (
    MADE,
    check_control,
    check_editor,
    check_given,
    check_guided,
    check_shape,
    unseen,
)
from router.planning.handovers import check_takeover, handovers
from router.planning.recipes import recipe_key, resolve, stages_of, strength_of
from router.planning.sizes import (
    answer_size,
    beside_one_another,
    card_of,
    check_size,
    drawing_size,
    editing_size,
    enlargement,
    looking_size,
    reduced,
)
from router.planning.styles import unsaid, worn
from router.planning.tiling import tiled
from router.prompts.phrases import object_phrases
from router.types import (
    Catalogue,
    Control,
    Edit,
    Fuse,
    Generate,
    GenerationRequest,
    Given,
    Map,
    ModelCard,
    Plan,
    Recipe,
    Refine,
    Role,
    Scalar,
    Step,
    StepKind,
    Tile,
    Turn,
    Unless,
    Upscale,
    spelled,
)

COARSE = 0.05  # a strength that whole steps miss by more than this is told
ALWAYS_TOLD = ("prompt", "width", "height")  # of a step, also where a server draws that knows nothing else
NOT_BASE = {
    "refiner": "put it after a base model as refine",
    "editor": "give it a picture and a mask, as edit",
    "scorer": "use it as the scorer of a best_of",
}
MAX_PHRASES = 4  # of regions; each is a look at every picture
Number = TypeVar("Number", int, float)
ANY_PROMPT = "-"
"""Stands for every prompt: a single token, so none is too long."""
_TOKEN = re.compile(r"\w+|[^\w\s]")


def make_plan(
    name: str, recipe: Recipe, request: GenerationRequest, catalogue: Catalogue, recipes: Mapping[str, Recipe]
) -> Plan:
    """Arrange `recipe`, called `name`, for one picture of `request`; `recipes` are those that fusions may name.

    Raises `PlanError` (what, where, remedy) if it cannot be arranged.
    """
    try:
        resolved = resolve(recipe, recipes, (name,))
        check_given(resolved, request)
        width, height = answer_size(resolved, request, catalogue)
        draft = _Draft(request, catalogue)
        output = draft.finished(draft.add(resolved, width, height, request.seed), width, height)
        if request.brings("reference") and not any("reference" in step.settings for step in draft.steps):
            raise PlanError("nothing of it draws after a reference; wear a style of kind ip_adapter", "reference")
        draft.notes += cut_negatives(request.negative_prompt, draft.steps, catalogue)
        draft.notes += cut_prompts(request.prompt, draft.steps, catalogue)
        draft.notes += [] if request.prompt == ANY_PROMPT else unsaid(request.prompt, draft.steps, catalogue)
    except PlanError as error:
        raise PlanError(f"recipe {name!r}: {error.message}", error.param) from error
    steps, notes = tuple(draft.steps), tuple(dict.fromkeys(draft.notes))
    taken = handovers(steps, catalogue, (width, height))
    ignores, overlooks = tuple(dict.fromkeys(draft.ignores)), unseen(steps, request)
    return Plan(name, steps, output.id, width, height, notes, taken, ignores, overlooks)


def cut_prompts(prompt: str, steps: Sequence[Step], catalogue: Catalogue) -> list[str]:
    """Notes on models that will not read all of the prompt. Each word and mark is at least one token, so this never
    warns of a prompt that would have fitted."""
    models = []
    for step in steps:  # `Step.models`, said here: every decision passes
        models += [model for model in (step.model, step.settings.get("guest")) if isinstance(model, str)]
    return _cut("prompt", prompt, models, catalogue)


def cut_negatives(prompt: str, steps: Sequence[Step], catalogue: Catalogue) -> list[str]:
    """The same of the negative prompt `prompt`, for the models that heed one."""
    heeding = []
    for step in steps:
        for model, key in zip(step.models, ("guidance_scale", "guest_guidance_scale"), strict=False):
            guidance = step.settings.get(key)
            if isinstance(guidance, int | float) and catalogue[model].heeds_negative(guidance):
                heeding.append(model)
    return _cut("negative prompt", prompt, heeding, catalogue) if prompt else []


def _cut(what: str, prompt: str, models: Iterable[str], catalogue: Catalogue) -> list[str]:
    limits: dict[str, int] = {}
    for model in models:
        if model not in limits:
            limits[model] = catalogue[model].max_prompt_tokens
    if len(prompt) + 2 <= min(limits.values(), default=0):  # even if each character were a token
        return []
    least = len(_TOKEN.findall(prompt[:20_000])) + 2
    notes = []
    for model, limit in limits.items():
        if least > limit:
            notes.append(f"{model} reads at most {limit} tokens; this {what} has at least {least}, its end is cut")
    return notes


def _what(model: str | None, settings: Mapping[str, Scalar]) -> object:
    """What a step's name says beside its kind."""
    return model or settings.get("role") or settings.get("method") or settings.get("factor") or "mask"


# ------------------------------------------------------------------------------------------------------------- steps


@dataclass
class _Draft:
    """The steps arranged so far. Every `add` method returns the step whose value stands for its recipe."""

    request: GenerationRequest
    catalogue: Catalogue
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignores: list[str] = field(default_factory=list)

    def add(self, recipe: Recipe, width: int, height: int, seed: int) -> Step:
        if isinstance(recipe, Fuse):
            return self.add_fusion(recipe, width, height, seed)
        stages = stages_of(recipe)
        check_stages(stages)
        # What the first stage delivers; a fusion that enlarges takes its own factor off again.
        factor = math.prod(enlargement(stage) for stage in stages[1:])
        width, height = reduced(width, factor), reduced(height, factor)
        last: Step | None = None
        works = width, height  # the size that the picture has now; width and height: what it is to have here
        for stage, following in zip(stages, (*stages[1:], None), strict=True):
            if last is None:
                if isinstance(stage, Given):
                    last, works = self.whole(width, height)
                elif isinstance(stage, Edit):
                    last, works = self.add_edit(stage, width, height, seed), (width, height)
                elif isinstance(stage, Generate):
                    works = self.drawing(stage, width, height)
                    last = self.add_generate(stage, following, *works, seed, (width, height))
                else:
                    last = self.add(stage, width, height, seed)
            elif isinstance(stage, Map):
                last, works = self.resized(last, works, width, height), (width, height)
                last = self.mapped(stage.kind, last)
            elif isinstance(stage, Refine):
                if stage.strength is not None and works != (width, height) and not self.stays(stage, works):
                    last, works = self.resized(last, works, width, height), (width, height)
                last = self.add_refine(stage, following, last, *works, seed)
            elif isinstance(stage, Upscale):
                last, works = self.resized(last, works, width, height), (width, height)
                last = self.new("upscale", None, (last.id,), "image", {"factor": float(stage.factor)})
                works = width, height = round(width * stage.factor), round(height * stage.factor)
        assert last is not None
        return self.resized(last, works, width, height)

    def drawing(self, stage: Generate, width: int, height: int) -> tuple[int, int]:
        """The size at which a stage draws from noise; in windows it sees no more than one of these."""
        card = card_of(stage.model, self.catalogue)
        if stage.tile is not None or card.role != "base":
            return width, height
        check_size(card, width, height)
        return self.noted(card, width, height, drawing_size(card, width, height))

    def noted(self, card: ModelCard, width: int, height: int, works: tuple[int, int]) -> tuple[int, int]:
        if works != (width, height):
            self.notes.append(
                f"{card.id} does not draw well at {width}x{height}; it draws at {works[0]}x{works[1]}, and the picture "
                f"is brought to {width}x{height}"
            )
        return works

    def stays(self, stage: Refine, works: tuple[int, int]) -> bool:
        """Is a picture refined at the size it has, before it is brought to the size that was asked for?"""
        return stage.tile is None and card_of(stage.model, self.catalogue).good_at(*works)

    def resized(self, before: Step, works: tuple[int, int], width: int, height: int) -> Step:
        """`before` with its picture brought to width x height (Lanczos); itself if it has this size."""
        if works == (width, height):
            return before
        factor = round(math.sqrt(width * height / (works[0] * works[1])), 4)
        settings = {"factor": factor, "width": width, "height": height}
        return self.new("upscale", None, (before.id,), "image", settings)

    # Given pictures

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

    def add_edit(self, stage: Edit, width: int, height: int, seed: int) -> Step:
        """The given picture, width x height, painted over by a model, at a size at which that works."""
        card, masked = card_of(stage.model, self.catalogue), self.request.brings("mask")
        check_editor(card, stage, self.request)
        image, size = self.whole(width, height)
        works = editing_size(card, width, height)
        if works != (width, height):
            self.notes.append(
                f"{card.id} works on the given picture at {works[0]}x{works[1]}; what it paints is brought to "
                f"{width}x{height}"
            )
        request, strength = self.request, strength_of(stage, self.request)
        steps = self.overridden(f"steps of {card.id}", request.steps, stage.steps, card.steps)
        guidance = self.overridden(
            f"guidance_scale of {card.id}", request.guidance_scale, stage.guidance_scale, card.guidance_scale
        )
        settings = {**self.sampling(card, *works, steps, guidance, stage.scheduler, seed), **self.clothed(stage, card)}
        if card.edits == "instruct" and masked is None:
            return self.resized(self.add_instructed(card, settings, *works), works, width, height)
        settings["strength"] = self.strength(card, steps, strength)
        before = self.resized(image, size, *works)
        guide = self.references(card, 1, len(self.request.pictures)) if card.edits == "instruct" else ()
        settings |= {"references": len(guide)} if guide else {}
        if stage.control is not None:
            check_control(card, stage.control, alone=True)
            check_guided(card, guidance)
            followed, told = self.followed(card, stage.control, before)
            guide, settings = (followed,), settings | told
        if masked is None:
            self.notes.append(f"{card.id} paints over the given picture by strength {strength:g}")
            painted = self.new("refine", card.id, (before.id, *guide), "image", settings)
            return self.resized(painted, works, width, height)
        self.notes.append(
            f"{card.id} draws the {masked.share:.0%} of the given picture that the mask leaves open, by strength "
            f"{strength:g}; every byte elsewhere stays"
        )
        inputs = (before.id, self.given("mask").id, *guide)
        drawn = self.new("inpaint", card.id, inputs, "image", settings)
        return self.pasted(self.resized(drawn, works, width, height), width, height)

    def add_instructed(self, card: ModelCard, settings: Mapping[str, Scalar], width: int, height: int) -> Step:
        """A picture of width x height, drawn as the prompt tells it by a model that looks at the given ones."""
        pictures = self.request.pictures[: card.max_pictures]
        if card.side_by_side:
            seen = self.references(card, 0, len(pictures))
        else:
            first = self.resized(self.given("image"), (pictures[0].width, pictures[0].height), width, height)
            seen = (first.id, *self.references(card, 1, len(pictures)))
        several = f"{len(pictures)} pictures" + (", side by side as one" if card.side_by_side else "")
        sight = several if len(pictures) > 1 else "the given picture"
        self.notes.append(f"{card.id} draws as the prompt tells it, looking at {sight}")
        further: dict[str, Scalar] = {"references": len(seen) - 1} if len(seen) > 1 else {}
        return self.new("edit", card.id, seen, "image", {**settings, **further})

    def references(self, card: ModelCard, begin: int, end: int) -> tuple[str, ...]:
        """Ids of the steps with given pictures from number `begin` on at which a model looks, each at a size that it
        takes; one, of all beside one another, for a model that takes several only so, and for each within a mask."""
        pictures = self.request.pictures[begin : min(end, card.max_pictures)]
        given = [self.given("image", begin + place) for place in range(len(pictures))]
        sizes = [(one.width, one.height) for one in pictures]
        masked = self.request.brings("mask") is not None
        if len(pictures) > 1 and (card.side_by_side or masked):
            width, height = looking_size(card, *beside_one_another(sizes))
            settings: dict[str, Scalar] = {"method": "side_by_side", "width": width, "height": height}
            return (self.new("blend", None, tuple(step.id for step in given), "image", settings).id,)
        return tuple(
            self.resized(step, size, *looking_size(card, *size)).id for step, size in zip(given, sizes, strict=True)
        )

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

    def pasted(self, drawn: Step, width: int, height: int) -> Step:
        """What was drawn, laid over the given picture where the mask is open."""
        inputs = (drawn.id, self.given("image").id, self.given("mask").id)
        return self.new("paste", None, inputs, "image", {"width": width, "height": height})

    def finished(self, last: Step, width: int, height: int) -> Step:
        """The last step; with a mask, whatever came after the edit is laid over the given picture as well."""
        if self.request.brings("mask") is None or last.kind == "paste":
            return last
        self.notes.append("what goes on from the edit is laid over the given picture as well, where the mask is open")
        return self.pasted(last, width, height)

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

    def add_generate(
        self, stage: Generate, following: Recipe | None, width: int, height: int, seed: int, asked: tuple[int, int]
    ) -> Step:
        """asked: the size that the picture is to have; width and height: at which it is drawn."""
        card = card_of(stage.model, self.catalogue)
        if card.role != "base":
            raise PlanError(f"{card.id!r} is {card.kind} and cannot generate; {NOT_BASE[card.role]}", "recipe")
        self.check_sides(card, stage.width, stage.height, *asked)
        self.check_told(card, stage)
        tiles = self.fitted(card, stage.tile, stage.overlap, width, height)
        request = self.request
        steps = self.overridden(f"steps of {card.id}", request.steps, stage.steps, card.steps)
        guidance = self.overridden(
            f"guidance_scale of {card.id}", request.guidance_scale, stage.guidance_scale, card.guidance_scale
        )
        settings = {**self.sampling(card, width, height, steps, guidance, stage.scheduler, seed), **tiles}
        settings |= self.clothed(stage, card)
        if stage.control is not None:
            check_control(card, stage.control, alone=stage.until is None and stage.tile is None)
            image, size = self.whole(*asked)
            guide, told = self.followed(card, stage.control, self.resized(image, size, width, height))
            return self.new("generate", card.id, (guide,), "image", settings | told)
        if stage.until is None:
            return self.new("generate", card.id, (), "image", settings)
        check_until(card, stage.until, following)
        check_share(card, steps, stage.until, "until")
        return self.new("generate", card.id, (), "latents", {**settings, "until": float(stage.until)})

    def add_refine(
        self, stage: Refine, following: Recipe | None, before: Step, width: int, height: int, seed: int
    ) -> Step:
        card = card_of(stage.model, self.catalogue)
        if card.remote is not None:
            raise PlanError(
                f"{card.id!r} is drawn by {card.remote.name}, which makes pictures from a prompt only and is given "
                "none to go on from; refine with a model that is loaded here",
                "recipe",
            )
        if card.role == "scorer":
            raise PlanError(f"{card.id!r} is a scorer and cannot refine; name a refiner or a base model", "recipe")
        if (stage.from_ is None) == (stage.strength is None):
            raise PlanError(f"refine on {card.id!r} needs either `from` or `strength`, exactly one of them", "recipe")
        if stage.tile is not None and stage.strength is None:
            raise PlanError(f"refine on {card.id!r}: tiles need `strength`; latents are taken over whole", "recipe")
        tiles = self.fitted(card, stage.tile, stage.overlap, width, height)
        shared = before.settings.get("steps") if stage.from_ is not None else None
        usual = shared if isinstance(shared, int) else card.steps
        steps = usual if stage.steps is None else stage.steps
        # A tile shows a part of what the prompt says; whether guidance paints all of it into every tile is the card's.
        own = card.tile_guidance_scale if tiles else None
        usual_guidance = card.guidance_scale if own is None else own
        guidance = usual_guidance if stage.guidance_scale is None else stage.guidance_scale
        settings = self.sampling(card, width, height, steps, guidance, stage.scheduler, seed)
        settings |= self.clothed(stage, card)
        if stage.from_ is not None:
            check_takeover(card, stage.from_, before, self.catalogue)
            if stage.until is not None:
                check_until(card, stage.until, following, stage.from_)
            check_share(card, steps, (stage.until or 1) - stage.from_, "from")
            self.notes.append(f"{before.model} hands latents to {card.id} at {stage.from_:g} of the denoising")
            settings |= {"from": float(stage.from_)}
            if stage.until is None:
                return self.new("refine", card.id, (before.id,), "image", settings)
            return self.new("refine", card.id, (before.id,), "latents", {**settings, "until": float(stage.until)})
        if stage.until is not None:
            raise PlanError(f"until of {card.id!r} belongs to `from`, not to strength; drop it", "recipe")
        assert stage.strength is not None
        if not card.refines:
            raise PlanError(
                f"{card.id!r} cannot go on from a picture: family {card.family!r} draws from noise only; "
                "refine with another model, or let it generate",
                "recipe",
            )
        told = len(self.notes)
        strength = self.strength(card, steps, stage.strength)
        self.notes.insert(told, self.through_pixels(card, before, stage.strength))
        asked = self.request.width or self.request.height
        if asked and not tiles and not card.good_at(width, height):
            self.notes.append(
                f"{card.id} paints over a picture of {width}x{height}, at which it was not shown to be good"
            )
        settings |= {"strength": strength, **tiles}
        if stage.control is None:
            return self.new("refine", card.id, (before.id,), "image", settings)
        check_control(card, stage.control, alone=True)
        check_guided(card, guidance)
        guide = self.mapped(stage.control.kind, before)
        self.notes.append(f"{card.id} follows the {stage.control.kind} map of the picture that it refines ({guide.id})")
        settings |= {"control": stage.control.kind, "control_scale": float(stage.control.scale)}
        return self.new("refine", card.id, (before.id, guide.id), "image", settings)

    def check_told(self, card: ModelCard, stage: Generate) -> None:
        """Raise `PlanError` if recipe or request say something that the server of the model cannot be told."""
        if card.remote is None:
            return
        asked = {
            "steps": stage.steps if self.request.steps is None else self.request.steps,
            "guidance_scale": stage.guidance_scale
            if self.request.guidance_scale is None
            else self.request.guidance_scale,
            "scheduler": stage.scheduler,
            "tile": stage.tile,
            "until": stage.until,
        }
        for key, value in asked.items():
            if value is not None and not card.takes(key):
                raise PlanError(
                    f"{card.id!r} is drawn by {card.remote.name}, which cannot be told {key!r}; leave it out", key
                )

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

    def through_pixels(self, card: ModelCard, before: Step, strength: float) -> str:
        giver = "the given picture" if before.kind == "given" else before.model or before.id
        spaces = before.model is not None and card_of(before.model, self.catalogue).latent_space != card.latent_space
        why = "another latent space" if spaces else "a finished picture"
        return f"{giver} to {card.id} goes through pixels ({why}): encoded again and re-noised by {strength:g}"

    def add_denoise(self, recipe: Fuse, width: int, height: int, seed: int) -> Step:
        """One step on the worker of one model, which asks the other for its prediction each time."""
        host, guest = seated(recipe, self.catalogue)
        if self.request.style or host.stage.style or guest.stage.style:
            raise PlanError("styles are not worn in a denoise of two models; wear them in a chain or alone", "style")
        names = f"{host.card.id} and {guest.card.id}"
        self.check_sides(host.card, common(host, guest, "width"), common(host, guest, "height"), width, height)
        tile, asked = common(host, guest, "tile"), (width, height)
        if tile is None:
            check_size(host.card, width, height)
            width, height = self.noted(host.card, width, height, drawing_size(host.card, width, height))
        tiles = self.fitted(host.card, tile, common(host, guest, "overlap"), width, height)
        seen = (int(tiles["tile_width"] or 0), int(tiles["tile_height"] or 0)) if tiles else (width, height)
        check_size(guest.card, *seen)
        steps = self.overridden(f"steps of {names}", self.request.steps, common(host, guest, "steps"), host.card.steps)
        scheduler = common(host, guest, "scheduler")
        sampled = [
            self.sampling(
                member.card,
                width,
                height,
                steps,
                self.overridden(
                    f"guidance_scale of {member.card.id}",
                    self.request.guidance_scale,
                    member.stage.guidance_scale,
                    member.card.guidance_scale,
                ),
                scheduler,
                seed,
            )
            for member in (host, guest)
        ]
        counts = f"{guest.start:.2g}" + (f" to {guest.end:.2g}" if guest.end != guest.start else "")
        self.notes.append(
            f"{names} predict every step together, on the worker of {host.card.id} and on its schedule; "
            f"{guest.card.id} counts {counts}"
        )
        settings = {**sampled[0], **tiles, "guest": guest.card.id}
        settings |= {"guest_guidance_scale": sampled[1]["guidance_scale"]}
        settings |= {"guest_weight": guest.start, "guest_weight_end": guest.end}
        return self.resized(self.new("denoise", host.card.id, (), "image", settings), (width, height), *asked)

    def add_fusion(self, recipe: Fuse, width: int, height: int, seed: int) -> Step:
        check_fusion(recipe)
        if recipe.method == "denoise":
            return self.add_denoise(recipe, width, height, seed)
        if recipe.search is not None and not recipe.turns:
            recipe = unresolved(recipe)
        if len(recipe.turns) == 1:
            self.notes.append("a single picture: no further one is expected to be worth its price")
            assert not isinstance(recipe.branches[0], str)
            return self.add(recipe.branches[0], width, height, seed)
        in_turn = recipe.accept_above is not None or bool(recipe.turns)
        seen: dict[str, int] = {}
        outputs: list[Step] = []
        scores: list[Step] = []
        for place, branch in enumerate(recipe.branches):
            assert not isinstance(branch, str)
            key = recipe_key(branch, {}, self.catalogue)
            again = seen[key] = seen.get(key, -1) + 1
            if again and not recipe.turns:
                self.notes.append(f"{key} is repeated in the fusion: repetition {again} uses seed + {again}")
            begun = len(self.steps)
            outputs.append(self.add(branch, width, height, (seed + again) % 2**32))
            if in_turn:
                turn = recipe.turns[place] if recipe.turns else None
                scores.append(self.add_score(recipe, outputs[-1:], turn))
                self.spare(begun, scores[:-1], turn.bar if turn else recipe.accept_above or 0.0)
        settings: dict[str, Scalar] = {"method": recipe.method}
        if recipe.method == "regions":
            outputs += self.add_regions(recipe, outputs)
            settings = {"method": "best_of"}
        if recipe.weights is not None:
            settings["weights"] = recipe.weights
        inputs = tuple(step.id for step in outputs)
        needs = recipe.min_successful
        if needs is not None:
            self.notes.append(
                f"{needs} of {len(recipe.branches)} branches of the {recipe.method} are enough if others fail"
            )
        if recipe.blend_within is not None:
            settings["blend_within"] = float(recipe.blend_within)
            inputs = (*inputs, self.add_score(recipe, outputs).id)
            self.notes.append(
                f"if the pictures disagree by more than {recipe.blend_within:g}, they are not blended; "
                f"the one that {recipe.scorer} likes best is kept"
            )
        if FUSIONS[recipe.method] == "blend":
            return self.new("blend", None, inputs, "image", settings, needs)
        if recipe.turns:
            bars = ", ".join(f"{turn.bar:.2f}" for turn in recipe.turns[1:])
            self.notes.append(
                f"up to {len(outputs)} pictures in turn, each left out if an earlier one is right with {bars}"
            )
        elif in_turn:
            self.notes.append(f"the branches run in turn until one scores at least {recipe.accept_above:g}")
        else:
            scores.append(self.add_score(recipe, outputs))
        return self.new("select", None, (*inputs, *(step.id for step in scores)), "image", settings, needs)

    def add_regions(self, recipe: Fuse, pictures: list[Step]) -> list[Step]:
        """A further picture: the object of each phrase of the prompt from the picture that shows it best.

        None if the prompt does not name several single objects; then regions is best_of, and a note says so.
        """
        phrases = object_phrases(self.request.prompt)
        if not 2 <= len(phrases) <= MAX_PHRASES or any(phrase.count != 1 for phrase in phrases):
            self.notes.append(
                "the prompt does not name two or more single objects; regions keeps the best whole picture"
            )
            return []
        most: Scalar = len(phrases) + 2
        inputs = tuple(step.id for step in pictures)
        scores = [self.add_score(recipe, pictures, prompt=phrase.text, segments=most) for phrase in phrases]
        asked = ", ".join(repr(phrase.text) for phrase in phrases)
        self.notes.append(f"regions looks for {asked} in every picture and puts the best of each together")
        settings: dict[str, Scalar] = {"method": "regions", "segments": most}
        return [self.new("blend", None, (*inputs, *(step.id for step in scores)), "image", settings)]

    def add_score(
        self,
        recipe: Fuse,
        pictures: list[Step],
        turn: Turn | None = None,
        prompt: str | None = None,
        segments: Scalar = None,
    ) -> Step:
        scorer = card_of(str(recipe.scorer), self.catalogue)
        if scorer.role != "scorer":
            raise PlanError(f"{scorer.id!r} is a {scorer.role} and cannot score; name a scorer", "recipe")
        inputs = tuple(step.id for step in pictures)
        settings: dict[str, Scalar] = {"prompt": self.request.prompt if prompt is None else prompt}
        if segments is not None:
            settings["segments"] = segments
        if turn is not None:  # the scores become probabilities, so that they compare between recipes
            settings |= {"slope": turn.slope, "offset": turn.offset}
        needs = recipe.min_successful if len(pictures) > 1 else None
        return self.new("score", scorer.id, inputs, "scores", settings, needs)

    def spare(self, begun: int, before: list[Step], bar: float) -> None:
        """Let the steps from number `begun` on be left out if a score `before` them is good enough."""
        if not before:
            return
        earlier = tuple(score.id for score in before[:-1])
        for place, step in enumerate(self.steps[begun:], begun):
            if step.unless is None:
                self.steps[place] = replace(step, unless=Unless(before[-1].id, bar, earlier))

    def new(
        self,
        kind: StepKind,
        model: str | None,
        inputs: tuple[str, ...],
        produces: Literal["image", "mask", "latents", "scores"],
        settings: Mapping[str, Scalar],
        needs: int | None = None,
    ) -> Step:
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
