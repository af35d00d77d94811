"""A circuit breaker for the workers of each model: what fails repeatedly is out for a while, then tried once.

closed ─ three unexpected failures in a row, of two jobs at least ─▶ open ─ its time is over ─▶ half-open: one probe
   ▲                                                                  ▲ twice as long                  │
   └────────────────────────────── it succeeds ───────────────────────┴────────── it fails ────────────┘

Failures of one job alone do not open it: a job that breaks every worker that it meets is no fault of theirs. And what
was under way when another failed is of the same incident: a machine that goes away counts once, whatever it had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from router.errors import StepError, TriptychError

FAILURES = 3
JOBS = 2
FIRST_S = 5.0  # for which it is open; twice as long each time that its probe fails
MOST_S = 300.0


def unexpected(error: BaseException) -> bool:
    """Whether a failure says something about the worker: not what a step asked for (`param`), nor that it was late,
    nor that there is no room, nor weights that are missing, which the worker tries again by itself."""
    if isinstance(error, StepError):
        return error.param is None
    return isinstance(error, Exception) and not isinstance(error, TriptychError)


@dataclass(slots=True)
class _Circuit:
    """failed_at: when the last failure was counted;   until: the end of its time, None while it is closed
    opened: how often in a row"""

    failures: int = 0
    failed_at: float = float("-inf")
    jobs: set[str] = field(default_factory=set)
    opened: int = 0
    until: float | None = None
    probing: bool = False
    reason: str = ""


class Breaker:
    """The circuits of all models. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def may_run(self, model: str) -> bool:
        """Whether a step may be sent to a worker of `model` now."""
        circuit = self._circuits.get(model)
        if circuit is None or circuit.until is None:
            return True
        return not circuit.probing and self._clock() >= circuit.until

    def sent(self, model: str) -> bool:
        """A step was sent. True if it is the probe, after which none may be sent until that has ended."""
        circuit = self._circuits.get(model)
        if circuit is None or circuit.until is None:
            return False
        circuit.probing = True
        return True

    def succeeded(self, model: str) -> None:
        """A step was made: whatever was before is forgotten."""
        self._circuits.pop(model, None)

    def undecided(self, model: str) -> None:
        """The probe ended without saying anything: it was cancelled, or late. Another may follow at once."""
        if (circuit := self._circuits.get(model)) is not None:
            circuit.probing = False

    def failed(self, model: str, jobs: Collection[str], reason: str, sent_at: float, probe: bool = False) -> None:
        """Count one unexpected failure of a step or batch of these jobs.

        sent_at: on the clock;   probe: as `sent` said
        """
        circuit = self._circuits.setdefault(model, _Circuit())
        circuit.jobs |= set(jobs)
        circuit.reason = reason
        if sent_at < circuit.failed_at:
            return
        circuit.failures += 1
        circuit.failed_at = self._clock()
        enough = circuit.failures >= FAILURES and len(circuit.jobs) >= JOBS
        if probe or (circuit.until is None and enough):
            circuit.until = self._clock() + min(MOST_S, FIRST_S * 2**circuit.opened)
            circuit.opened += 1
            circuit.probing = False

    def state(self, model: str) -> Literal["closed", "open", "half_open"]:
        """open: nothing is sent; half_open: one step is, to see."""
        circuit = self._circuits.get(model)
        if circuit is None or circuit.until is None:
            return "closed"
        return "open" if self._is_out(circuit) else "half_open"

    def opens_at(self, model: str) -> float | None:
        """When a probe may be sent, on the clock; None if nothing is in the way, or a probe is on its way."""
        circuit = self._circuits.get(model)
        return None if circuit is None or circuit.probing else circuit.until

    def given_up(self, model: str) -> str:
        """Why nobody should wait for `model`: it is out, and a probe has failed, too. Empty otherwise."""
        circuit = self._circuits.get(model)
        return _told(circuit) if circuit is not None and circuit.opened > 1 and self._is_out(circuit) else ""

    @property
    def reasons(self) -> Mapping[str, str]:
        """The models that are out now, with the reason. One whose time is over may be chosen again."""
        return {model: _told(circuit) for model, circuit in self._circuits.items() if self._is_out(circuit)}

    def _is_out(self, circuit: _Circuit) -> bool:
        return circuit.until is not None and self._clock() < circuit.until


def _told(circuit: _Circuit) -> str:
    return f"taken out for a while after {circuit.failures} failures in a row, the last: {circuit.reason}"
