"""Where steps wait for workers: in an order that can still change, until shortly before their turn.

A worker replica has `at_worker` steps at most, and the next only shortly before it can begin; everything else waits
here, where it can be overtaken, or taken out when nobody wants it any more. One event loop, no threads.

Whose turn it is takes along what waits in the same class and can be made in one call with it, up to the size that pays
by what was measured, and as long as all of them are expected to be done in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from deployments.observing import tracing
from deployments.orchestration.breaker import Breaker, unexpected
from deployments.orchestration.metrics import Metrics, Tally
from deployments.orchestration.results import WorkerLostError
from deployments.settings import QueueSettings
from deployments.workers.streams import ended
from deployments.workers.worker import OnBatchProgress, OnProgress
from router.cost.batches import BatchSizes, batch_key
from router.cost.order import CLASSES, Claim, Order
from router.errors import BusyError, DeadlineError, LoadError, StepError, TriptychError
from router.types import Progress, Step, StepResult, Value

logger = logging.getLogger("triptych.queues")

TRIES = 3
"""So often a step is begun whose worker is lost each time."""

AGAIN_S = (0.0, 1.0)
"""Pause before the second and the third try."""

LEAST_WAIT_S = 0.1
"""After a server said that it has no room, whatever it says of when to come again."""


class WorkerClient(Protocol):
    """Whoever can run the steps of one model."""

    async def run(
        self, step: Step, inputs: Sequence[Value], deadline_s: float, on_progress: OnProgress | None = None
    ) -> StepResult:
        """Raises a `TriptychError`, or `WorkerLostError` if the worker died and the step may be tried again."""
        ...


class BatchWorkerClient(WorkerClient, Protocol):
    """One that takes several steps at once, too. Others are given one by one."""

    async def run_batch(
        self,
        steps: Sequence[Step],
        inputs: Sequence[Sequence[Value]],
        deadline_s: float,
        on_progress: OnBatchProgress | None = None,
    ) -> list[StepResult | TriptychError]:
        """Steps with one `batch_key`, in one turn. A step that fails is an error in its place; what concerns all of
        them is raised as by `run`."""
        ...


class StepQueues:
    """The steps of all models on their way to the workers.

    workers:   by model;   worker_of: the name of the worker that holds a model, where several share one
    replicas:  of the worker of a model, now
    seconds:   expected for one picture of a step, made in a batch of so many
    sizes:     how many are made at once; None: one
    """

    def __init__(
        self,
        workers: Mapping[str, WorkerClient],
        replicas: Callable[[str], int],
        seconds: Callable[[Step, int], float],
        settings: QueueSettings | None = None,
        worker_of: Mapping[str, str] | None = None,
        sizes: BatchSizes | None = None,
        breaker: Breaker | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breaker = breaker or Breaker(clock)
        self._workers = workers
        self._replicas = replicas
        self._seconds = seconds
        self._sizes = sizes
        self._settings = settings or QueueSettings()
        self._worker_of = dict(worker_of or {})
        self._metrics = metrics or Tally()
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._busy_until: dict[str, float] = {}

    async def run(
        self,
        step: Step,
        inputs: Sequence[Value],
        claim: Claim,
        on_progress: OnProgress | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> StepResult:
        """Wait for the step's turn, run it, and return what its worker returns or raise what that raises. on_sent is
        called when it goes to a worker.

        Nothing is waited for beyond the deadline of the claim (`DeadlineError`). A step whose worker is lost runs
        again, `TRIES` times in all; one whose server has no room waits for as long as that says. If the caller is
        cancelled, a waiting step is taken out, and one that runs has stopped when this ends.
        """
        model = str(step.model)
        if model not in self._workers:
            raise LoadError(f"no worker holds model {model!r}", "model")
        if (left_s := claim.deadline - self._clock()) <= 0:
            raise _not_begun(step)
        self._check_given_up(model)
        loop = asyncio.get_running_loop()
        key = batch_key(step, inputs) if self._may_batch(model) and not claim.alone else None
        entry = _Entry(step, model, tuple(inputs), claim, on_progress, loop.create_future(), self._clock(), key)
        entry.on_sent, entry.carried = on_sent, tracing.carrier()
        self._enter(entry)
        try:
            await asyncio.wait({entry.done}, timeout=left_s)
        except asyncio.CancelledError:
            if (batch := self._withdraw(entry)) is not None and batch.task is not None:
                await ended(batch.task)
            raise
        if not entry.done.done():
            begun = entry.batch is not None
            self._withdraw(entry)
            raise _not_done(step) if begun else _not_begun(step)
        return entry.done.result()

    def ahead(self, model: str, claim: Claim) -> float:
        """Seconds of work, on all replicas together, that would come before a claim for `model` if it came now."""
        now, line = self._clock(), self._line(model)
        running = sum(max(0.0, batch.due - now) for batch in line.running)
        return running + sum(batch.seconds for batch in line.sent) + line.order.ahead_s(claim, now)

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """What waits and runs, by model: `waiting` (steps and expected seconds by class), `running` (steps that are
        with a worker), `batches` (how many there were of each size), `out` (why none is sent, or "")."""
        reasons = self.breaker.reasons
        found: dict[str, dict[str, Any]] = {
            model: {
                "waiting": {name: {"steps": 0, "seconds": 0.0} for name in CLASSES},
                "running": 0,
                "batches": {},
                "out": reasons.get(model, ""),
            }
            for model in self._workers
        }
        for line in self._lines.values():
            for entry in line.order:
                waiting = found[entry.model]["waiting"][entry.claim.priority]
                waiting["steps"] += 1
                waiting["seconds"] += entry.claim.seconds
            for batch in (*line.running, *line.sent):
                found[batch.model]["running"] += len(batch.entries)
            for (model, size), count in sorted(line.made.items()):
                found[model]["batches"][size] = count
        return found

    # ------------------------------------------------------------------------------------------------------ in and out

    def _line(self, model: str) -> _Line:
        name = self._worker_of.get(model, model)
        if name not in self._lines:
            self._lines[name] = _Line(model, Order(self._settings.ageing_s, self._settings.weights))
        return self._lines[name]

    def _enter(self, entry: _Entry) -> None:
        if entry.done.done():
            return
        line = self._line(entry.model)
        entry.batch = entry.again = None
        line.order.add(entry, entry.claim, self._clock(), entry.since)
        self._soon(line)

    def _withdraw(self, entry: _Entry) -> _Batch | None:
        """Nobody waits for the entry any more. Returns the batch that is stopped because of it, if there is one."""
        if not entry.done.cancel() and not entry.done.cancelled():
            entry.done.exception()  # marks it as seen
        if entry.again is not None:
            entry.again.cancel()
        line, batch = self._line(entry.model), entry.batch
        if line.order.remove(entry):
            self._soon(line)
        if batch is None or batch.task is None or not all(other.done.done() for other in batch.entries):
            return None
        batch.task.cancel()
        return batch

    def _may_batch(self, model: str) -> bool:
        return self._sizes is not None and hasattr(self._workers[model], "run_batch")

    def _check_given_up(self, model: str) -> None:
        if reason := self.breaker.given_up(model):
            raise LoadError(f"model {model!r} is {reason}", "model")

    # --------------------------------------------------------------------------------------------------------- sending

    def _soon(self, line: _Line) -> None:
        """Send what has its turn, once all that begins at the same moment has come."""
        loop = asyncio.get_running_loop()
        if line.loop is not loop:  # whatever was planned in an earlier one is not coming
            line.loop, line.sending, line.timer = loop, None, None
        if line.sending is None:
            line.sending = loop.call_soon(self._send, line)

    def _send(self, line: _Line) -> None:
        line.sending, now = None, self._clock()
        line.replicas = max(1, self._replicas(line.model))
        if line.timer is not None:
            line.timer.cancel()
        held: list[float] = []  # until when those that wait for others do so

        def may(entry: _Entry) -> bool:
            if not self.breaker.may_run(entry.model):
                return False
            if (until := max(self._busy_until.get(entry.model, 0.0), self._held_until(line, entry, now))) > now:
                held.append(until)
                return False
            return True

        while line.room(now, self._settings) <= 0 and (entry := line.order.first(now, may)) is not None:
            if entry.done.done() or entry.claim.deadline <= now:
                line.order.remove(entry)
                _fail(entry, _not_begun(entry.step))
                continue
            self._send_batch(line, entry, now)
        line.timer = self._wake(line, now, held)

    def _held_until(self, line: _Line, entry: _Entry, now: float) -> float:
        """Until when a step waits for others that it could be made with, on the clock; the past if it does not."""
        share = self._settings.hold_back
        if share <= 0 or entry.key is None or entry.tries:
            return 0.0
        most = self._most(entry.step)
        if most == 1 or 1 + len(line.order.along(entry, most - 1, entry.alike)) >= most:
            return 0.0
        slack_s = entry.claim.deadline - entry.since - most * self._seconds(entry.step, most)
        return entry.since + share * max(0.0, slack_s)

    def _wake(self, line: _Line, now: float, held: Sequence[float]) -> asyncio.TimerHandle | None:
        """When to look again though nothing has come or ended: a place is soon free, or the time of a breaker over."""
        if not len(line.order) or line.loop is None:
            return None
        if (wait_s := line.room(now, self._settings)) <= 0:
            models = {entry.model for entry in line.order}
            times = [at for model in models if (at := self.breaker.opens_at(model)) is not None]
            wait_s = max(0.0, min([*times, *held], default=float("inf")) - now)
        return line.loop.call_later(wait_s, self._soon, line) if wait_s < float("inf") else None

    def _send_batch(self, line: _Line, first: _Entry, now: float) -> None:
        entries = self._together(line, first, now)
        seconds = self._seconds(first.step, len(entries))
        for entry in entries:
            line.order.take(entry, seconds, now, along=entry is not first)
        probe = self.breaker.sent(first.model)
        batch = _Batch(first.model, tuple(entries), len(entries) * seconds, now, probe)
        for entry in entries:
            entry.batch = batch
            if entry.on_sent is not None:
                entry.on_sent()
        line.out(batch, now)
        line.made[first.model, len(entries)] += 1
        self._metrics.record("triptych_batches_total", model=first.model, size=str(len(entries)))
        for entry in entries:
            waited_s, priority = now - entry.since, entry.claim.priority
            self._metrics.record("triptych_wait_seconds", waited_s, model=first.model, priority=priority)
            self._timed(entry, "wait", waited_s)
            if tracing.active():
                sent_ns = time.time_ns()
                tracing.recorded(entry.carried, "wait", sent_ns - int(waited_s * 1e9), sent_ns, priority=priority)
        batch.task = asyncio.ensure_future(self._run(batch))
        batch.task.add_done_callback(lambda task: self._came_back(line, batch, task))

    def _together(self, line: _Line, first: _Entry, now: float) -> list[_Entry]:
        """What is sent with a step. One that is tried again is alone: it may be what its worker was lost by."""
        if first.key is None or first.tries or self.breaker.opens_at(first.model) is not None:
            return [first]
        found = [first, *line.order.along(first, self._most(first.step) - 1, first.alike)]
        while len(found) > 1:
            done_at = now + len(found) * self._seconds(first.step, len(found))
            if all(done_at <= entry.claim.deadline for entry in found):
                break
            found.pop()
        return found

    def _most(self, step: Step) -> int:
        """How many of a step are made at once at most: as many as pays, within the seconds that a batch may take."""
        if self._sizes is None:
            return 1
        most, batch_s = self._sizes.best(step), self._settings.batch_s
        while batch_s is not None and most > 1 and most * self._seconds(step, most) > batch_s:
            most -= 1
        return most

    def _came_back(self, line: _Line, batch: _Batch, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if batch.probe:
                self.breaker.undecided(batch.model)
        elif (error := task.exception()) is not None:  # a bug of ours; nobody may wait for ever because of it
            logger.error("a batch of model %s was not handled", batch.model, exc_info=error)
            for entry in batch.entries:
                _fail(entry, StepError(f"step {entry.step.id!r}: {type(error).__name__}: {error}"))
        line.back(batch, self._clock())
        self._soon(line)

    async def _run(self, batch: _Batch) -> None:
        try:
            with tracing.beside([entry.carried for entry in batch.entries]):
                results = await self._on_worker(batch)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            lost = WorkerLostError(f"the worker of {batch.model!r} cancelled the step; it may be restarting; try again")
            results = [lost] * len(batch.entries)
        self._count(batch, results)
        self._judge(batch, results)
        for entry, result in zip(batch.entries, results, strict=True):
            if isinstance(result, StepResult):
                if not entry.done.done():
                    entry.done.set_result(result)
            elif isinstance(result, WorkerLostError):
                self._try_again(entry, result)
            elif isinstance(result, BusyError):
                self._wait_for_room(entry, result)
            else:
                _fail(entry, result)

    async def _on_worker(self, batch: _Batch) -> list[StepResult | Exception]:
        """What became of each step."""
        entries, worker = batch.entries, self._workers[batch.model]
        left_s = max(entry.claim.deadline for entry in entries) - self._clock()
        listeners = [entry.listener() for entry in entries]
        try:
            if len(entries) == 1:
                return [await worker.run(entries[0].step, entries[0].inputs, left_s, listeners[0])]

            def report(number: int, progress: Progress) -> None:
                if (listener := listeners[number]) is not None:
                    listener(progress)

            steps, inputs = [entry.step for entry in entries], [entry.inputs for entry in entries]
            heard = report if any(listeners) else None
            made = await cast(BatchWorkerClient, worker).run_batch(steps, inputs, left_s, heard)
        except Exception as error:
            return [error] * len(entries)
        if len(made) != len(entries):
            wrong = StepError(f"model {batch.model!r} returned {len(made)} results for {len(entries)} steps")
            return [wrong] * len(entries)
        self._learn(batch, made)
        return list(made)

    def _learn(self, batch: _Batch, made: Sequence[StepResult | TriptychError]) -> None:
        for entry, result in zip(batch.entries, made, strict=True):
            too_many = result.facts.get("batch_too_large") if isinstance(result, StepResult) else None
            if isinstance(too_many, int) and self._sizes is not None:
                self._sizes.ran_out_of_memory(entry.step, too_many)

    def _count(self, batch: _Batch, results: Sequence[StepResult | Exception]) -> None:
        """What came back; and of what was made, how long it took on its model, and beside that on the way."""
        drawn_s = sum(result.seconds for result in results if isinstance(result, StepResult))
        way_s = max(0.0, self._clock() - batch.sent_at - drawn_s)
        for entry, result in zip(batch.entries, results, strict=True):
            made, lost = isinstance(result, StepResult), isinstance(result, WorkerLostError)
            outcome, kind = "made" if made else "lost" if lost else "failed", entry.step.kind
            self._metrics.record("triptych_steps_total", model=batch.model, kind=kind, outcome=outcome)
            if isinstance(result, StepResult):
                self._timed(entry, "draw", result.seconds)
                self._timed(entry, "way", way_s)

    def _timed(self, entry: _Entry, phase: str, seconds: float) -> None:
        model, kind = entry.model, entry.step.kind
        self._metrics.record("triptych_step_seconds", seconds, model=model, kind=kind, phase=phase)

    def _judge(self, batch: _Batch, results: Sequence[StepResult | Exception]) -> None:
        """Tell the breaker; and those who wait, if there is nothing to wait for."""
        wrong = [result for result in results if isinstance(result, Exception) and unexpected(result)]
        if any(isinstance(result, StepResult) for result in results):
            self.breaker.succeeded(batch.model)
        elif wrong:
            jobs = {entry.claim.job for entry in batch.entries}
            reason = str(wrong[0]) or type(wrong[0]).__name__
            self.breaker.failed(batch.model, jobs, reason, batch.sent_at, batch.probe)
            if (told := self.breaker.reasons.get(batch.model)) is not None:
                logger.warning("model %s is %s", batch.model, told)
                self._metrics.record("triptych_breaker_total", model=batch.model)
            if reason := self.breaker.given_up(batch.model):
                for entry in [entry for entry in self._line(batch.model).order if entry.model == batch.model]:
                    self._line(batch.model).order.remove(entry)
                    _fail(entry, LoadError(f"model {batch.model!r} is {reason}", "model"))
        elif batch.probe:
            self.breaker.undecided(batch.model)

    def _try_again(self, entry: _Entry, error: WorkerLostError) -> None:
        entry.tries += 1
        if entry.done.done() or entry.tries >= TRIES or self.breaker.given_up(entry.model):
            _fail(entry, error)
            return
        logger.warning("step %s: its worker was lost (%s); it runs once more", entry.step.id, error)
        self._metrics.record("triptych_retries_total", model=entry.model)
        pause_s = AGAIN_S[min(entry.tries, len(AGAIN_S)) - 1]
        entry.batch = None
        entry.again = asyncio.get_running_loop().call_later(pause_s, self._enter, entry)

    def _wait_for_room(self, entry: _Entry, error: BusyError) -> None:
        """Nothing is sent to the model's server before it wants to be asked again; who cannot wait so long is told."""
        now = self._clock()
        until = now + max(LEAST_WAIT_S, error.retry_after_s or 0.0)
        self._busy_until[entry.model] = max(until, self._busy_until.get(entry.model, 0.0))
        if until >= entry.claim.deadline:
            _fail(entry, error)
            return
        self._metrics.record("triptych_retries_total", model=entry.model)
        self._enter(entry)


@dataclass(eq=False, slots=True)
class _Entry:
    """A step on its way. done: its result, cancelled when nobody waits for it; since: when it came; key: of what it
    can be made with; batch: with which it is at a worker; again: its next try; carried: its place in a trace"""

    step: Step
    model: str
    inputs: tuple[Value, ...]
    claim: Claim
    on_progress: OnProgress | None
    done: asyncio.Future[StepResult]
    since: float
    key: Hashable | None
    tries: int = 0
    batch: _Batch | None = None
    again: asyncio.TimerHandle | None = None
    on_sent: Callable[[], None] | None = None
    carried: tracing.Carrier = field(default_factory=dict)

    def alike(self, other: _Entry) -> bool:
        """Whether the other one may go along."""
        return other.key == self.key and not other.tries and not other.done.done()

    def listener(self) -> OnProgress | None:
        """Where its worker reports; None if nobody listens, which saves the messages."""
        if (on_progress := self.on_progress) is None:
            return None

        def report(progress: Progress) -> None:
            if not self.done.done():
                on_progress(progress)

        return report


@dataclass(eq=False, slots=True)
class _Batch:
    """What is with a worker as one. seconds: expected for all of it; due: when it is expected to end"""

    model: str
    entries: tuple[_Entry, ...]
    seconds: float
    sent_at: float
    probe: bool
    due: float = 0.0
    task: asyncio.Task[None] | None = None


@dataclass(eq=False, slots=True)
class _Line:
    """What waits for one worker, and what its replicas have. model: one that it holds; running: as many as there are
    replicas; sent: those behind them; made: how many batches of a model and size there were; sending, timer: when it is
    looked at next"""

    model: str
    order: Order[_Entry]
    running: list[_Batch] = field(default_factory=list)
    sent: deque[_Batch] = field(default_factory=deque)
    replicas: int = 1
    made: Counter[tuple[str, int]] = field(default_factory=Counter)
    loop: asyncio.AbstractEventLoop | None = None
    sending: asyncio.Handle | None = None
    timer: asyncio.TimerHandle | None = None

    def room(self, now: float, settings: QueueSettings) -> float:
        """Seconds until another batch may be sent, 0 if it may now, infinity if only when one has come back."""
        if len(self.running) < self.replicas:
            return 0.0
        if len(self.sent) >= min(self.replicas, len(self.running)) * (settings.at_worker - 1):
            return float("inf")
        ends = sorted(batch.due for batch in self.running)
        if len(self.sent) >= len(ends):
            return float("inf")
        return max(0.0, ends[len(self.sent)] - settings.soon_s - now)

    def out(self, batch: _Batch, now: float) -> None:
        """A batch goes to a replica: to an idle one if there is one."""
        self.sent.append(batch)
        self._begin(now)

    def back(self, batch: _Batch, now: float) -> None:
        """A batch has ended, and the next begins in its place."""
        if batch in self.running:
            self.running.remove(batch)
        else:
            self.sent.remove(batch)
        self._begin(now)

    def _begin(self, now: float) -> None:
        while self.sent and len(self.running) < self.replicas:
            begun = self.sent.popleft()
            begun.due = now + begun.seconds
            self.running.append(begun)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)


def _not_begun(step: Step) -> DeadlineError:
    return DeadlineError(f"step {step.id!r} was not begun: the deadline passed before its turn")


def _not_done(step: Step) -> DeadlineError:
    return DeadlineError(f"step {step.id!r} was not done when the deadline passed")
