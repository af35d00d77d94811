"""The engine of a card: what runs the steps of plans on one device. `load_engine(card).run(step, inputs)`.

Three classes fill `Engine`: for pipelines and for scorers, as the card's role says, and for models that another server
draws with, as its source says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from models.engine.diffusion import DiffusionEngine
from models.engine.progress import OnBatchProgress, OnProgress, ShouldStop
from models.engine.scoring import ScoringEngine
from models.remote.engine import RemoteEngine
from models.weights.sharing import SharedNetworks
from router.errors import TriptychError
from router.types import ModelCard, Step, StepResult, Value


class Engine(Protocol):
    """One model on one device, which runs one step at a time; further calls wait. One elsewhere runs several."""

    card: ModelCard
    revision: str  # of the weights that are loaded

    @property
    def broken(self) -> str:
        """Why no step can succeed in this process any more; empty while all is well."""

    def run(
        self,
        step: Step,
        inputs: Sequence[Value] = (),
        *,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> StepResult:
        """Execute one step.

        on_progress is called after each denoising step, should_stop is asked then; when it says yes, `Cancelled` is
        raised. Everything else that goes wrong is a `StepError`, or what `models.remote.failures` says.
        """

    def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        *,
        on_progress: OnBatchProgress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[StepResult | TriptychError]:
        """Several steps of one kind, in one call of the model where that is possible. A step that fails is an error in
        its place, and ends no other. `Cancelled` is raised for all of them together. seconds: equal shares."""

    def warm_up(self) -> float:
        """Run the shortest possible step, so that the first request does not pay for allocation; returns seconds."""


ENGINES: dict[str, Callable[..., Engine]] = {
    "base": DiffusionEngine,
    "refiner": DiffusionEngine,
    "editor": DiffusionEngine,
    "scorer": ScoringEngine,
}


def load_engine(
    card: ModelCard,
    device: str = "cpu",
    dtype: str | None = None,
    threads: int | None = None,
    guests: Sequence[ModelCard] = (),
    networks: SharedNetworks | None = None,
) -> Engine:
    """Load the model of `card`; `LoadError` says what is missing.

    guests: cards of the models whose networks it holds beside its own, for `denoise` steps. One that cannot be loaded
    does not stop the others: its steps raise `StepError`.
    device: "cpu", "cuda", "cuda:1", ...;   dtype: default the card's, float32 on a CPU;   threads: CPU threads of torch
    (they belong to the process, and a different number may change the last bit of a sum).
    networks: those of the other engines of this process that run in turn with this one; what is alike is loaded once
    """
    if card.remote is not None:
        return RemoteEngine(card)
    return ENGINES[card.role](card, device, dtype, threads, guests, networks)
