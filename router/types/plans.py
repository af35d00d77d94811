"""Plans: a recipe made concrete, as a typed, acyclic graph of steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from router.types.cards import Scalar

StepKind = Literal[
    "given",
    "control",
    "generate",
    "denoise",
    "refine",
    "edit",
    "inpaint",
    "upscale",
    "paste",
    "score",
    "select",
    "blend",
]


@dataclass(frozen=True, slots=True)
class Unless:
    """When a step is left out: if the step `score` or one of the `earlier` ones gave at least `at_least`, or if `score`
    was itself left out."""

    score: str
    at_least: float
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One node of a plan.

    model:    catalogue id of the worker that runs it; None for steps without a model (select, blend, upscale)
    inputs:   ids of the steps whose values it takes, in order
    produces: "image", "mask", "latents" or "scores"
    settings: builtins only. generate/refine: prompt, negative_prompt, width, height, steps, guidance_scale, scheduler,
              seed, style (as `spelled` says it) where one is worn, and until / from / strength where they apply;
              tile_width, tile_height, tile_overlap (pixels) and
              tiles (how many) for a picture that is worked on in tiles. denoise: as generate, and guest (the model that
              predicts beside `model`, on its worker), guest_guidance_scale, and what the guest counts at the start and
              at the end of the denoising, guest_weight and guest_weight_end (0..1; `model` counts the rest). score:
              prompt; slope and offset where its scores are to be probabilities; segments where not pictures are scored
              but up to so many objects of each. given: role, digest, width, height, and share of a mask. control:
              method, of the map that it makes; generate, refine and inpaint that follow one have its kind as control,
              what it counts as control_scale, and the map as their last input; those that draw after
              a reference picture have the step that has it as reference, and as the very last input. inpaint (of a
              picture and a mask): as refine by strength. edit (of a picture): as generate, by a model that looks at the
              picture; of edit and inpaint, references is how many further pictures it looks at, which are its next
              inputs. paste (a drawn picture, a given one and a mask): width and
              height, to which each of the three is brought. select/blend: method, weights, segments, blend_within.
              upscale: factor, or width and height, which count before it.
    unless:   set where an earlier picture may be good enough to spare this step
    needs:    so many of its pictures are enough, if the steps that make the others fail; None: all of them
    """

    id: str
    kind: StepKind
    model: str | None
    inputs: tuple[str, ...]
    produces: Literal["image", "mask", "latents", "scores"]
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    unless: Unless | None = None
    needs: int | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that the step needs: its own, and the guest of a denoise."""
        guest = self.settings.get("guest")
        return tuple(model for model in (self.model, guest) if isinstance(model, str))

    @property
    def after(self) -> tuple[str, ...]:
        """Ids of the steps that must have ended before this one may begin."""
        waits = () if self.unless is None else (self.unless.score, *self.unless.earlier)
        return (*self.inputs, *waits)


@dataclass(frozen=True, slots=True)
class HandOver:
    """What one model's step takes from an earlier step.

    kind:  "latents" (unfinished, of latent space `space`) or "pixels" (a picture, `space` is "srgb")
    giver, taker: ids of the steps;   size_from, size_to: width and height in pixels, given and worked at
    share: part of the denoising that the taker runs, 0..1
    """

    giver: str
    taker: str
    kind: Literal["latents", "pixels"]
    space: str
    size_from: tuple[int, int]
    size_to: tuple[int, int]
    share: float


@dataclass(frozen=True)
class Plan:
    """A recipe made concrete for one request and one picture: steps in topological order.

    handovers: what goes from model to model, in the order of the steps
    notes: in words, everything that was inserted or changed (a hand-over through pixels, a size that was snapped)
    ignores: in words, what of the request has no effect on it (a negative prompt without guidance); also in the notes
    overlooks: in words, what of the request it leaves out where other recipes may not: further given pictures
    """

    recipe: str
    steps: tuple[Step, ...]
    output: str  # id of the step whose image is the answer
    width: int
    height: int
    notes: tuple[str, ...] = ()
    handovers: tuple[HandOver, ...] = ()
    ignores: tuple[str, ...] = ()
    overlooks: tuple[str, ...] = ()

    def with_seed(self, seed: int) -> Plan:
        """The same plan for another picture: every step's seed is moved by the same amount."""
        seeds = [old for s in self.steps if isinstance(old := s.settings.get("seed"), int)]
        # The first step has the request's own seed; only repeated branches of a fusion are moved from it.
        shift = seed - (seeds[0] if seeds else seed)

        def moved(step: Step) -> Step:
            old = step.settings.get("seed")
            if not isinstance(old, int):
                return step
            return replace(step, settings={**step.settings, "seed": (old + shift) % 2**32})

        return replace(self, steps=tuple(moved(s) for s in self.steps))

    def digest(self) -> str:
        """Twelve hex digits that change with anything that could change the picture."""
        body = [asdict(replace(s, settings=dict(s.settings))) for s in self.steps]
        return hashlib.sha256(json.dumps([body, self.output], sort_keys=True).encode()).hexdigest()[:12]
