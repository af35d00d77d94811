"""One model on one device, running the steps of plans: `Engine(card).run(step, inputs)`.

The same step gives the same bytes whatever ran before: the noise comes from a CPU generator seeded by the step, and
each run gets a fresh scheduler.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from models.engine.calls import Call, arguments, ignores_negative, read_call
from models.engine.guests import Guest, joined
from models.engine.previews import fit_colours
from models.engine.progress import OnProgress, ShouldStop, Watch
from models.engine.schedulers import build_scheduler, start_from, start_index, ve_factor
from models.engine.tiles import blend, boxes
from models.engine.windows import windowed
from models.fusion.colour import Pixels
from models.fusion.regions import looks
from models.handover import check_latents, check_picture, to_image, to_latents, to_picture, to_tensor
from models.scoring import load_scorer
from models.weights.loading import FAMILIES, img2img, load_pipeline, resolve_dtype
from models.weights.memory import check_fits
from models.weights.revisions import revision
from router.errors import LoadError, StepError, TriptychError
from router.types import Latents, ModelCard, Picture, Scalar, Scores, Step, StepResult, Value


class Engine:
    """Loads the model of `card` on construction; `LoadError` says what is missing.

    guests: cards of the models whose networks it holds beside its own, for `denoise` steps. One that cannot be loaded
    does not stop the others: its steps raise `StepError`.
    device: "cpu", "cuda", "cuda:1", ...;   dtype: default the card's, float32 on a CPU;   threads: CPU threads of torch
    (they belong to the process, and a different number may change the last bit of a sum).
    Runs one step at a time; further calls wait.
    """

    def __init__(
        self,
        card: ModelCard,
        device: str = "cpu",
        dtype: str | None = None,
        threads: int | None = None,
        guests: Sequence[ModelCard] = (),
    ) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        if device.startswith("cuda"):
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        self.card = card
        self.device = device
        self._lock = threading.Lock()
        if card.role == "scorer":
            self._scorer = load_scorer(card, device, dtype)
        else:
            if guests:
                check_fits(card, device, str(resolve_dtype(card, device, dtype)).removeprefix("torch."), guests)
            self._pipe = load_pipeline(card, device, dtype)
            self._scheduler = self._pipe.scheduler
            self._img2img = img2img(card, self._pipe)
        self._guests: dict[str, Guest | LoadError] = {}
        for guest in guests:
            try:
                self._guests[guest.id] = Guest(guest, self._pipe, device, dtype)
            except LoadError as error:
                self._guests[guest.id] = error
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
        """Execute one `generate`, `denoise`, `refine` or `score` step.

        on_progress is called after each denoising step, should_stop is asked then; when it says yes, `Cancelled` is
        raised. Everything else that goes wrong is a `StepError`.
        """
        self._check_able(step, inputs)
        with self._lock:
            self._reset_peak()
            started = time.perf_counter()
            try:
                value, facts = self._execute(step, inputs, on_progress, should_stop)
            except TriptychError:
                raise
            except Exception as error:
                raise self._step_error(step, error) from error
            seconds = time.perf_counter() - started
        return StepResult(value, seconds, {**self._facts(), **facts})

    def run_batch(self, steps: Sequence[Step], inputs: Sequence[Sequence[Value]]) -> list[StepResult]:
        """The same step, but `score`, for several pictures in one call; a scorer takes them one by one.

        The steps may differ in prompt, seed and the text of the negative prompt only (`StepError` otherwise). A picture
        is that of `run` up to rounding in the last bits, which depends on the size of the batch. seconds: equal shares.
        """
        if self.card.role == "scorer":
            return [self.run(step, values) for step, values in zip(steps, inputs, strict=True)]
        for step, values in zip(steps, inputs, strict=True):
            self._check_able(step, values)
        calls = [read_call(step, self.card, self._guest_cards) for step in steps]
        if calls[0].tiling is not None:
            return [self.run(step, values) for step, values in zip(steps, inputs, strict=True)]
        # Without a negative prompt SDXL guides away from zeros, not from the embedding of "": one call cannot do both.
        alike = {
            replace(c, prompt="", negative_prompt="any" * bool(c.negative_prompt), seed=0, facts={}) for c in calls
        }
        if len(alike) > 1:
            raise StepError(
                f"steps of one batch on {self.card.id!r} must agree in all but prompt and seed, and "
                "either all or none have a negative prompt"
            )
        with self._lock:
            started = time.perf_counter()
            pipe = self._prepared(steps[0], calls[0])
            watch = self._watch(steps[0], calls[0], pipe, None, None)
            output = self._denoise(pipe, calls, inputs, watch)
            values = [self._value(pipe, calls[0], output[i : i + 1], watch.done) for i in range(len(calls))]
            seconds = (time.perf_counter() - started) / len(calls)
        return [
            StepResult(value, seconds, {**self._facts(), **self._call_facts(pipe, call), "steps": watch.done})
            for value, call in zip(values, calls, strict=True)
        ]

    def warm_up(self) -> float:
        """Run the shortest possible step, so that the first request does not pay for allocation; returns seconds."""
        from models.engine.warmup import warm_up_step

        step, inputs = warm_up_step(self.card)
        if self.card.role != "scorer":
            _ = self._colours
        return self.run(step, inputs).seconds

    def _check_able(self, step: Step, inputs: Sequence[Value]) -> None:
        able = {"scorer": ("score",), "refiner": ("refine",), "base": ("generate", "denoise", "refine")}[self.card.role]
        if step.kind not in able:
            raise StepError(f"step {step.id!r}: {self.card.id!r} is a {self.card.role} and cannot {step.kind!r}")
        wanted = {"refine": "one input", "score": "one input or more"}.get(step.kind, "no input")
        if len(inputs) != {"generate": 0, "denoise": 0, "refine": 1}.get(step.kind, max(1, len(inputs))):
            raise StepError(f"step {step.id!r}: {step.kind} takes {wanted}, not {len(inputs)}")

    def _execute(
        self, step: Step, inputs: Sequence[Value], on_progress: OnProgress | None, should_stop: ShouldStop | None
    ) -> tuple[Value, dict[str, Scalar]]:
        if step.kind == "score":
            return self._score(step, inputs)
        call = read_call(step, self.card, self._guest_cards)
        pipe = self._prepared(step, call)
        watch = self._watch(step, call, pipe, on_progress, should_stop)
        watch.check()
        if call.tiling is not None and not FAMILIES[self.card.family].windows:
            made = self._refine_tiles(step, call, check_picture(inputs[0], self.card), watch)
            return made, {**self._call_facts(pipe, call), "steps": watch.done, "tiles": call.tiling.count}
        output = self._denoise(pipe, [call], [inputs], watch)
        if not watch.done:
            raise StepError(f"step {step.id!r}: {call.steps} steps leave none to run here; ask for more steps", "steps")
        value = self._value(pipe, call, output, watch.done)
        tiles: dict[str, Scalar] = {} if call.tiling is None else {"tiles": call.tiling.count}
        return value, {**self._call_facts(pipe, call), **tiles, "steps": watch.done}

    def _prepared(self, step: Step, call: Call) -> Any:
        """The pipeline for a step, with a fresh scheduler."""
        pipe = self._img2img if step.kind == "refine" else self._pipe
        pipe.scheduler = build_scheduler(call.scheduler, self.card, self._scheduler)
        return pipe

    def _watch(
        self, step: Step, call: Call, pipe: Any, on_progress: OnProgress | None, should_stop: ShouldStop | None
    ) -> Watch:
        """The callback of a run. Families whose pipelines cannot stop early themselves are stopped by it."""
        apart = call.tiling is not None and not FAMILIES[self.card.family].windows
        tiles = call.tiling.count if call.tiling is not None and apart else 1
        last = None
        if call.until is not None and self.card.family != "sdxl":
            begin = 0 if call.start is None else start_index(pipe.scheduler, call.steps, call.start)
            last = start_index(pipe.scheduler, call.steps, call.until) - begin
        colours = self._colours if on_progress and tiles == 1 else None
        return Watch(step.id, on_progress, should_stop, self._unpacker(call), colours, last, tiles)

    def _refine_tiles(self, step: Step, call: Call, picture: Picture, watch: Watch) -> Picture:
        """Every tile re-noised from its part of one field of noise and denoised with the same prompt, then blended."""
        import torch

        assert call.tiling is not None
        pixels = np.asarray(to_image(picture, call.width, call.height))
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
            output = self._denoise(pipe, [one], [(Picture(box.of(pixels)),)], watch)
            parts.append(to_picture(output, self.card).pixels)
            watch.next_round()
        return Picture(blend(parts, places, call.width, call.height))

    def _denoise(self, pipe: Any, calls: Sequence[Call], inputs: Sequence[Sequence[Value]], watch: Watch) -> Any:
        """The pipeline's output for calls that differ in prompt and seed only; `inputs` as many."""
        import torch

        call = calls[0]
        given = {"output_type": "np"} | arguments(call, self.card, pipe)
        if call.start is not None:
            begin = start_index(pipe.scheduler, call.steps, call.start)
            factor = ve_factor(pipe.scheduler, begin)
            given["image"] = torch.cat([to_tensor(self._handed(call, *values), factor) for values in inputs])
            if self.card.family != "sdxl":
                # img2img begins at whole steps of a share, and would add noise to latents that carry theirs.
                given["strength"] = min(1.0, (call.steps - begin + 0.5) / call.steps)
                start_from(pipe.scheduler, None)
        elif call.strength is not None:
            pictures = [check_picture(values[0], self.card) for values in inputs]
            given["image"] = [to_image(picture, call.width, call.height) for picture in pictures]
        given["prompt"] = [one.prompt for one in calls]
        if "negative_prompt" in given:
            given["negative_prompt"] = [one.negative_prompt for one in calls]
        noise = [torch.Generator("cpu").manual_seed(one.seed) for one in calls]
        try:
            with windowed(pipe, self.card, call), self._beside(pipe, calls):
                return pipe(**given, generator=noise, callback_on_step_end=watch).images
        finally:
            pipe.maybe_free_model_hooks()

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

    def _score(self, step: Step, inputs: Sequence[Value]) -> tuple[Value, dict[str, Scalar]]:
        prompt = step.settings.get("prompt")
        if not isinstance(prompt, str):
            raise StepError(f"step {step.id!r}: 'prompt' must be text", "prompt")
        pictures = [check_picture(value, self.card).pixels for value in inputs]
        facts: dict[str, Scalar] = {"truncated_tokens": self._scorer.truncated_tokens(prompt)}
        if most := step.settings.get("segments"):
            pictures = [alone for _, alone in looks(pictures, int(most))]
            facts["segments"] = len(pictures)
        return Scores(self._scorer.score(pictures, prompt) if pictures else ()), facts

    def _unpacker(self, call: Call) -> Any:
        if self.card.family != "flux":
            return lambda latents: latents
        return lambda latents: self._pipe._unpack_latents(latents, call.height, call.width, self._pipe.vae_scale_factor)

    @cached_property
    def _colours(self) -> Any:
        return fit_colours(self._pipe.vae)

    def _facts(self) -> dict[str, Scalar]:
        facts: dict[str, Scalar] = {"model": self.card.id, "revision": self.revision, "device": self.device}
        if self.device.startswith("cuda"):
            import torch

            facts["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return facts

    def _call_facts(self, pipe: Any, call: Call) -> dict[str, Scalar]:
        facts = {
            **call.facts,
            "scheduler": type(pipe.scheduler).__name__,
            "dtype": str(pipe.vae.dtype).removeprefix("torch."),
            "seed": call.seed,
            "truncated_tokens": self._truncated(call.prompt),
        }
        if ignores_negative(call, self.card, pipe):
            facts["negative_prompt_ignored"] = True
        if call.mix is not None and isinstance(guest := self._guests[call.mix.guest], Guest):
            facts |= {"guest": guest.card.id, "guest_revision": guest.revision}
        return facts

    def _truncated(self, prompt: str) -> int:
        """Tokens of the prompt beyond what the model reads; for FLUX those of T5, which carries the words."""
        flux = self.card.family == "flux"
        tokenizer = self._pipe.tokenizer_2 if flux or self._pipe.tokenizer is None else self._pipe.tokenizer
        limit = self.card.max_prompt_tokens if flux else tokenizer.model_max_length
        return max(0, len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"]) - limit)

    def _reset_peak(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)

    def _step_error(self, step: Step, error: Exception) -> StepError:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            return StepError(
                f"step {step.id!r}: {self.card.id!r} ran out of memory on {self.device}; ask for a smaller size", "size"
            )
        first = (str(error).strip().splitlines() or [""])[0]
        return StepError(f"step {step.id!r}: {self.card.id!r} failed: {type(error).__name__}: {first}")
