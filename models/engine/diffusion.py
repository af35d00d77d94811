"""One pipeline on one device, running the `generate`, `denoise`, `refine`, `edit` and `inpaint` steps of plans.

The same step gives the same bytes whatever ran before: the noise comes from a CPU generator seeded by the step, and
each run gets a fresh scheduler.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from PIL import Image

from models.call import Call
from models.engine.device import Device, as_before
from models.engine.guests import Guest, joined
from models.engine.previews import fit_colours
from models.engine.progress import OnBatchProgress, OnProgress, ShouldStop, Watch
from models.engine.settings import arguments, ignores_negative, read_call
from models.engine.tiles import blend, boxes
from models.engine.warmup import warm_up_step
from models.engine.windows import windowed
from models.families import FAMILIES
from models.fusion.colour import Pixels
from models.handover import (
    check_latents,
    check_mask,
    check_picture,
    to_image,
    to_latents,
    to_mask_image,
    to_picture,
    to_tensor,
)
from models.profiling.parts import Parts
from models.profiling.phases import Phases
from models.prompts.chunks import reads
from models.prompts.remembered import RememberedPrompts
from models.schedulers import build_scheduler, start_from, start_index, ve_factor
from models.styles.wearing import styled
from models.tuning.applying import tuning_of
from models.tuning.caches import told
from models.tuning.smaller import SmallerDecoding, in_tiles
from models.weights.controls import Controls
from models.weights.loading import img2img, inpaint, load_pipeline, resolve_dtype
from models.weights.needs.memory import check_fits
from models.weights.revisions import revision
from models.weights.sharing import SharedNetworks
from router.errors import LoadError, StepError, TriptychError
from router.types import Latents, ModelCard, Picture, Scalar, Step, StepResult, Style, Value, spelled

ABLE = {
    "base": ("generate", "denoise", "refine", "edit", "inpaint"),
    "refiner": ("refine",),
    "editor": ("inpaint",),
}
"""What a model of each role does, where its family can."""


INPUTS = {"refine": (1, "one input"), "edit": (1, "a picture"), "inpaint": (2, "a picture and a mask")}
"""What a kind of step takes, if anything, before further pictures to look at and the map of a control."""


class DiffusionEngine:
    """Loads the model of `card` on construction; `LoadError` says what is missing.

    guests: cards of the models whose networks it holds beside its own, for `denoise` steps. One that cannot be loaded
    does not stop the others: its steps raise `StepError`.
    device, dtype, threads, networks: as of `load_engine`. Runs one step at a time; further calls wait.
    """

    def __init__(
        self,
        card: ModelCard,
        device: str = "cpu",
        dtype: str | None = None,
        threads: int | None = None,
        guests: Sequence[ModelCard] = (),
        networks: SharedNetworks | None = None,
    ) -> None:
        self.card = card
        self.parts: Parts | None = None
        """What looks at the parts of its runs, if somebody wants to know."""
        self.bounds: Mapping[str, Scalar] = {}
        """What its device has memory for, where that is less than its card says: `most_pixels`."""
        self._device = Device(card, device, threads)
        for one in (card, *guests) if guests else ():
            if one.tuning.get("offload"):
                raise LoadError(
                    f"model {one.id!r}: tuning.offload: two models predict together in {card.id!r}, and neither can "
                    "leave the device; leave out offload or guests"
                )
        if guests:
            check_fits(card, device, str(resolve_dtype(card, device, dtype)).removeprefix("torch."), guests)
        self._pipe = load_pipeline(card, device, dtype, networks)
        self._family = FAMILIES[card.family]
        self._scheduler = self._pipe.scheduler
        self._img2img = img2img(card, self._pipe)
        self._inpaint = inpaint(card, self._pipe)
        self._controls = Controls(card, self._pipe, device, resolve_dtype(card, device, dtype))
        self._guests: dict[str, Guest | LoadError] = {}
        for guest in guests:
            try:
                self._guests[guest.id] = Guest(guest, self._pipe, card.family, device, dtype, networks)
            except LoadError as error:  # its words; its frames would keep the weights that were loaded before it
                self._guests[guest.id] = LoadError(error.message, error.param)
        self.prompts = RememberedPrompts(card)
        self._smaller = SmallerDecoding(card, self._pipe.vae)
        self._guest_cards = {guest.id: guest for guest in guests}
        self.revision = revision(card)

    def run(
        self,
        step: Step,
        inputs: Sequence[Value] = (),
        *,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> StepResult:
        """Execute one step that draws; see `Engine`. What runs out of memory is tried once more, decoded in tiles; then
        `decoded_in_tiles` of the facts is their side in pixels."""
        self._check_able(step, inputs)

        def draw(side: int | None) -> StepResult:
            def work() -> tuple[Value, dict[str, Scalar]]:
                with in_tiles(self._pipe.vae, side, self.card.vae_scale):
                    return self._execute(step, inputs, on_progress, should_stop)

            (value, facts), seconds = self._device.alone(step, work)
            return StepResult(value, seconds, {**self._device.facts(self.revision), **facts})

        return self._smaller.tried(step, draw)

    def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        *,
        on_progress: OnBatchProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[StepResult | TriptychError]:
        """The same step for several pictures, in one call if memory allows; see `Engine`.

        The steps may differ in prompt, seed and the text of the negative prompt only (`StepError` otherwise). A picture
        is that of `run` up to rounding in the last bits, which depends on the size of the batch. In tiles, with a cache
        that looks at what it skips, where the model looks at given pictures, and where only one is left, they are those
        of `run`. seconds: equal shares. Facts:
        `batch`, how many were made in one call, if several were; `batch_too_large`, how many were too many for the
        memory.
        """
        made: dict[int, StepResult | TriptychError] = {}
        calls: dict[int, Call] = {}
        for number, (step, values) in enumerate(zip(steps, inputs, strict=True)):
            try:
                self._check_able(step, values)
                calls[number] = read_call(step, self.card, self._guest_cards)
            except StepError as error:
                made[number] = error
        # Without a negative prompt SDXL guides away from zeros, not from the embedding of "": one call cannot do both.
        alike = {
            replace(c, prompt="", negative_prompt="any" * bool(c.negative_prompt), seed=0, facts={})
            for c in calls.values()
        }
        if len(alike) > 1:
            raise StepError(
                f"steps of one batch on {self.card.id!r} must agree in all but prompt and seed, and "
                "either all or none have a negative prompt"
            )

        def draw(numbers: Sequence[int]) -> list[StepResult]:
            if len(numbers) == 1:
                step, values = steps[numbers[0]], inputs[numbers[0]]
                report = None if on_progress is None else partial(on_progress, numbers[0])
                return [self.run(step, values, on_progress=report, should_stop=should_stop)]
            report_one = None if on_progress is None else lambda place, told: on_progress(numbers[place], told)
            chosen = [steps[n] for n in numbers], [calls[n] for n in numbers], [inputs[n] for n in numbers]
            return self._draw(*chosen, report_one, should_stop)

        for call in alike:
            passes = (call.guidance_scale > 1) + sum(style.passes for style, _ in self._worn(call))
            memory = (steps[next(iter(calls))].kind, call.width, call.height, passes, call.mix)
            single = call.tiling is not None or call.looks or call.references or call.reference
            alone = single or self._by_content or reads(self.card)
            parts = [[number] for number in calls] if alone else [list(calls)]
            for part in parts:
                made |= self._device.together(part, memory, draw)
        return [made[number] for number in range(len(steps))]

    def _draw(
        self,
        steps: Sequence[Step],
        calls: Sequence[Call],
        inputs: Sequence[Sequence[Value]],
        on_progress: OnBatchProgress | None,
        should_stop: ShouldStop | None,
    ) -> list[StepResult]:
        def work() -> list[tuple[Value, dict[str, Scalar]]]:
            pipe = self._prepared(steps[0], calls[0])
            watch = self._watch(steps, calls[0], pipe, on_progress, should_stop)
            watch.check()
            output = self._denoise(pipe, calls, inputs, watch)
            self._check_ran(steps[0], calls[0], watch)
            values = [self._value(pipe, calls[0], output[i : i + 1], watch.done) for i in range(len(calls))]
            shared = watch.phases.seconds(calls[0].until is None, len(calls))
            return [
                (value, {**self._call_facts(pipe, call), **shared, "steps": watch.done, "batch": len(calls)})
                for value, call in zip(values, calls, strict=True)
            ]

        made, seconds = self._device.alone(steps[0], work)
        common = self._device.facts(self.revision)
        return [StepResult(value, seconds / len(made), {**common, **facts}) for value, facts in made]

    def warm_up(self) -> float:
        """Run the shortest possible step, so that the first request does not pay for allocation, nor for compiling the
        shapes of the card's tuning; returns seconds."""
        _ = self._colours
        sizes = tuning_of(self.card).sizes or (self.card.native_size,)
        return sum(self.run(*warm_up_step(self.card, size)).seconds for size in sizes)

    @property
    def _by_content(self) -> bool:
        """Whether pictures of one call would decide for each other what is taken over from the step before."""
        return "first_block" in dict(self.card.tuning.get("cache") or {})  # type: ignore[call-overload]

    def _check_able(self, step: Step, inputs: Sequence[Value]) -> None:
        if step.kind not in ABLE[self.card.role]:
            raise StepError(f"step {step.id!r}: {self.card.id!r} is {self.card.kind} and cannot {step.kind!r}")
        due, what = INPUTS.get(step.kind, (0, "no input"))
        if isinstance(further := step.settings.get("references"), int) and further:
            due, what = due + further, f"{what} and {further} more to look at"
        due, what = (due + 1, f"{what} and a control map") if step.settings.get("control") else (due, what)
        due, what = (due + 1, f"{what} and a reference") if step.settings.get("reference") else (due, what)
        if len(inputs) != due:
            raise StepError(f"step {step.id!r}: {step.kind} takes {what}, not {len(inputs)}")

    def _execute(
        self, step: Step, inputs: Sequence[Value], on_progress: OnProgress | None, should_stop: ShouldStop | None
    ) -> tuple[Value, dict[str, Scalar]]:
        call = read_call(step, self.card, self._guest_cards)
        pipe = self._prepared(step, call)
        report = None if on_progress is None else lambda _, told: on_progress(told)
        watch = self._watch([step], call, pipe, report, should_stop)
        watch.check()
        if self._tile_by_tile(call):
            assert call.tiling is not None
            made = self._refine_tiles(step, call, [check_picture(value, self.card) for value in inputs], watch)
            took = watch.phases.seconds(decoded=True)
            return made, {**self._call_facts(pipe, call), **took, "steps": watch.done, "tiles": call.tiling.count}
        output = self._denoise(pipe, [call], [inputs], watch)
        self._check_ran(step, call, watch)
        value = self._value(pipe, call, output, watch.done)
        tiles: dict[str, Scalar] = {} if call.tiling is None else {"tiles": call.tiling.count}
        took = watch.phases.seconds(decoded=call.until is None)
        return value, {**self._call_facts(pipe, call), **tiles, **took, "steps": watch.done}

    def _check_ran(self, step: Step, call: Call, watch: Watch) -> None:
        if not watch.done:
            raise StepError(f"step {step.id!r}: {call.steps} steps leave none to run here; ask for more steps", "steps")

    def _prepared(self, step: Step, call: Call) -> Any:
        """The pipeline for a step, with a fresh scheduler."""
        own = {"refine": self._img2img, "inpaint": self._inpaint}.get(step.kind, self._pipe)
        pipe = self._controls.pipe(step.kind, call.control) if call.control else own
        assert pipe is not None, "read_call refuses to refine with a family that cannot"
        self.prompts.serve(pipe)
        pipe.scheduler = build_scheduler(call.scheduler, self.card, self._scheduler)
        return pipe

    def _watch(
        self,
        steps: Sequence[Step],
        call: Call,
        pipe: Any,
        on_progress: OnBatchProgress | None,
        should_stop: ShouldStop | None,
    ) -> Watch:
        """The callback of a run. Families whose pipelines cannot stop early themselves are stopped by it."""
        tiles = call.tiling.count if call.tiling is not None and self._tile_by_tile(call) else 1
        last = None
        if call.until is not None and not self._family.cuts_schedule:
            begin = 0 if call.start is None else start_index(pipe.scheduler, call.steps, call.start)
            last = start_index(pipe.scheduler, call.steps, call.until) - begin
        colours = self._colours if on_progress and tiles == 1 else None
        ids = [step.id for step in steps]
        phases = Phases(self._device.name)
        return Watch(ids, on_progress, should_stop, self._unpacker(call), colours, last, tiles, phases)

    def _tile_by_tile(self, call: Call) -> bool:
        """Whether tiles are finished one after the other: the network cannot be applied in windows, or not that of a
        control beside it."""
        return call.tiling is not None and (not self._family.windows or bool(call.control))

    def _refine_tiles(self, step: Step, call: Call, pictures: Sequence[Picture], watch: Watch) -> Picture:
        """Every tile re-noised from its part of one field of noise and denoised with the same prompt, then blended.
        pictures: what is refined, and the map of a control, of which each tile sees its part"""
        import torch

        assert call.tiling is not None
        pixels = [np.asarray(to_image(picture, call.width, call.height)) for picture in pictures]
        places = boxes(call.width, call.height, call.tiling, self.card.size_multiple)
        cells = (1, self.card.latent_channels, call.height // self.card.vae_scale, call.width // self.card.vae_scale)
        noise = torch.randn(cells, generator=torch.Generator("cpu").manual_seed(call.seed))
        parts: list[Pixels] = []
        for box in places:
            one = replace(call, width=box.width, height=box.height, tiling=None)
            pipe = self._prepared(step, one)
            cell = box.scaled(self.card.vae_scale)
            start_from(
                pipe.scheduler, noise[:, :, cell.top : cell.top + cell.height, cell.left : cell.left + cell.width]
            )
            output = self._denoise(pipe, [one], [[Picture(box.of(whole)) for whole in pixels]], watch)
            parts.append(to_picture(output, self.card).pixels)
            watch.next_round()
        return Picture(blend(parts, places, call.width, call.height))

    def _denoise(self, pipe: Any, calls: Sequence[Call], inputs: Sequence[Sequence[Value]], watch: Watch) -> Any:
        """The pipeline's output for calls that differ in prompt and seed only; `inputs` as many."""
        import torch

        call = calls[0]
        each = [arguments(one, self.card, pipe) for one in calls]
        given = {"output_type": "np"} | each[0]
        given |= {words: [one[words] for one in each] for words in ("prompt", "negative_prompt") if words in given}
        if call.start is not None:
            begin = start_index(pipe.scheduler, call.steps, call.start)
            factor = ve_factor(pipe.scheduler, begin)
            given["image"] = torch.cat([to_tensor(self._handed(call, *values), factor) for values in inputs])
            if not self._family.cuts_schedule:
                # img2img begins at whole steps of a share, and would add noise to latents that carry theirs.
                given["strength"] = min(1.0, (call.steps - begin + 0.5) / call.steps)
                start_from(pipe.scheduler, None)
        elif call.strength is not None:
            pictures = [check_picture(values[0], self.card) for values in inputs]
            given["image"] = [to_image(picture, call.width, call.height) for picture in pictures]
        if call.looks:  # alone, and at the sizes that were planned
            given["image"] = [to_image(check_picture(value, self.card)) for value in inputs[0][: 1 + call.references]]
        if call.masked:
            masks = [check_mask(values[1], self.card) for values in inputs]
            given["mask_image"] = [to_mask_image(mask, self.card, call.width, call.height) for mask in masks]
            if call.references:
                further = inputs[0][2 : 2 + call.references]
                given["image_reference"] = [to_image(check_picture(value, self.card)) for value in further]
        if call.control:
            guides = [check_picture(values[-2 if call.reference else -1], self.card) for values in inputs]
            given[guide_of(pipe)] = [to_image(guide, call.width, call.height) for guide in guides]
            given["controlnet_conditioning_scale"] = call.control_scale
        after = Image.fromarray(check_picture(inputs[0][-1], self.card).pixels) if call.reference else None
        noise = [torch.Generator("cpu").manual_seed(one.seed) for one in calls]
        network = getattr(pipe, self._family.denoiser)
        passes = self.card.passes(call.guidance_scale)
        named = self._family.names_passes and type(pipe).__name__ == self._family.pipeline
        try:
            with (
                as_before(self._networks()),
                styled(pipe, self._worn(call), own_scheduler=True, card=self.card, reference=after) as worn,
                self.prompts.worn(bool(call.styles)),
                windowed(pipe, self.card, call),
                watch.phases.of(pipe),
                nullcontext() if self.parts is None else self.parts.of(pipe),
                told(network, passes, contexts=not named),
                self._beside(pipe, calls),
            ):
                return pipe(**{**given, **worn}, generator=noise, callback_on_step_end=watch).images
        finally:
            self._pipe.maybe_free_model_hooks()  # its img2img sibling shares its networks, and has no hooks of its own

    @property
    def device(self) -> str:
        """Where it runs, as torch calls it."""
        return self._device.name

    def _worn(self, call: Call) -> list[tuple[Style, float]]:
        return [(self.card.styles[name], weight) for name, weight in call.styles]

    @property
    def broken(self) -> str:
        """Why no step can succeed in this process any more; empty while all is well."""
        return self._device.broken

    def _networks(self) -> list[Any]:
        """Every network that a run may touch, those of guests included."""
        pipes = [self._pipe, *(guest.pipe for guest in self._guests.values() if isinstance(guest, Guest))]
        parts = [part for pipe in pipes for part in pipe.components.values() if hasattr(part, "named_parameters")]
        return [*parts, *self._controls.networks()]

    def _beside(self, pipe: Any, calls: Sequence[Call]) -> AbstractContextManager[None]:
        """What a denoise step adds to a run: the predictions of its guest."""
        mix = calls[0].mix
        if mix is None:
            return nullcontext()
        guest = self._guests[mix.guest]
        if isinstance(guest, LoadError):
            raise StepError(f"guest {mix.guest!r} of {self.card.id!r} is not there: {guest.message}", "guest")
        return joined(pipe, guest, mix, calls)

    def _handed(self, call: Call, value: Value) -> Latents:
        """Latents that were handed over, checked against what this call continues."""
        assert call.start is not None
        latents = check_latents(value, self.card, call.start)
        shape = (call.height // self.card.vae_scale, call.width // self.card.vae_scale)
        if latents.data.shape[1:] != shape:
            raise StepError(
                f"latents of {latents.data.shape[1:]} cells cannot become a picture of {call.width}x{call.height}"
            )
        return latents

    def _value(self, pipe: Any, call: Call, output: Any, done: int) -> Value:
        if call.until is None:
            return to_picture(output, self.card)
        begin = 0 if call.start is None else start_index(pipe.scheduler, call.steps, call.start)
        pipe.scheduler.set_timesteps(call.steps)
        return to_latents(output, self.card, ve_factor(pipe.scheduler, begin + done), call.until)

    def _unpacker(self, call: Call) -> Any:
        return lambda latents: self._family.layout.cells(self._pipe, latents, call.width, call.height)

    @cached_property
    def _colours(self) -> Any:
        return fit_colours(self._pipe.vae, self._family.layout, self.card.vae_scale)

    def _call_facts(self, pipe: Any, call: Call) -> dict[str, Scalar]:
        facts = {
            **call.facts,
            "scheduler": type(pipe.scheduler).__name__,
            "dtype": str(pipe.vae.dtype).removeprefix("torch."),
            "seed": call.seed,
            "truncated_tokens": self._family.unread_tokens(self.card, self._pipe, call.prompt),
        }
        if self.card.tuned:
            facts["tuning"] = self.card.tuned
        if call.control:
            facts["control"] = call.control
        if call.styles:
            facts["style"] = spelled(call.styles)
        if ignores_negative(call, self.card, pipe):
            facts["negative_prompt_ignored"] = True
        if call.mix is not None and isinstance(guest := self._guests[call.mix.guest], Guest):
            facts |= {"guest": guest.card.id, "guest_revision": guest.revision}
        return facts


def guide_of(pipe: Any) -> str:
    """How a pipeline with a ControlNet calls the map: those that take no picture of their own call it `image`."""
    return "control_image" if "control_image" in inspect.signature(type(pipe).__call__).parameters else "image"
