"""One scorer on one device, running the `score` steps of plans."""

from __future__ import annotations

from collections.abc import Sequence

from models.engine.device import Device
from models.engine.progress import OnProgress, ShouldStop
from models.engine.warmup import warm_up_step
from models.fusion.regions import looks
from models.handover import check_picture
from models.scoring import load_scorer
from models.weights.revisions import revision
from models.weights.sharing import SharedNetworks
from router.errors import LoadError, StepError
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
        if step.kind != "score":
            raise StepError(f"step {step.id!r}: {self.card.id!r} is a scorer and cannot {step.kind!r}")
        if not inputs:
            raise StepError(f"step {step.id!r}: score takes one input or more, not 0")
        (value, facts), seconds = self._device.alone(step, lambda: self._score(step, inputs))
        return StepResult(value, seconds, {**self._device.facts(self.revision), **facts})

    def run_batch(self, steps: Sequence[Step], inputs: Sequence[Sequence[Value]]) -> list[StepResult]:
        """The steps one by one."""
        return [self.run(step, values) for step, values in zip(steps, inputs, strict=True)]

    def warm_up(self) -> float:
        """Run the shortest possible step, so that the first request does not pay for allocation; returns seconds."""
        return self.run(*warm_up_step(self.card)).seconds

    def _score(self, step: Step, inputs: Sequence[Value]) -> tuple[Value, dict[str, Scalar]]:
        prompt = step.settings.get("prompt")
        if not isinstance(prompt, str):
            raise StepError(f"step {step.id!r}: 'prompt' must be text", "prompt")
        pictures = [check_picture(value, self.card).pixels for value in inputs]
        facts: dict[str, Scalar] = {"truncated_tokens": self.scorer.truncated_tokens(prompt)}
        if most := step.settings.get("segments"):
            pictures = [alone for _, alone in looks(pictures, int(most))]
            facts["segments"] = len(pictures)
        return Scores(self.scorer.score(pictures, prompt) if pictures else ()), facts
