"""Several models in one process: one turn for all, and what befalls one of them leaves the others alone."""

import asyncio
from typing import Any

import numpy as np
import pytest

from deployments.assembly import Held, host_of
from deployments.placement import WorkerSettings
from deployments.workers.host import ModelHost
from router.errors import LoadError, StepError
from router.types import ModelCard, Picture, Step
from tests.deployments.workers.test_worker import SlowEngine


def step(model: str, **settings: Any) -> Step:
    """A `generate` step."""
    return Step("s", "generate", model, (), "image", settings)


async def test_models_of_one_process_take_turns() -> None:
    """However many steps of whatever model arrive at once, one runs at a time, and all finish."""
    engine = SlowEngine()
    host = ModelHost({"a": lambda: engine, "b": lambda: engine})
    await asyncio.gather(*(host.run(step(model), (), 60) for model in "ababab"))
    assert (engine.most, engine.finished) == (1, 6)


def test_programs_may_run_one_event_loop_after_the_other() -> None:
    """Steps that waited for each other in an event loop that has ended stand in nobody's way in the next one."""
    engine = SlowEngine(ticks=1)
    host = ModelHost({"a": lambda: engine, "b": lambda: engine})

    async def both() -> None:
        await asyncio.gather(*(host.run(step(model), (), 60) for model in "abab"))

    for _ in range(2):
        asyncio.run(both())
    assert (engine.most, engine.finished) == (1, 8)


async def test_a_model_that_is_not_there_takes_out_only_itself() -> None:
    """Of the models of a process one cannot be loaded: its steps say why, the others serve, and no new process is
    asked for."""

    def missing() -> Any:
        raise LoadError("b: there is no folder /nowhere", "model")

    host = ModelHost({"a": lambda: SlowEngine(ticks=1), "b": missing})
    host.load()
    assert {model: status.state for model, status in host.statuses().items()} == {"a": "ready", "b": "failed"}
    with pytest.raises(LoadError, match="/nowhere"):
        await host.run(step("b"), (), 60)
    assert (await host.run(step("a"), (), 60)).seconds == 0.01
    host.check_health()


async def test_a_step_for_a_model_that_is_elsewhere_is_refused() -> None:
    """A host that does not hold the model of a step says which ones it holds."""
    host = ModelHost({"a": lambda: SlowEngine(ticks=1), "b": lambda: SlowEngine(ticks=1)})
    with pytest.raises(LoadError, match="model 'c' is not one of a, b"):
        await host.run(step("c"), (), 60)


async def test_one_broken_engine_asks_for_a_new_process() -> None:
    """If nothing can succeed any more on one engine, the device is lost to the others, too, and all say so."""
    engine = SlowEngine(ticks=1)
    host = ModelHost({"a": lambda: SlowEngine(ticks=1), "b": lambda: engine})
    host.load()
    engine.broken = "cuda failed"
    with pytest.raises(StepError, match="'b' needs a new process"):
        host.check_health()
    assert {(status.state, status.reason) for status in host.statuses().values()} == {("failed", "cuda failed")}


class Failing(SlowEngine):
    """Its steps fail as often as it is told to, with the errors that it is given, and succeed afterwards."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(ticks=1)
        self.errors = list(errors)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return super().run(*args, **kwargs)


UNEXPECTED = StepError("m failed: RuntimeError: shapes do not match")
ASKED_FOR = StepError("m ran out of memory; ask for a smaller size", "size")


@pytest.mark.parametrize(
    ("errors", "healthy"),
    [
        ([UNEXPECTED] * 2, True),
        ([UNEXPECTED] * 3, False),
        ([ASKED_FOR] * 5, True),
        ([UNEXPECTED, ASKED_FOR, UNEXPECTED, UNEXPECTED], False),
    ],
)
async def test_three_unexpected_failures_in_a_row_ask_for_a_new_process(errors: list[StepError], healthy: bool) -> None:
    """Failures that no request asked for count, across models, until a step succeeds."""
    host = ModelHost({"a": lambda: Failing(*errors[::2]), "b": lambda: Failing(*errors[1::2])})
    for number in range(len(errors)):
        with pytest.raises(StepError):
            await host.run(step("ab"[number % 2], seed=number), (), 60)
    if healthy:
        host.check_health()
    else:
        with pytest.raises(StepError, match=r"3 steps in a row failed here.*shapes do not match"):
            host.check_health()
    await host.run(step("a"), (), 60)
    host.check_health()


async def test_one_step_that_fails_again_and_again_does_not_end_the_process() -> None:
    """A step that breaks wherever it runs says nothing about the process, however often it is tried."""
    host = ModelHost({"a": lambda: Failing(*[UNEXPECTED] * 9)})
    for _ in range(9):
        with pytest.raises(StepError):
            await host.run(step("a", seed=7), (), 60)
    host.check_health()


async def test_what_models_have_in_common_is_loaded_once(cards: dict[str, ModelCard]) -> None:
    """Models with the same files share those networks, a guest is the model itself, pictures stay the same bytes."""
    placed = WorkerSettings(device="cpu")
    guests = (cards["sdxl-turbo"],)

    def host(*held: Held) -> ModelHost:
        made = host_of(held, placed, lambda card: {})
        made.load()
        return made

    together = host(Held(cards["sdxl"], guests=guests), Held(cards["sdxl-turbo"]), Held(cards["sdxl-refiner"]))
    sdxl, turbo, refiner = (together.workers[model]._engine for model in ("sdxl", "sdxl-turbo", "sdxl-refiner"))
    assert sdxl._guests["sdxl-turbo"].pipe.unet is turbo._pipe.unet
    assert sdxl._pipe.text_encoder is turbo._pipe.text_encoder
    assert refiner._pipe.unet is not sdxl._pipe.unet
    asked = {"prompt": "a red circle", "seed": 3, "steps": 4}
    for model, held in (("sdxl", Held(cards["sdxl"], guests=guests)), ("sdxl-turbo", Held(cards["sdxl-turbo"]))):
        alone, beside = host(held), together
        pictures = [(await one.run(step(model, **asked), (), 60)).value for one in (alone, beside)]
        assert all(isinstance(picture, Picture) for picture in pictures)
        assert np.array_equal(pictures[0].pixels, pictures[1].pixels)
