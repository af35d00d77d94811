"""Step queues: turns, deadlines, cancellation and lost workers, with scripted workers in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.orchestration.breaker import FIRST_S
from deployments.orchestration.metrics import Tally
from deployments.orchestration.results import WorkerLostError
from deployments.orchestration.step_queues import AGAIN_S, StepQueues
from deployments.settings import QueueSettings
from deployments.workers.worker import OnProgress
from router.cost.order import Claim
from router.errors import BusyError, DeadlineError, LoadError, StepError, TriptychError
from router.types import Picture, Progress, Step, StepResult, Value
from tests.deployments.support.virtual_time import in_virtual_time

PICTURE = Picture(np.zeros((1, 1, 3), np.uint8))
NUMBERS = itertools.count()


class Machine:
    """A worker with some replicas, each doing one step at a time; it takes the seconds that the step says.

    events: (second, "sent" | "begun" | "ended" | "stopped", id of the step);   most: steps that were there at once
    """

    def __init__(self, replicas: int = 1, failures: Sequence[Exception] = (), way_s: float = 0.0) -> None:
        self.turns = asyncio.Semaphore(replicas)
        self.failures = list(failures)
        self.way_s = way_s
        self.events: list[tuple[float, str, str]] = []
        self.there = self.most = 0

    def note(self, what: str, step: Step) -> None:
        self.events.append((round(asyncio.get_running_loop().time(), 6), what, step.id))

    def all(self, what: str) -> list[str]:
        return [name for _, kind, name in self.events if kind == what]

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        seconds = float(step.settings["takes"])  # type: ignore[arg-type]
        self.note("sent", step)
        self.there += 1
        self.most = max(self.most, self.there)
        try:
            await asyncio.sleep(self.way_s)
            async with self.turns:
                self.note("begun", step)
                await asyncio.sleep(seconds)
                if self.failures:
                    raise self.failures.pop(0)
                if on_progress is not None:
                    on_progress(Progress(step.id, 1, 1))
                self.note("ended", step)
        except asyncio.CancelledError:
            self.note("stopped", step)
            raise
        finally:
            self.there -= 1
        return StepResult(PICTURE, seconds)


class BatchMachine(Machine):
    """One that makes batches: twice the pictures take `more` times as long. failures: of the next turns, of whichever
    size; wrong: names of steps that fail in any batch; batches: the names of each turn's steps"""

    def __init__(self, more: float = 1.2, wrong: Sequence[str] = (), **given: Any) -> None:
        super().__init__(**given)
        self.more = more
        self.wrong = wrong
        self.batches: list[list[str]] = []
        self.stopped = 0

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        self.batches.append([step.id])
        return await super().run(step, inputs, deadline_s, on_progress)

    async def run_batch(
        self, steps: Sequence[Step], inputs: Sequence[Any], deadline_s: float, on_progress: Any = None
    ) -> list[StepResult | TriptychError]:
        self.batches.append([one.id for one in steps])
        takes = float(steps[0].settings["takes"]) * self.more ** math.log2(len(steps))  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(deadline_s), self.turns:
                await asyncio.sleep(takes)
        except TimeoutError:
            raise DeadlineError("the worker has no more time for it") from None
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.failures:
            raise self.failures.pop(0)
        made: list[StepResult | TriptychError] = []
        for number, one in enumerate(steps):
            if on_progress is not None:
                on_progress(number, Progress(one.id, 1, 1))
            facts = {"batch": len(steps)}
            made.append(
                StepError(f"{one.id} is wrong", "prompt")
                if one.id in self.wrong
                else StepResult(PICTURE, takes / len(steps), facts)
            )
        return made


class Sizes:
    """As many at once as it is told; what ran out of memory is noted."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.too_many: list[int] = []

    def best(self, step: Step) -> int:
        return self.most

    def ran_out_of_memory(self, step: Step, size: int) -> None:
        self.too_many.append(size)


def step(name: str = "", takes: float = 1.0, model: str = "m", **settings: Any) -> Step:
    return Step(name or f"step {next(NUMBERS)}", "generate", model, (), "image", {"takes": takes, **settings})


class Scene:
    """Step queues over machines, in the running loop."""

    def __init__(self, replicas: int = 1, expects: Callable[[Step], float] | None = None, **given: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.machines: dict[str, Any] = given.pop("machines", None) or {"m": Machine(replicas)}
        self.expects = expects or (lambda one: float(one.settings["takes"]))  # type: ignore[arg-type]
        self.tally = Tally()
        self.settings = given.pop("settings", None) or QueueSettings()
        self.queues = StepQueues(
            self.machines,
            lambda model: replicas,
            lambda one, batch: self.expects(one),
            self.settings,
            metrics=self.tally,
            clock=self.loop.time,
            **given,
        )

    def start(
        self,
        one: Step,
        tenant: str = "a",
        priority: str = "standard",
        within_s: float = 1e5,
        job: str | None = None,
        on_progress: OnProgress | None = None,
        alone: bool = False,
    ) -> asyncio.Task[StepResult]:
        claim = replace(self.claim(one, tenant, priority, within_s, job), alone=alone)
        return asyncio.create_task(self.queues.run(one, (), claim, on_progress))

    def claim(
        self, one: Step, tenant: str = "a", priority: str = "standard", within_s: float = 1e5, job: str | None = None
    ) -> Claim:
        return Claim(job or one.id, tenant, priority, self.loop.time() + within_s, self.expects(one))


def played(play: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return in_virtual_time(play())


def test_steps_wait_here_and_not_at_the_worker() -> None:
    """Of twenty steps a worker has one, and a second only when the first is about to end; all are made in the end."""

    async def play() -> None:
        scene = Scene(settings=QueueSettings(soon_s=0.1))
        tasks = [scene.start(step(takes=1.0)) for _ in range(20)]
        await asyncio.sleep(0.5)
        machine = scene.machines["m"]
        assert len(machine.all("sent")) == 1
        await asyncio.sleep(0.45)
        assert len(machine.all("sent")) == 2
        await asyncio.gather(*tasks)
        assert machine.most == 2
        assert machine.events[-1][0] == 20.0  # it was never idle
        assert machine.all("begun") == machine.all("sent")

    played(play)


def test_the_way_to_a_worker_is_hidden() -> None:
    """If a step needs 40 ms to its worker, twenty steps of a second take twenty seconds and once the way."""

    async def play() -> float:
        scene = Scene(machines={"m": Machine(way_s=0.04)})
        await asyncio.gather(*(scene.start(step(takes=1.0)) for _ in range(20)))
        return float(scene.loop.time())

    assert played(play) == pytest.approx(20.04)


@pytest.mark.parametrize("wrong", [0.01, 0.5, 2.0, 100.0])
def test_wrong_expectations_cost_little(wrong: float) -> None:
    """However wrong the expected seconds are, a worker has at most two steps and everything is made in time."""

    async def play() -> None:
        scene = Scene(machines={"m": Machine(way_s=0.04)}, expects=lambda one: wrong)
        await asyncio.gather(*(scene.start(step(takes=1.0)) for _ in range(20)))
        assert scene.machines["m"].most <= 2
        assert scene.loop.time() <= 20 * 1.04 + 0.01

    played(play)


def test_every_replica_has_work() -> None:
    """Three replicas do thirty steps in the time of ten."""

    async def play() -> None:
        scene = Scene(replicas=3)
        await asyncio.gather(*(scene.start(step(takes=1.0)) for _ in range(30)))
        assert scene.loop.time() == pytest.approx(10.0)
        assert scene.machines["m"].most <= 6

    played(play)


def test_a_small_job_beside_a_stream_of_big_ones() -> None:
    """A tenant with a step now and then waits for the step that runs and no longer, though another's queue is long: at
    most twice as long as alone."""

    async def play() -> None:
        scene = Scene()
        stream = [scene.start(step(takes=1.0), tenant="big") for _ in range(200)]
        took = []
        for number in range(20):
            await asyncio.sleep(1.37 * (number % 3))
            begun = scene.loop.time()
            await scene.start(step(takes=1.0), tenant="small")
            took.append(scene.loop.time() - begun)
        assert max(took) <= 2.0 + scene.settings.soon_s
        for task in stream:
            task.cancel()
        await asyncio.gather(*stream, return_exceptions=True)

    played(play)


def test_tenants_share_a_worker_evenly() -> None:
    """Of two tenants, one with a hundred steps in the queue and one with four, each has half of the worker's seconds
    within 5 %."""

    async def play() -> Counter[str]:
        scene, served = Scene(), Counter[str]()

        async def client(tenant: str, takes: float) -> None:
            while scene.loop.time() < 300:
                await scene.start(step(takes=takes), tenant=tenant)
                served[tenant] += takes if scene.loop.time() < 300 else 0

        clients = [client("greedy", 1.0) for _ in range(100)] + [client("modest", 0.7) for _ in range(4)]
        await asyncio.gather(*clients)
        return served

    served = played(play)
    assert served["modest"] == pytest.approx(0.5 * sum(served.values()), rel=0.05)


def test_an_interactive_step_overtakes_all_that_waits() -> None:
    """What comes last with a better class is sent next."""

    async def play() -> None:
        scene = Scene()
        tasks = [scene.start(step(f"batch {n}"), priority="batch") for n in range(5)]
        await asyncio.sleep(0.5)
        tasks.append(scene.start(step("urgent"), priority="interactive"))
        await asyncio.gather(*tasks)
        assert scene.machines["m"].all("begun")[:3] == ["batch 0", "urgent", "batch 1"]

    played(play)


def test_models_of_one_worker_share_its_places_and_its_order() -> None:
    """Two models in one process have one queue: one step runs, of whichever model, the earliest deadline first."""

    async def play() -> None:
        machine = Machine()
        scene = Scene(machines={"m": machine, "n": machine}, worker_of={"m": "cpu", "n": "cpu"})
        tasks = [scene.start(step("first", model="m"))]
        await asyncio.sleep(0.1)
        tasks += [scene.start(step("late", model="m"), within_s=50), scene.start(step("soon", model="n"), within_s=20)]
        await asyncio.gather(*tasks)
        assert machine.all("begun") == ["first", "soon", "late"]
        assert machine.most <= 2

    played(play)


def test_what_waits_can_be_cancelled_and_is_never_sent() -> None:
    """A cancelled step that waits is taken out, and the others go on as if it had not been there."""

    async def play() -> None:
        scene = Scene()
        first, second, third = (scene.start(step(name)) for name in ("first", "second", "third"))
        await asyncio.sleep(0.5)
        second.cancel()
        await asyncio.wait({second})
        assert scene.loop.time() == 0.5
        assert second.cancelled()
        await asyncio.gather(first, third)
        assert scene.machines["m"].all("sent") == ["first", "third"]
        assert scene.loop.time() == 2.0

    played(play)


def test_what_runs_has_stopped_when_its_caller_is_gone() -> None:
    """Cancelling a step that runs stops it at its worker before the caller's cancellation ends, and the next begins."""

    async def play() -> None:
        scene = Scene()
        first, second = scene.start(step("first", takes=50)), scene.start(step("second"))
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.wait({first})
        assert (0.5, "stopped", "first") in scene.machines["m"].events
        await second
        assert scene.loop.time() == 1.5

    played(play)


def test_a_step_that_is_cancelled_before_it_was_begun_leaves_its_place() -> None:
    """However early a step is cancelled, between two turns of the loop as well, no place at the worker stays taken."""

    async def play() -> None:
        scene = Scene()
        for turns in range(8):
            gone = scene.start(step("gone", takes=50))
            for _ in range(turns):
                await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait({gone})
            begun = scene.loop.time()
            await scene.start(step(takes=1.0))
            assert scene.loop.time() == begun + 1.0

    played(play)


def test_a_deadline_ends_the_wait() -> None:
    """A step whose deadline passes while it waits ends then, with that reason, and is never sent; one that runs too
    long is stopped."""

    async def play() -> None:
        scene = Scene()
        long = scene.start(step("long", takes=50), within_s=10)
        await asyncio.sleep(0)
        waiting = scene.start(step("waiting"), within_s=3)
        with pytest.raises(DeadlineError, match="'waiting' was not begun: the deadline passed"):
            await waiting
        assert scene.loop.time() == 3.0
        with pytest.raises(DeadlineError, match="'long' was not done when the deadline passed"):
            await long
        assert scene.loop.time() == 10.0
        with pytest.raises(DeadlineError):
            await scene.start(step("late"), within_s=0)
        await scene.start(step("next"))
        assert scene.machines["m"].all("sent") == ["long", "next"]
        assert scene.machines["m"].all("stopped") == ["long"]

    played(play)


def test_progress_reaches_its_caller() -> None:
    """What a worker reports of a step comes to whoever asked for that step."""

    async def play() -> None:
        scene, told = Scene(), []
        await scene.start(step("seen"), on_progress=told.append)
        assert [progress.step for progress in told] == ["seen"]

    played(play)


# --------------------------------------------------------------------------------------------------------- what breaks


def test_a_step_whose_worker_is_lost_runs_again() -> None:
    """A step is begun three times at most if its worker is lost each time, with the same settings."""

    async def play() -> None:
        lost = [WorkerLostError(f"gone {n}") for n in range(5)]
        scene = Scene(machines={"m": Machine(failures=lost[:2])})
        assert (await scene.start(step("twice"))).value is PICTURE
        assert scene.machines["m"].all("begun") == ["twice"] * 3
        assert scene.tally.value("triptych_retries_total", model="m") == 2
        scene = Scene(machines={"m": Machine(failures=lost)})
        with pytest.raises(WorkerLostError, match="gone 2"):
            await scene.start(step("always"))
        assert len(scene.machines["m"].all("begun")) == 3

    played(play)


def test_a_lost_step_is_not_begun_again_after_its_deadline() -> None:
    """Tries end with the deadline."""

    async def play() -> None:
        scene = Scene(machines={"m": Machine(failures=[WorkerLostError("gone")] * 5)})
        with pytest.raises(DeadlineError):
            await scene.start(step(takes=1.0), within_s=2 + AGAIN_S[-1] / 2)
        assert scene.loop.time() == 2 + AGAIN_S[-1] / 2
        await asyncio.sleep(10)
        assert len(scene.machines["m"].all("begun")) == 2

    played(play)


def test_a_worker_without_room_is_left_alone_for_as_long_as_it_says() -> None:
    """Nothing is sent to a model's server before it wants to be asked again, however often it says so; another model of
    the worker goes on; and who cannot wait so long is told at once."""

    async def play() -> None:
        machine = Machine(failures=[BusyError("full", 5.0), BusyError("full", 7.0)])
        other = Machine()
        scene = Scene(machines={"m": machine, "n": other}, settings=QueueSettings(at_worker=1))
        first = scene.start(step("first"))
        await asyncio.sleep(2)
        late = scene.start(step("second"))
        assert (await scene.start(step(model="n"))).value is PICTURE
        await asyncio.gather(first, late)
        assert [at for at, what, _ in machine.events if what == "sent"] == [0.0, 6.0, 14.0, 15.0]
        assert scene.queues.breaker.state("m") == "closed"
        machine.failures = [BusyError("full", 90.0)]
        with pytest.raises(BusyError) as told:
            await scene.start(step(), within_s=60)
        assert (told.value.retry_after_s, scene.loop.time()) == (90.0, 17.0)

    played(play)


def test_a_step_that_a_worker_cancels_counts_as_lost() -> None:
    """A worker that shuts down cancels what it has; the step runs once more."""

    class Leaving(Machine):
        async def run(self, *args: Any) -> StepResult:
            if not self.events:
                self.note("sent", args[0])
                raise asyncio.CancelledError
            return await super().run(*args)

    async def play() -> None:
        scene = Scene(machines={"m": Leaving()})
        assert (await scene.start(step())).value is PICTURE

    played(play)


def test_other_failures_are_raised_as_they_are() -> None:
    """What a worker raises comes out unchanged, and the next step has its turn."""

    async def play() -> None:
        wrong = StepError("no such scheduler", "scheduler")
        scene = Scene(machines={"m": Machine(failures=[wrong])})
        with pytest.raises(StepError) as caught:
            await scene.start(step())
        assert caught.value is wrong
        await scene.start(step())
        with pytest.raises(LoadError, match="no worker holds model 'x'"):
            await scene.start(step(model="x"))

    played(play)


async def broken(scene: Scene) -> None:
    """Three steps that fail one after the other."""
    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            await scene.start(step())


def test_an_open_breaker_holds_steps_and_one_probe_lets_them_go() -> None:
    """After three failures in a row steps wait; when the time is over one is sent, and the others once it succeeded."""

    async def play() -> None:
        machine = Machine(failures=[RuntimeError("broken")] * 3)
        scene = Scene(machines={"m": machine})
        await broken(scene)
        assert "after 3 failures" in scene.queues.snapshot()["m"]["out"]
        tasks = [scene.start(step()) for _ in range(3)]
        await asyncio.sleep(FIRST_S - 0.1)
        assert len(machine.all("sent")) == 3
        await asyncio.sleep(0.2)
        assert len(machine.all("sent")) == 4
        await asyncio.gather(*tasks)
        assert scene.tally.value("triptych_breaker_total", model="m") == 1
        assert scene.loop.time() == 3 + FIRST_S + 3

    played(play)


def test_when_a_probe_fails_nobody_waits_any_longer() -> None:
    """If the model fails again after its time, those who wait are told that it is not there, so that they may be routed
    around it, and so is who comes meanwhile."""

    async def play() -> None:
        scene = Scene(machines={"m": Machine(failures=[RuntimeError("broken")] * 4)})
        await broken(scene)
        probe, *others = (scene.start(step()) for _ in range(4))
        with pytest.raises(RuntimeError, match="broken"):
            await probe
        for other in others:
            with pytest.raises(LoadError, match="after 4 failures in a row, the last: broken"):
                await other
        with pytest.raises(LoadError, match="after 4 failures"):
            await scene.start(step())
        await asyncio.sleep(2 * FIRST_S)
        assert (await scene.start(step())).value is PICTURE

    played(play)


def test_another_model_of_the_same_worker_goes_on() -> None:
    """A model that is out does not stand in the way of those that share its worker."""

    async def play() -> None:
        ill, well = Machine(failures=[RuntimeError("broken")] * 3), Machine()
        scene = Scene(machines={"m": ill, "n": well}, worker_of={"m": "cpu", "n": "cpu"})
        await broken(scene)
        held = scene.start(step("held"))
        await scene.start(step("other", model="n"))
        assert not held.done()
        await held

    played(play)


def test_a_machine_that_goes_away_is_one_incident() -> None:
    """Six replicas that are lost at once do not take the model out, and everything that they had is made again."""

    async def play() -> None:
        machine = Machine(replicas=6, failures=[WorkerLostError("gone")] * 6)
        scene = Scene(replicas=6, machines={"m": machine})
        await asyncio.gather(*(scene.start(step()) for _ in range(6)))
        assert scene.loop.time() == 2.0
        assert scene.tally.value("triptych_retries_total", model="m") == 6

    played(play)


# ------------------------------------------------------------------------------------------------------------- batches


def batching(machine: BatchMachine, most: int = 4, **settings: Any) -> Scene:
    return Scene(machines={"m": machine}, sizes=Sizes(most), settings=QueueSettings(**settings))


def test_steps_that_begin_together_are_made_together() -> None:
    """Four pictures of one request, asked for at the same moment, are one batch; each caller gets its own result and
    the progress of its own."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())
        told: dict[str, list[str]] = {name: [] for name in "abcd"}
        results = await asyncio.gather(
            *(scene.start(step(name), on_progress=lambda p, name=name: told[name].append(p.step)) for name in "abcd")
        )
        assert machine.batches == [["a", "b", "c", "d"]]
        assert [result.facts["batch"] for result in results] == [4] * 4
        assert told == {name: [name] for name in "abcd"}
        assert scene.queues.snapshot()["m"]["batches"] == {4: 1}
        assert scene.tally.value("triptych_batches_total", model="m", size="4") == 1

    played(play)


def test_what_waits_is_taken_along_and_nothing_is_waited_for() -> None:
    """The first is sent at once and alone; while it runs others come, and these are made together."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())
        tasks = [scene.start(step("first"))]
        await asyncio.sleep(0.1)
        tasks += [scene.start(step(name)) for name in "abcdef"]
        await asyncio.gather(*tasks)
        assert machine.batches == [["first"], list("abcd"), list("ef")]

    played(play)


@pytest.mark.parametrize("other", [{"width": 64}, {"steps": 3}, {"guidance_scale": 2.0}, {"scheduler": "ddim"}])
def test_unlike_steps_are_never_in_one_batch(other: dict[str, Any]) -> None:
    """Another size, number of steps, guidance or scheduler is a batch of its own."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())
        usual = {"width": 32, "steps": 2, "guidance_scale": 1.0, "scheduler": "euler"}
        tasks = [
            scene.start(step(f"{kind} {n}", **{**usual, **(other if kind else {})})) for n in (1, 2) for kind in (0, 1)
        ]
        await asyncio.gather(*tasks)
        assert sorted(machine.batches) == [["0 1", "0 2"], ["1 1", "1 2"]]

    played(play)


def test_a_deterministic_step_is_made_alone() -> None:
    """What must have the bytes of a picture made alone goes with no others, first or not."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())
        await asyncio.gather(*(scene.start(step(name), alone=name in "ac") for name in "abcd"))
        assert sorted(machine.batches) == [["a"], ["b", "d"], ["c"]]

    played(play)


def test_a_batch_holds_one_class_only() -> None:
    """A step of a better class takes none of a lower class along, which would make it wait for them."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())
        tasks = [scene.start(step(f"{name} {n}"), priority=name) for name in ("batch", "interactive") for n in (1, 2)]
        await asyncio.gather(*tasks)
        assert machine.batches == [["interactive 1", "interactive 2"], ["batch 1", "batch 2"]]

    played(play)


def test_a_batch_that_would_be_late_is_smaller() -> None:
    """If four together would end after the deadline of one of them, fewer are made together."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())  # four are expected to take four seconds
        await asyncio.gather(*(scene.start(step(name), within_s=2.5) for name in "abc"))
        assert machine.batches[0] == ["a", "b"]

    played(play)


def test_one_that_leaves_a_batch_does_not_stop_it_and_the_last_one_does() -> None:
    """A cancelled picture of a batch is gone at once while the others are made; when all are cancelled, the worker is
    told to stop."""

    async def play() -> None:
        scene = batching(machine := BatchMachine())
        one, other = scene.start(step("one", takes=10)), scene.start(step("other", takes=10))
        await asyncio.sleep(1)
        one.cancel()
        await asyncio.wait({one})
        assert (scene.loop.time(), machine.stopped) == (1, 0)
        assert (await other).value is PICTURE
        begun = scene.loop.time()
        both = [scene.start(step(takes=10)) for _ in range(2)]
        await asyncio.sleep(1)
        for task in both:
            task.cancel()
        await asyncio.wait(both)
        assert (scene.loop.time(), machine.stopped) == (begun + 1, 1)
        await scene.start(step())
        assert scene.loop.time() == begun + 2

    played(play)


def test_a_deadline_within_a_batch_ends_one_wait_only() -> None:
    """A step whose deadline passes while its batch takes longer than expected ends then; the others get theirs."""

    async def play() -> None:
        scene = batching(BatchMachine(more=10))
        late, calm = scene.start(step("late"), within_s=3), scene.start(step("calm"))
        with pytest.raises(DeadlineError, match="'late' was not done"):
            await late
        assert scene.loop.time() == 3
        await calm

    played(play)


def test_a_step_that_fails_ends_no_other_of_its_batch() -> None:
    """Its caller gets its error, the others get their pictures, and the model stays in."""

    async def play() -> None:
        scene = batching(BatchMachine(wrong=["b"]))
        made = await asyncio.gather(*(scene.start(step(name)) for name in "abc"), return_exceptions=True)
        assert [type(result) for result in made] == [StepResult, StepError, StepResult]
        assert str(made[1]) == "b is wrong"

    played(play)


def test_a_lost_batch_is_made_again_one_by_one() -> None:
    """When a worker dies of a batch, its steps run again alone: one of them may be what it died of."""

    async def play() -> None:
        scene = batching(machine := BatchMachine(failures=[WorkerLostError("gone")]))
        await asyncio.gather(*(scene.start(step(name)) for name in "abc"))
        assert machine.batches[0] == ["a", "b", "c"]
        assert sorted(machine.batches[1:]) == [["a"], ["b"], ["c"]]

    played(play)


def test_a_worker_that_answers_for_fewer_steps_fails_them() -> None:
    """Results that cannot be told apart are none."""

    class Short(BatchMachine):
        async def run_batch(self, *args: Any) -> Any:
            return (await super().run_batch(*args))[1:]

    async def play() -> None:
        scene = batching(Short())
        made = await asyncio.gather(*(scene.start(step()) for _ in range(2)), return_exceptions=True)
        assert [str(error) for error in made] == ["model 'm' returned 1 results for 2 steps"] * 2

    played(play)


def test_what_ran_out_of_memory_is_remembered() -> None:
    """When a worker says that so many were too many, the sizes know."""

    class Small(BatchMachine):
        async def run_batch(self, *args: Any) -> Any:
            made = await super().run_batch(*args)
            return [replace(result, facts={"batch": 1, "batch_too_large": 3}) for result in made]

    async def play() -> None:
        sizes = Sizes()
        scene = Scene(machines={"m": Small()}, sizes=sizes)
        await asyncio.gather(*(scene.start(step()) for _ in range(3)))
        assert sizes.too_many == [3] * 3

    played(play)


def test_a_worker_without_batches_is_given_one_step_at_a_time() -> None:
    """Whoever only knows `run` is asked for nothing else."""

    async def play() -> None:
        scene = Scene(sizes=Sizes())
        await asyncio.gather(*(scene.start(step()) for _ in range(3)))
        assert len(scene.machines["m"].all("begun")) == 3

    played(play)


def test_holding_back_lets_a_batch_form() -> None:
    """With a tenth of the slack to wait for others, a step is sent when the batch is full, or when its time is over;
    its deadline is kept."""

    async def play() -> None:
        scene = batching(machine := BatchMachine(), hold_back=0.1)
        tasks = []
        for name in "abcd":
            tasks.append(scene.start(step(name), within_s=54))
            await asyncio.sleep(0.5)
        assert machine.batches == [list("abcd")]
        await asyncio.gather(*tasks)
        begun = scene.loop.time()
        await scene.start(step("alone"), within_s=54)
        assert scene.loop.time() == pytest.approx(begun + 0.1 * (54 - 4) + 1)
        await scene.start(step("hurried"), within_s=1.5)
        assert scene.loop.time() == pytest.approx(begun + 7)

    played(play)


@given(batch_s=st.floats(0.5, 20))
@settings(deadline=None, max_examples=25)
def test_no_batch_is_expected_to_take_longer_than_was_allowed(batch_s: float) -> None:
    """Of twelve that wait, as many are made at once as fit into `batch_s`, one at least, and all of them are made."""

    async def play() -> None:
        scene = batching(machine := BatchMachine(more=2.0), batch_s=batch_s)  # so many pictures, so many seconds
        await asyncio.gather(*(scene.start(step()) for _ in range(12)))
        fits = max(1, min(4, int(batch_s)))
        assert [len(names) for names in machine.batches] == [fits] * (12 // fits)

    played(play)


def test_fairness_holds_with_batches() -> None:
    """A tenant with a hundred steps that are alike has its half and no more, though they are made in batches."""

    async def play() -> Counter[str]:
        scene, served = batching(BatchMachine(more=2.0)), Counter[str]()

        async def client(tenant: str, **settings: Any) -> None:
            while scene.loop.time() < 400:
                await scene.start(step(**settings), tenant=tenant)
                served[tenant] += scene.loop.time() < 400

        clients = [client("greedy", width=1) for _ in range(100)] + [client("modest", width=2) for _ in range(8)]
        await asyncio.gather(*clients)
        return served

    served = played(play)
    assert served["modest"] == pytest.approx(0.5 * sum(served.values()), rel=0.05)


# ------------------------------------------------------------------------------------------------------- what is known


def test_what_is_ahead_is_told_in_seconds() -> None:
    """What runs counts with what is left of it, what waits with all of it, and only what comes before the claim."""

    async def play() -> None:
        scene = Scene()
        tasks = [scene.start(step(takes=4.0), tenant="a") for _ in range(3)]
        await asyncio.sleep(1.0)
        last = step()
        assert scene.queues.ahead("m", scene.claim(last, tenant="a")) == pytest.approx(3 + 8)
        assert scene.queues.ahead("m", scene.claim(last, tenant="b")) == pytest.approx(3)
        assert scene.queues.ahead("m", scene.claim(last, priority="interactive")) == pytest.approx(3)
        assert scene.queues.ahead("n", scene.claim(last)) == 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert scene.queues.ahead("m", scene.claim(last)) == 0

    played(play)


def test_a_snapshot_says_what_waits_and_runs() -> None:
    """Steps and seconds by model and class, what is with the workers, and that nothing is left at the end."""

    async def play() -> None:
        scene = Scene()
        tasks = [scene.start(step(takes=4.0)) for _ in range(3)]
        tasks.append(scene.start(step(takes=2.0), priority="batch"))
        await asyncio.sleep(0.1)
        told = scene.queues.snapshot()["m"]
        assert told["waiting"]["standard"] == {"steps": 2, "seconds": 8.0}
        assert told["waiting"]["batch"] == {"steps": 1, "seconds": 2.0}
        assert told["running"] == 1
        await asyncio.gather(*tasks)
        told = scene.queues.snapshot()["m"]
        assert told["running"] == 0 and told["batches"] == {1: 4}
        assert all(row["steps"] == 0 for row in told["waiting"].values())
        waited_s = scene.tally.value("triptych_wait_seconds", model="m", priority="batch")
        assert waited_s == pytest.approx(12, abs=0.1)

    played(play)
