"""Screening, then successive halving (https://arxiv.org/abs/1502.07943).

Ways are built and asked: too many to try each of one with each of the other. So at first those are drawn that differ
from the present way in one of the two alone. What both together would come to is then expected from what each comes to,
the most promising ones are drawn as well, and from there on the better half draws twice as many prompts.

The present way draws every prompt of a rung first, so that all others are compared with it on the same ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from models.sweep.drawing import Studio
from models.sweep.journal import Journal
from models.sweep.standings import Aim, Standing, better_half, joined, standing
from models.sweep.ways import Build, Way
from router.errors import LoadError, TriptychError

FIRST = 8
"""Prompts of the first rung."""
LEAST = 4
"""So many ways are drawn to the last prompt."""
PROMISING = 16
"""So many ways are left after the screening."""
FIRST_SHARE = 0.5
"""Of the budget for the screening, in which there are most ways."""
SCREENED = "what it is built of and how it is asked, each by itself, promised less than others"


@dataclass(frozen=True)
class State:
    """How far a sweep is. rung: from 1;   prompts: that a way of it draws;   ways: in it
    seconds: used of the budget
    """

    rung: int
    prompts: int
    ways: int
    drawn: int
    seconds: float


OnState = Callable[[State], None]


@dataclass(frozen=True)
class Found:
    """What a sweep found: all ways that were drawn, and those that were not, with the reason."""

    standings: Sequence[Standing]
    left_out: Mapping[str, str]
    whole: bool


def sweep(
    ways: Sequence[Way], studio: Studio, journal: Journal, aim: Aim, minutes: float, on_state: OnState | None = None
) -> Found:
    """Draw and halve until few ways have drawn every prompt, or the minutes are over; the first way is the present one.

    What the journal has already is not drawn again. An interrupt ends it with what is known by then. Raises what the
    present way raises: without it nothing can be compared.
    """
    run = _Run(ways, studio, journal, aim, time.monotonic() + 60 * minutes, on_state or (lambda state: None))
    try:
        return run.all()
    except KeyboardInterrupt:
        if not any(name in journal.looks for name in (way.name for way in ways[1:])):
            raise
        return run.so_far()
    finally:
        studio.leave()


class _Run:
    def __init__(
        self, ways: Sequence[Way], studio: Studio, journal: Journal, aim: Aim, end: float, on_state: OnState
    ) -> None:
        self._present, *others = ways
        self._others = {way.name: way for way in others}
        self._studio, self._journal, self._aim = studio, journal, aim
        self._begun, self._end = time.monotonic(), end
        self._on_state = on_state
        self._screened: dict[str, str] = {}

    def all(self) -> Found:
        now, most = self._present, len(self._studio.prompts)
        prompts, rung, whole = min(FIRST, most), 1, False
        able = [way for way in self._others.values() if way.name not in self._journal.failed]
        names = [way.name for way in able if way.build == now.build or way.asked == now.asked]
        self._rung(rung, names, prompts, self._begun + FIRST_SHARE * (self._end - self._begun))
        names = self._promising(able, prompts)
        while names and time.monotonic() < self._end:
            rung += 1
            self._rung(rung, names, prompts, self._end)
            seen = {name: one for name in names if (one := self._standing(name)) is not None}
            names = [name for name, one in seen.items() if one.prompts >= prompts]
            whole = prompts == most and bool(names)
            if whole or not names:
                break
            standings = [seen[name] for name in names]
            names = better_half(standings, self._aim, LEAST, self._seen(now.name).seconds)
            prompts = min(2 * prompts, most)
        return replace(self.so_far(), whole=whole)

    def _promising(self, able: Sequence[Way], prompts: int) -> list[str]:
        """The ways that go on after the screening, by what was seen of them or is expected of them."""
        present = self._seen(self._present.name)
        expected: dict[str, Standing] = {}
        for way in able:
            if way.name in self._journal.failed:
                continue
            names = Way(way.build, *self._present.asked).name, Way(self._present.build, *way.asked).name
            build, asking = map(self._standing, names)
            if (seen := self._standing(way.name)) is not None and seen.prompts >= prompts:
                expected[way.name] = seen
            elif build is not None and asking is not None:
                expected[way.name] = joined(build, asking, present)
            elif failed := next((self._journal.failed[name] for name in names if name in self._journal.failed), None):
                self._screened[way.name] = failed
        ranked = sorted(expected, key=lambda name: self._aim.promise(expected[name], present.seconds), reverse=True)
        self._screened |= dict.fromkeys(ranked[PROMISING:], SCREENED)
        return ranked[:PROMISING]

    def so_far(self) -> Found:
        """All that is known now."""
        return Found(self._standings(), self._left_out(), whole=False)

    def _rung(self, rung: int, names: Sequence[str], prompts: int, end: float) -> None:
        """Each way up to so many prompts. A build has its share of the time, that of loading aside; its ways come in a
        mixed order, so that what is left out when that is over is left out by chance."""
        self._draw(self._present, prompts, float("inf"), rung, len(names))
        builds = list(self._by_build(names))
        for place, (build, ways) in enumerate(builds):
            if time.monotonic() >= end or not self._loads(build, ways, prompts):
                continue
            now = time.monotonic()
            own_end = now + (end - now) / (len(builds) - place)
            for way in random.Random(f"{build.name} {rung}").sample(ways, len(ways)):
                self._draw(way, prompts, own_end, rung, len(names))

    def _loads(self, build: Build, ways: Sequence[Way], prompts: int) -> bool:
        """Load a build if one of its ways has something left to draw. If it cannot be loaded, they all fail."""
        if not any(self._missing(way, prompts) for way in ways):
            return False
        try:
            self._studio.enter(build)
        except LoadError as error:
            for way in self._others.values():
                if way.build == build:
                    self._journal.fail(way.name, error.message)
            return False
        return True

    def _by_build(self, names: Sequence[str]) -> Iterator[tuple[Build, list[Way]]]:
        ways = [self._others[name] for name in names]
        loaded = self._present.build
        builds = sorted({way.build.name: way.build for way in ways}.values(), key=lambda build: build != loaded)
        for build in builds:
            yield build, [way for way in ways if way.build == build]

    def _missing(self, way: Way, prompts: int) -> list[int]:
        had = self._journal.looks.get(way.name, {})
        return [number for number in range(prompts) if number not in had]

    def _draw(self, way: Way, prompts: int, end: float, rung: int, count: int) -> None:
        """The prompts of a way that are missing, up to so many, until the time `end`."""
        present = way is self._present
        try:
            for number in self._missing(way, prompts):
                if time.monotonic() >= end:
                    return
                self._studio.enter(way.build)
                self._journal.add(way.name, number, self._studio.look(way, number, self._journal, present))
                drawn = sum(map(len, self._journal.looks.values()))
                self._on_state(State(rung, prompts, count, drawn, time.monotonic() - self._begun))
        except TriptychError as error:
            if present:
                raise
            self._journal.fail(way.name, error.message)

    def _standing(self, name: str) -> Standing | None:
        looks = self._journal.looks
        if name not in looks:
            return None
        return standing(name, looks[name], looks[self._present.name])

    def _seen(self, name: str) -> Standing:
        """A way of which something was seen."""
        found = self._standing(name)
        assert found is not None
        return found

    def _standings(self) -> list[Standing]:
        names = [self._present.name, *self._others]
        return [one for name in names if (one := self._standing(name)) is not None]

    def _left_out(self) -> dict[str, str]:
        late = {name: "it was ended before" for name in self._others if name not in self._journal.looks}
        screened = {name: reason for name, reason in self._screened.items() if name in late}
        return late | screened | self._journal.failed
