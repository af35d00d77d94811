"""One scorer on one device, running the `score` steps of plans."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.engine.device import Device
from models.engine.progress import OnBatchProgress, OnProgress, ShouldStop
from models.engine.warmup import warm_up_step
from models.fusion.regions import looks
from models.handover import check_picture
from models.scoring import load_scorer
from models.weights.revisions import revision
from models.weights.sharing import SharedNetworks
from router.errors import LoadError, StepError, TriptychError
from router.types import ModelCard, Scalar, Scores, Step, StepResult, Value


class ScoringEngine:
    """Loads the scorer of `card` on construction; `LoadError` says what is missing. Runs one step at a time.

    device, dtype, threads: as of `load_engine`;   guests, networks: none, since nothing is denoised or shared
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
        if guests:
            raise LoadError(f"model {card.id!r} is a scorer and has no guests; leave {guests[0].id!r} out")
        self.card = card
        self._device = Device(card, device, threads)
        self.scorer = load_scorer(card, device, dtype)
        self.revision = revision(card)

    @property
    def broken(self) -> str:
        """Why no step can succeed in this process any more; empty while all is well."""
        return self._device.broken

    def run(
        self,
        step: Step,
        inputs: Sequence[Value] = (),
        *,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> StepResult:
        """Score one picture or more. It is over in a moment, so nothing is reported and nobody asked; see `Engine`."""
        self._check(step, inputs)
        ((value, facts),), seconds = self._device.alone(step, lambda: self._score([step], [inputs]))
        return StepResult(value, seconds, {**self._device.facts(self.revision), **facts})

    def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        *,
        on_progress: OnBatchProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[StepResult | TriptychError]:
        """The pictures of several steps scored in one call, each for the prompt of its step; see `Engine`."""

        def draw(numbers: Sequence[int]) -> list[StepResult]:
            if len(numbers) == 1:
                return [self.run(steps[numbers[0]], inputs[numbers[0]])]
            chosen = [steps[number] for number in numbers], [inputs[number] for number in numbers]
            made, seconds = self._device.alone(steps[0], lambda: self._score(*chosen))
            common = {**self._device.facts(self.revision), "batch": len(numbers)}
            return [StepResult(value, seconds / len(made), {**common, **facts}) for value, facts in made]

        made: dict[int, StepResult | TriptychError] = {}
        for number, (step, values) in enumerate(zip(steps, inputs, strict=True)):
            try:
                self._check(step, values)
            except StepError as error:
                made[number] = error
        if sound := [number for number in range(len(steps)) if number not in made]:
            made |= self._device.together(sound, "score", draw)
        return [made[number] for number in range(len(steps))]

    def warm_up(self) -> float:
        """Run the shortest possible step, so that the first request does not pay for allocation; returns seconds."""
        return self.run(*warm_up_step(self.card)).seconds

    def _check(self, step: Step, inputs: Sequence[Value]) -> None:
        if step.kind != "score":
            raise StepError(f"step {step.id!r}: {self.card.id!r} is a scorer and cannot {step.kind!r}")
        if not inputs:
            raise StepError(f"step {step.id!r}: score takes one input or more, not 0")
        if not isinstance(step.settings.get("prompt"), str):
            raise StepError(f"step {step.id!r}: 'prompt' must be text", "prompt")
        for value in inputs:
            check_picture(value, self.card)

    def _score(
        self, steps: Sequence[Step], inputs: Sequence[Sequence[Value]]
    ) -> list[tuple[Scores, dict[str, Scalar]]]:
        """The scores of each step and its facts."""
        looked_at: list[list[NDArray[np.uint8]]] = []
        facts: list[dict[str, Scalar]] = []
        for step, values in zip(steps, inputs, strict=True):
            pictures = [check_picture(value, self.card).pixels for value in values]
            facts.append({"truncated_tokens": self.scorer.truncated_tokens(str(step.settings["prompt"]))})
            if most := step.settings.get("segments"):
                pictures = [alone for _, alone in looks(pictures, int(most))]
                facts[-1]["segments"] = len(pictures)
            looked_at.append(pictures)
        prompts = [str(step.settings["prompt"]) for step, own in zip(steps, looked_at, strict=True) for _ in own]
        scores = iter(self.scorer.score([one for own in looked_at for one in own], prompts) if prompts else ())
        return [
            (Scores(tuple(itertools.islice(scores, len(own)))), told)
            for own, told in zip(looked_at, facts, strict=True)
        ]
